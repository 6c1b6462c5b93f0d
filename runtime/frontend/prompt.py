"""From messages to everything the Thinker needs: token ids, positions and encoder calls."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import AntiphonError
from .audio import read_audio
from .audio_layout import audio_calls, audio_tokens
from .detokenizer import IncrementalDecoder
from .image import VisionSettings, image_patches
from .mel import MelSettings, log_mel
from .messages import AudioPart, ImagePart, Message, TextPart, check_frame_rate, parse_messages
from .positions import MediaItem, PositionRules, interleave, multimodal_positions
from .tokenizer import ChatTokenizer
from .video import read_video
from .vision_layout import vision_calls

SCHEMA = 1


@dataclass(frozen=True, eq=False)
class EncoderCall:
    """One run of an encoder stage and where its result goes."""

    stage: str
    """audio_encoder or vision_encoder."""

    feeds: dict[str, np.ndarray]

    rows: np.ndarray
    """int64 [features]: token positions in the prompt that the features fill, in order."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """A conversation up to the point where the model goes on.

    token_ids int64 [tokens]; positions float32 [3, tokens]; next_position: position of the token after them (largest + 1);
    calls: encoder runs; media: the pieces of media in order of appearance, enough to compute positions again.
    """

    token_ids: np.ndarray
    positions: np.ndarray
    next_position: float
    calls: tuple[EncoderCall, ...]
    media: tuple[MediaItem, ...]


@dataclass(frozen=True, eq=False)
class _Loaded:
    """A piece of media after reading: patches and grid of an image or video; the index of its clip, or of its heard audio track."""

    kind: str
    role: str
    patches: np.ndarray | None = None
    grid: tuple[int, int, int] = (0, 0, 0)
    seconds_per_grid: float = 0.0
    clip: int | None = None


class FrontEnd:
    """The way into and out of a bundle for people: messages in, text out. Reads the bundle's `frontend/` folder."""

    def __init__(self, folder: str | Path) -> None:
        """Raises AntiphonError when a file of the folder is missing or broken."""
        folder = Path(folder)
        constants = _read_constants(folder / "frontend.json")
        try:
            self._configure(constants)
            special_tokens = constants["special_tokens"]
        except (KeyError, TypeError, AttributeError) as error:
            raise AntiphonError(f"{folder / 'frontend.json'} lacks or misspells {error}; build the bundle again.") from None
        template = folder / "chat_template.jinja"
        if not template.is_file():
            raise AntiphonError(f"No chat template at {template}; build the bundle again.")
        self._tokenizer = ChatTokenizer(folder / "tokenizer.json", template.read_text(encoding="utf-8"), special_tokens)

    def _configure(self, constants: dict[str, Any]) -> None:
        ids, audio, positions = constants["ids"], constants["audio"], constants["positions"]
        self.im_start: int = ids["im_start"]
        self.im_end: int = ids["im_end"]
        self.system: int = ids["system"]
        self.user: int = ids["user"]
        self.assistant: int = ids["assistant"]
        self.audio: int = ids["audio"]
        self.image: int = ids["image"]
        self.video: int = ids["video"]
        self.generation: dict[str, Any] = constants["generation"]
        self._audio_start, self._audio_end, self._tts_pad = ids["audio_start"], ids["audio_end"], ids["tts_pad"]
        self._mel = MelSettings(audio["sampling_rate"], audio["n_fft"], audio["hop_length"], audio["feature_size"])
        self._n_window, self._n_window_infer = audio["n_window"], audio["n_window_infer"]
        self._image_settings, self._video_settings = _vision_settings(constants["image"]), _vision_settings(constants["video"])
        self._position_embeddings = constants["vision"]["num_position_embeddings"]
        starts = {"audio_start": ids["audio_start"], "vision_start": ids["vision_start"]}
        self._thinker_rules = PositionRules(**starts, **positions["thinker"])
        self._talker_rules = PositionRules(**starts, **positions["talker"])

    def prompt(self, messages: Any, *, add_generation_prompt: bool = True, use_audio_in_video: bool = False, video_fps: float = 2.0) -> Prompt:
        """The whole conversation `messages` (OpenAI chat shape), ready for the encoders and the Thinker.

        `use_audio_in_video` hears the audio track of every video that does not say otherwise; `video_fps` is the rate at which videos
        are sampled. Raises AntiphonError for anything wrong with the messages or their media.
        """
        return self._build(messages, self._tokenizer.encode_chat, add_generation_prompt, use_audio_in_video, video_fps)

    def continuation(self, messages: Any, *, add_generation_prompt: bool = True, use_audio_in_video: bool = False, video_fps: float = 2.0) -> Prompt:
        """Further turns after complete earlier ones (see `turn_end`), without any preamble; positions start at 0, to be shifted by the caller.

        Arguments and errors as for `prompt`.
        """
        return self._build(messages, self._tokenizer.encode_continuation, add_generation_prompt, use_audio_in_video, video_fps)

    @cached_property
    def turn_end(self) -> np.ndarray:
        """int64 [tokens]: what closes an assistant's turn (im_end and a line break), to be fed between an answer and its continuation."""
        return self._tokenizer.turn_end()

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of `ids`, special tokens left out."""
        return self._tokenizer.decode(ids)

    def decoder(self) -> IncrementalDecoder:
        """A fresh incremental decoder: `.push(token_id)` and `.flush()` give text that never splits a character."""
        return self._tokenizer.decoder()

    def talker_positions(self, token_ids_user: np.ndarray, media: Sequence[MediaItem], trailing: int = 9) -> tuple[np.ndarray, float]:
        """Positions of the Talker's prompt: the user turns' tokens int64 [tokens] and `trailing` rows for the answer.

        `media` are those of the prompt; only those of user turns count. Returns (float32 [3, tokens + trailing], next position).
        Source: get_rope_index over talker_input_ids (transformers 5.23).
        """
        ids = np.concatenate([np.asarray(token_ids_user, np.int64), np.full(trailing, self._tts_pad, np.int64)])
        return multimodal_positions(ids, [item for item in media if item.role == "user"], self._talker_rules)

    def _build(
        self, messages: Any, encode: Callable[[Sequence[Message], bool], np.ndarray], add_generation_prompt: bool, use_audio: bool, video_fps: float
    ) -> Prompt:
        parsed, rate = parse_messages(messages), check_frame_rate(video_fps, "video_fps")
        rendered = encode(parsed, add_generation_prompt)
        loaded, clips = self._load(parsed, use_audio, rate)
        features = log_mel(clips, self._mel) if clips else []
        clip_tokens = [audio_tokens(feature.shape[1], self._n_window) for feature in features]
        media = tuple(
            MediaItem(piece.kind, piece.grid, piece.seconds_per_grid, 0 if piece.clip is None else clip_tokens[piece.clip], piece.role)  # type: ignore[arg-type]
            for piece in loaded
        )
        token_ids, rows = self._expand(rendered, media)
        positions, next_position = multimodal_positions(token_ids, media, self._thinker_rules)
        return Prompt(token_ids, positions, next_position, tuple(self._calls(features, token_ids, loaded, rows)), media)

    def _load(self, messages: Sequence[Message], use_audio: bool, rate: float) -> tuple[list[_Loaded], list[np.ndarray]]:
        """All media in order of appearance, and all clips (the audio tracks of videos among them), which share one log-mel call."""
        loaded: list[_Loaded] = []
        clips: list[np.ndarray] = []
        for role, part in ((message.role, part) for message in messages for part in message.parts):
            if isinstance(part, TextPart):
                continue
            if isinstance(part, AudioPart):
                clips.append(read_audio(part.source, part.sample_rate, self._mel.sampling_rate))
                loaded.append(_Loaded("audio", role, clip=len(clips) - 1))
            elif isinstance(part, ImagePart):
                loaded.append(_Loaded("image", role, *image_patches(part.source, self._image_settings)))
            else:
                heard = use_audio if part.use_audio is None else part.use_audio
                video = read_video(part, self._video_settings, rate, heard, self._mel.sampling_rate)
                if video.audio is not None:
                    clips.append(video.audio)
                clip = None if video.audio is None else len(clips) - 1
                loaded.append(_Loaded("video", role, video.patches, video.grid, video.seconds_per_grid, clip))
        return loaded, clips

    def _expand(self, rendered: np.ndarray, media: Sequence[MediaItem]) -> tuple[np.ndarray, list[np.ndarray]]:
        """The ids with each placeholder replaced by as many tokens as there are features, and each image's or video's token positions."""
        ids = {"audio": self.audio, "image": self.image, "video": self.video}
        places = np.flatnonzero(np.isin(rendered, list(ids.values())))
        if [ids[item.kind] for item in media] != rendered[places].tolist():
            raise AntiphonError(
                f"The chat template wrote {len(places)} media placeholders for {len(media)} pieces of media, or in another order; "
                "use the template of the checkpoint."
            )
        pieces: list[np.ndarray] = []
        rows: list[np.ndarray] = []
        length = cursor = 0
        for item, place in zip(media, places.tolist(), strict=True):
            tokens = self._media_tokens(item, ids[item.kind])
            pieces += [rendered[cursor:place], tokens]
            length += place - cursor
            rows.append(length + np.flatnonzero(tokens == ids[item.kind]))
            length, cursor = length + len(tokens), place + 1
        return np.concatenate([*pieces, rendered[cursor:]]), rows

    def _media_tokens(self, item: MediaItem, placeholder: int) -> np.ndarray:
        """int64 [tokens] that stand for one piece of media. Source: Qwen3OmniMoeProcessor (replace_..._token)."""
        if item.kind == "audio":
            return np.full(item.audio_tokens, placeholder, np.int64)
        merged = (item.grid[1] // self._thinker_rules.spatial_merge_size) * (item.grid[2] // self._thinker_rules.spatial_merge_size)
        if not item.audio_tokens:
            return np.full(item.grid[0] * merged, placeholder, np.int64)
        # Each video token stands at its time, counted in audio tokens, before the audio token of the same time.
        times = np.repeat(np.arange(item.grid[0]) * item.seconds_per_grid * float(self._thinker_rules.position_id_per_seconds), merged)
        order = interleave(times, np.arange(item.audio_tokens, dtype=np.float64))
        tokens = np.where(order < len(times), placeholder, self.audio)
        return np.concatenate([[self._audio_start], tokens, [self._audio_end]]).astype(np.int64)

    def _calls(self, features: list[np.ndarray], token_ids: np.ndarray, loaded: list[_Loaded], rows: list[np.ndarray]) -> list[EncoderCall]:
        calls: list[EncoderCall] = []
        audio_rows, first = np.flatnonzero(token_ids == self.audio), 0
        for feeds in audio_calls(features, self._n_window, self._n_window_infer) if features else ():
            last = first + len(feeds["output_index"])
            calls.append(EncoderCall("audio_encoder", feeds, audio_rows[first:last]))
            first = last
        merge = self._thinker_rules.spatial_merge_size
        for piece, places in zip(loaded, rows, strict=True):
            if piece.patches is not None:
                patches, first = piece.patches.reshape(-1, piece.patches.shape[2]), 0
                for feeds in vision_calls(patches, piece.grid, merge, self._position_embeddings):
                    last = first + feeds["pixels"].shape[0] * feeds["pixels"].shape[1] // merge**2
                    calls.append(EncoderCall("vision_encoder", feeds, places[first:last]))
                    first = last
        return calls


def _read_constants(path: Path) -> dict[str, Any]:
    try:
        constants = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise AntiphonError(f"No front end at {path}; give the frontend folder of a bundle, or build the bundle again.") from None
    except ValueError as error:
        raise AntiphonError(f"{path} is not valid JSON ({error}); build the bundle again.") from None
    if not isinstance(constants, dict) or constants.get("schema") != SCHEMA:
        raise AntiphonError(f"{path} is not of front-end schema {SCHEMA}; build the bundle again with this version of Antiphon.")
    return constants


def _vision_settings(section: dict[str, Any]) -> VisionSettings:
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in section.items()}
    return VisionSettings(**fields)
