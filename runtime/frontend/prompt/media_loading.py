"""Load the media of messages, and make the encoder calls for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..audio.audio_layout import audio_tokens
from ..audio.audio_stream import AudioStream
from ..audio.long_audio import in_memory, is_long, stream_calls
from ..audio.mel import MelSettings, log_mel
from ..audio.recording import read_audio
from ..media.media_options import WHOLE, Span
from ..media.media_policy import TooLong
from ..media.media_source import resolve_source
from ..vision.image import patch_grid, read_image
from ..vision.picture_size import VisionSettings, fewest_tokens
from ..vision.video import read_video
from .content_parts import AudioPart, ImagePart, TextPart
from .encoder_calls import EncoderCall, Frames, clip_calls, vision_encoder_calls
from .messages import Message
from .positions import MediaItem
from .prompt_limits import PromptLimits
from .senses import Senses
from .timestamps import patch_seconds


@dataclass(frozen=True, eq=False)
class LoadedMedia:
    """A piece of media after reading. `frames`: those of an image or video. `sound`: the audio of a clip or
    of a used audio track, as log-mel features, or as a stream if it is long.
    """

    item: MediaItem
    frames: Frames | None = None
    sound: np.ndarray | AudioStream | None = None


class MediaLoader:
    """Loads the media of messages by the settings of one bundle."""

    def __init__(
        self,
        senses: Senses,
        limits: PromptLimits,
        ids: Mapping[str, int],
        mel: MelSettings,
        layout: tuple[int, int, int],
        images: VisionSettings,
        videos: VisionSettings,
        num_position_embeddings: int,
    ) -> None:
        """`ids`: the media tokens by kind (audio, image, video). `layout`: n_window, n_window_infer and
        convolutions of the audio encoder.
        """
        self._senses, self._limits, self._ids, self._mel, self._layout = senses, limits, ids, mel, layout
        self._images, self._videos, self._position_embeddings = images, videos, num_position_embeddings

    def load(self, messages: Sequence[Message], use_audio: bool, rate: float) -> list[LoadedMedia]:
        """Load all media in order of appearance. All clips that are not long, and audio tracks of videos,
        share one log-mel call.

        `use_audio`: whether to use the audio tracks of videos whose parts do not say. `rate`: frames per
        second of videos whose parts do not say. Raises AntiphonError for media that cannot be read.
        """
        loaded: list[LoadedMedia] = []
        policy, images, videos = self._limits.policy, self._images, self._videos
        left = self._limits.room_for_videos(messages, images, videos)
        for role, part in ((message.role, part) for message in messages for part in message.parts):
            if isinstance(part, TextPart):
                continue
            if isinstance(part, AudioPart):
                source = (
                    part.source
                    if isinstance(part.source, np.ndarray)
                    else resolve_source(part.source, "audio", policy)
                )
                loaded.append(
                    LoadedMedia(
                        MediaItem("audio", role=role), sound=self._sound(source, part.sample_rate, part.span)
                    )
                )
            elif isinstance(part, ImagePart):
                image = read_image(part.source, images, policy, part.pixels)
                loaded.append(
                    LoadedMedia(MediaItem("image", patch_grid(1, image.shape, images), role=role), [image])
                )
            else:
                heard, depth = (
                    use_audio if part.use_audio is None else part.use_audio,
                    videos.temporal_patch_size,
                )
                if heard:
                    self._senses.expect_hearing()
                most = None if left is None else left + fewest_tokens(videos)
                video = read_video(part, videos, rate, heard, self._mel.sampling_rate, policy, most)
                frames = video.frames
                grid, times = (
                    patch_grid(len(frames), (frames.height, frames.width), videos),
                    patch_seconds(video.times, depth),
                )
                left = None if most is None else most - grid[0] * grid[1] * grid[2] // videos.merge_size**2
                sound = (
                    self._stream(video.audio, span=part.span)
                    if isinstance(video.audio, Path | bytes)
                    else video.audio
                )
                loaded.append(
                    LoadedMedia(
                        MediaItem("video", grid, depth / video.rate, role=role, times=times), frames, sound
                    )
                )
        return self._heard(loaded)

    def calls(
        self, token_ids: np.ndarray, loaded: Sequence[LoadedMedia], places: Sequence[np.ndarray]
    ) -> Iterator[EncoderCall]:
        """Yield the encoder calls of media whose tokens are at `places` of `token_ids`, int64 [tokens]."""
        sounds = [
            (piece.sound, span[token_ids[span] == self._ids["audio"]])
            for piece, span in zip(loaded, places, strict=True)
        ]
        clips = [(sound, rows) for sound, rows in sounds if isinstance(sound, np.ndarray)]
        if clips:
            features, rows_of = zip(*clips, strict=True)
            yield from clip_calls(features, np.concatenate(rows_of), *self._layout)
        for sound, rows in sounds:
            if isinstance(sound, AudioStream):
                yield from stream_calls(sound, rows, *self._layout)
        for piece, span in zip(loaded, places, strict=True):
            if piece.frames is not None:
                settings = self._images if piece.item.kind == "image" else self._videos
                rows = span[token_ids[span] == self._ids[piece.item.kind]]
                yield from vision_encoder_calls(
                    piece.frames, piece.item.grid, rows, settings, self._position_embeddings
                )

    def _sound(
        self, source: np.ndarray | Path | bytes, sample_rate: int, span: Span
    ) -> np.ndarray | AudioStream:
        """float32 [samples] of a clip, or a stream if it is long."""
        policy = self._limits.sound_policy(span)
        if not is_long(source, sample_rate, policy, span):
            try:
                return read_audio(source, sample_rate, self._mel.sampling_rate, in_memory(policy, span), span)
            except TooLong:  # its header gave too short a length, or none
                pass
        return self._stream(source, sample_rate, span)

    def _stream(
        self, source: np.ndarray | Path | bytes, sample_rate: int = 0, span: Span = WHOLE
    ) -> AudioStream:
        return AudioStream(
            source, sample_rate, self._mel, *self._layout, self._limits.sound_policy(span), span
        )

    def _heard(self, loaded: Sequence[LoadedMedia]) -> list[LoadedMedia]:
        """The same media with the samples of clips turned into features, and with the number of audio
        tokens.
        """
        clips = [piece.sound for piece in loaded if isinstance(piece.sound, np.ndarray)]
        features = iter(log_mel(clips, self._mel) if clips else ())
        n_window, _, convolutions = self._layout
        heard = []
        for piece in loaded:
            sound, tokens = piece.sound, 0
            if isinstance(sound, AudioStream):
                tokens = sound.tokens
            elif sound is not None:
                sound = next(features)
                tokens = audio_tokens(sound.shape[1], n_window, convolutions)
            heard.append(LoadedMedia(replace(piece.item, audio_tokens=tokens), piece.frames, sound))
        return heard
