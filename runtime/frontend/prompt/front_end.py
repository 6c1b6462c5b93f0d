"""Turn messages into the inputs of the Thinker: token ids, positions and encoder calls.

Both families share this code but represent media differently. In Qwen3-Omni, a piece of media is one run of
tokens whose positions give the time. If the bundle has a format of textual timestamps (Qwen3.5-Omni), it is
one run per temporal patch, with its time as text before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from ...bundle.errors import BrokenBundle
from ...bundle.said import reason, short_path
from ..audio.audio_layout import Feeds
from ..audio.live_audio import LiveAudio
from ..audio.mel import MelSettings
from ..audio.recording import check_sound
from ..constants import UNHEARD, UNSEEN, read_constants
from ..media.media_options import check_frame_rate
from ..media.media_policy import LOCAL, MediaPolicy
from ..vision.picture_size import VisionSettings
from .content_parts import AudioPart, TextPart
from .detokenizer import IncrementalDecoder
from .encoder_calls import AUDIO, EncoderCall
from .media_loading import MediaLoader
from .media_tokens import MediaTokens
from .messages import Message, parse_messages
from .positions import MediaItem, PositionRules, multimodal_positions
from .prompt_limits import PromptLimits, check_count
from .senses import Senses
from .timestamps import AudioClock, MarkedIds, TextualTime, Timestamps
from .tokenizer import ChatTokenizer, Rendered
from .tools import parse_tools

OPEN_TURN = Message("user", (AudioPart(b""),), plain=False)
"""A turn with one clip. It is rendered only to be cut at the clip."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """A conversation up to the point where the model continues, or a piece of one whose positions begin at 0.

    token_ids int64 [tokens]; positions float32 [3, tokens]; next_position: position of the token after them
    (largest + 1); calls: encoder runs; media: the pieces of media in order of appearance, from which
    positions can be computed again.
    """

    token_ids: np.ndarray
    positions: np.ndarray
    next_position: float
    calls: tuple[EncoderCall, ...]
    media: tuple[MediaItem, ...]


class FrontEnd:
    """The input and output of a bundle for people: messages in, text out. Reads the bundle's `frontend/`
    folder.
    """

    def __init__(self, folder: str | Path, policy: MediaPolicy = LOCAL, context: int | None = None) -> None:
        """`policy`: rules for the media of messages. `context`: context of the Thinker in tokens. Messages
        that cannot fit are refused before any work (None: no limit).

        Raises AntiphonError if a file of the folder is missing or broken.
        """
        folder = Path(folder)
        constants = read_constants(folder / "frontend.json")
        try:
            self._configure(constants)
            special_tokens = constants["special_tokens"]
        except (KeyError, TypeError, AttributeError) as error:
            raise BrokenBundle(
                f"{short_path(folder / 'frontend.json')} lacks or misspells {reason(error)}; "
                "build the bundle again."
            ) from None
        template = folder / "chat_template.jinja"
        if not template.is_file():
            raise BrokenBundle(f"No chat template at {short_path(template)}; build the bundle again.")
        try:
            source = template.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise BrokenBundle(
                f"{short_path(template)} cannot be read as UTF-8 text; build the bundle again."
            ) from None
        self._tokenizer = ChatTokenizer(
            folder / "tokenizer.json", source, dict(special_tokens) | constants["template_switches"]
        )
        self._limits = PromptLimits(
            policy, context, self._tokenizer.text_limits(context), self._mel, self._clock
        )
        self._tokens = MediaTokens(
            self._ids, self._clock, self._thinker_rules, self._time, self._tokenizer.encode_text
        )
        layout = self._clock.n_window, self._n_window_infer, self._clock.convolutions
        self._media = MediaLoader(
            self._senses,
            self._limits,
            self._ids,
            self._mel,
            layout,
            self._image_settings,
            self._video_settings,
            self._position_embeddings,
        )

    def _configure(self, constants: dict[str, Any]) -> None:
        ids, audio, positions, stamps = (
            constants["ids"],
            constants["audio"],
            constants["positions"],
            constants.get("timestamps"),
        )
        self.im_start: int = ids["im_start"]
        self.im_end: int = ids["im_end"]
        self.system: int = ids["system"]
        self.user: int = ids["user"]
        self.assistant: int = ids["assistant"]
        self.audio: int = ids["audio"]
        self.image: int = ids["image"]
        self.video: int = ids["video"]
        self.generation: dict[str, Any] = constants["generation"]
        self._tts_pad: int = ids["tts_pad"]
        self._ids = {name: ids[name] for name in ("audio", "image", "video", "audio_start", "audio_end")}
        self._senses = Senses(audio is not None, constants["image"] is not None)
        audio, image, video, vision = (
            audio or UNHEARD,
            *(constants[name] or UNSEEN[name] for name in ("image", "video", "vision")),
        )
        self._mel = MelSettings(
            audio["sampling_rate"], audio["n_fft"], audio["hop_length"], audio["feature_size"]
        )
        self._n_window_infer = audio["n_window_infer"]
        self._clock = AudioClock(
            audio["n_window"], audio.get("convolutions", 3), self._mel.hop_length / self._mel.sampling_rate
        )
        self._image_settings, self._video_settings = _vision_settings(image), _vision_settings(video)
        self._position_embeddings = vision["num_position_embeddings"]
        self._time: TextualTime | None = None
        rules = {"audio_start": ids["audio_start"], "vision_start": ids["vision_start"]}
        if stamps is not None:
            marked = MarkedIds(
                self.audio,
                self.video,
                ids["audio_start"],
                ids["audio_end"],
                ids["vision_start"],
                ids["vision_end"],
            )
            self._time = TextualTime(Timestamps(stamps["format"], stamps["audio_seconds"]), marked)
            rules |= {"textual_time": True, "image": self.image, "video": self.video}
        self._thinker_rules = PositionRules(**rules, **positions["thinker"])
        self._talker_rules = PositionRules(**rules, **positions["talker"])

    @property
    def feature_sizes(self) -> dict[str, int]:
        """Number of values in one mel frame and in one patch of pixels, by their names in interfaces.TENSORS.
        A sense that the bundle lacks has no entry.
        """
        sizes = {"MELS": self._mel.feature_size} if self._senses.hears else {}
        if self._senses.sees:
            settings = self._image_settings
            sizes["PIXELS"] = 3 * settings.temporal_patch_size * settings.patch_size**2
        return sizes

    def prompt(
        self,
        messages: Any,
        *,
        add_generation_prompt: bool = True,
        use_audio_in_video: bool = False,
        video_fps: float = 2.0,
        tools: Any = None,
    ) -> Prompt:
        """The whole conversation `messages` (OpenAI chat shape), ready for the encoders and the Thinker.

        `use_audio_in_video`: whether to use the audio tracks of videos whose parts do not say. `video_fps`:
        the rate at which videos are sampled. `tools`: functions that the model may call (OpenAI shape, see
        `parse_tools`). Raises AntiphonError for any error in the messages, their media or the tools, and for
        tools or calls that the chat template would ignore.
        """
        parsed = self._parse(messages)
        return self._build(
            parsed,
            self._tokenizer.render_chat(parsed, add_generation_prompt, parse_tools(tools)),
            use_audio_in_video,
            video_fps,
        )

    def continuation(
        self,
        messages: Any,
        *,
        add_generation_prompt: bool = True,
        use_audio_in_video: bool = False,
        video_fps: float = 2.0,
        tools: Any = None,
    ) -> Prompt:
        """Further turns after complete earlier ones (see `turn_end`), without a preamble.

        Positions start at 0; the caller shifts them. `tools` are those of the prompt that began the
        conversation. Arguments and errors as for `prompt`.
        """
        parsed = self._parse(messages)
        return self._build(
            parsed,
            self._tokenizer.render_continuation(parsed, add_generation_prompt, parse_tools(tools)),
            use_audio_in_video,
            video_fps,
        )

    def open_turn(
        self,
        messages: Any = (),
        *,
        is_first: bool = True,
        use_audio_in_video: bool = False,
        video_fps: float = 2.0,
        tools: Any = None,
    ) -> Prompt:
        """The opening of a user turn whose audio is still being recorded, up to its first audio token.
        Complete `messages` may come before it.

        `is_first`: this conversation has no earlier turns. The turn continues with `audio_piece` and ends
        with `close_turn`. If positions are shifted by the `next_position` before each piece, ids and
        positions equal those of one prompt. Arguments and errors as for `prompt`.
        """
        self._senses.expect_hearing()
        parsed = self._parse(messages) if len(messages) else ()
        render = self._tokenizer.render_chat if is_first else self._tokenizer.render_continuation
        return self._build(
            parsed,
            render((*parsed, OPEN_TURN), False, parse_tools(tools)),
            use_audio_in_video,
            video_fps,
            is_open=True,
        )

    def live_audio(self, sample_rate: int | None = None) -> LiveAudio:
        """An object that turns samples at `sample_rate` Hz (None: the model's rate) into pieces of an open
        turn.

        Raises AntiphonError for an impossible rate, and if the bundle has no audio encoder.
        """
        self._senses.expect_hearing()
        if sample_rate is not None:
            check_sound(sample_rate, 1, 0.0, self._limits.policy)
        return LiveAudio(
            self._mel, self._clock.n_window, self._n_window_infer, self._clock.convolutions, sample_rate
        )

    def audio_piece(self, feeds: Sequence[Feeds], heard: int = 0) -> Prompt:
        """Further audio of an open turn. `feeds`: those of its encoder calls (see `live_audio`). `heard`:
        number of earlier audio tokens of the turn.
        """
        counts = [len(call["output_index"]) for call in feeds]
        token_ids = self._tokens.audio_tokens(heard, sum(counts))
        rows = np.split(np.flatnonzero(token_ids == self.audio), np.cumsum(counts))[:-1]
        positions, next_position = multimodal_positions(token_ids, (), self._thinker_rules)
        calls = tuple(
            EncoderCall(AUDIO, partial(dict, call), places) for call, places in zip(feeds, rows, strict=True)
        )
        return Prompt(token_ids, positions, next_position, calls, ())

    def close_turn(self, heard: int, text: str | None = None) -> Prompt:
        """The end of an open turn with `heard` audio tokens, with `text` after the audio.

        Raises AntiphonError for text that is not valid Unicode.
        """
        parts = (
            self._parse([{"role": "user", "content": [{"type": "text", "text": text}]}])[0].parts
            if text is not None
            else ()
        )
        turn = Message("user", (*OPEN_TURN.parts, *parts), plain=False)
        rendered = self._tokenizer.encode(self._tokenizer.render_chat((turn,), False))
        token_ids = rendered[self._open_place(rendered) + 1 :]
        positions, next_position = multimodal_positions(token_ids, (), self._thinker_rules)
        return Prompt(token_ids, positions, next_position, (), (MediaItem("audio", audio_tokens=heard),))

    @cached_property
    def turn_end(self) -> np.ndarray:
        """int64 [tokens]: the end of an assistant's turn (im_end and a line break), fed between an answer and
        its continuation.
        """
        return self._tokenizer.turn_end()

    @cached_property
    def answer_opening(self) -> np.ndarray:
        """int64 [tokens]: the tokens before an answer (im_start, assistant, a line break, and others that the
        template adds).
        """
        return self._tokenizer.answer_opening()

    def encode_text(self, text: str) -> np.ndarray:
        """Token ids int64 [tokens] of plain text. Text that looks like a special token is encoded as text.

        Raises AntiphonError for more text than the context holds.
        """
        self._limits.texts.check([text])
        return self._tokenizer.encode_text(text)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of `ids`, without special tokens."""
        return self._tokenizer.decode(ids)

    def decoder(self) -> IncrementalDecoder:
        """A new incremental decoder: `.push(token_id)` and `.flush()` return text and never split a
        character.
        """
        return self._tokenizer.decoder()

    def talker_positions(
        self, token_ids_user: np.ndarray, media: Sequence[MediaItem], trailing: int = 9
    ) -> tuple[np.ndarray, float]:
        """Positions of the Talker's prompt: the tokens of the user turns, int64 [tokens], and `trailing` rows
        for the answer.

        `media` are those of the prompt; only those of user turns are used. Returns (float32 [3, tokens +
        trailing], next position). Source: get_rope_index over talker_input_ids (transformers 5.23).
        """
        ids = np.concatenate(
            [np.asarray(token_ids_user, np.int64), np.full(trailing, self._tts_pad, np.int64)]
        )
        return multimodal_positions(ids, [item for item in media if item.role == "user"], self._talker_rules)

    def _parse(self, messages: Any) -> tuple[Message, ...]:
        """Parse messages, and refuse those whose number, length or media cannot work. Raises
        AntiphonError.
        """
        check_count(messages, self._limits.policy)
        parsed = parse_messages(messages, self._limits.policy)
        kinds = {type(part) for message in parsed for part in message.parts}
        if AudioPart in kinds:
            self._senses.expect_hearing()
        if kinds - {AudioPart, TextPart}:
            self._senses.expect_sight()
        self._limits.check_messages(parsed)
        return parsed

    def _build(
        self,
        messages: Sequence[Message],
        rendered: Rendered,
        use_audio: bool,
        video_fps: float,
        is_open: bool = False,
    ) -> Prompt:
        loaded = self._media.load(messages, use_audio, check_frame_rate(video_fps, "video_fps"))
        if self._time is not None and self._senses.sees:
            # The first timestamp may share a token with the words before it, as in the reference, so it is
            # added before tokenisation.
            mark = "".join(
                self._tokenizer.token(index)
                for index in (self._time.marked.vision_start, self.video, self._time.marked.vision_end)
            )
            rendered = rendered.with_text_before(
                mark,
                [
                    self._time.stamps.text(piece.item.times[0])
                    for piece in loaded
                    if piece.item.kind == "video"
                ],
            )
        ids = self._tokenizer.encode(rendered)
        if is_open:
            ids = ids[: self._open_place(ids)]
        media = tuple(piece.item for piece in loaded)
        token_ids, rows = self._tokens.expand(ids, media)
        positions, next_position = multimodal_positions(token_ids, media, self._thinker_rules)
        return Prompt(
            token_ids, positions, next_position, tuple(self._media.calls(token_ids, loaded, rows)), media
        )

    def _open_place(self, ids: np.ndarray) -> int:
        """The index of the audio of OPEN_TURN in `ids`."""
        places = np.flatnonzero(ids == self.audio)
        if not len(places):
            raise BrokenBundle(
                "The chat template writes no placeholder for audio; use the template of the checkpoint."
            )
        return int(places[-1])


def _vision_settings(section: dict[str, Any]) -> VisionSettings:
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in section.items()
    }
    return VisionSettings(**fields)
