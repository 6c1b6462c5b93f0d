"""One conversation: the Thinker's states go on from turn to turn; the Talker's prompt is made anew from all user turns."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import AntiphonError
from .options import ReplyOptions, choose, read_options
from .pipeline import Plan, ReplyStream, Speech
from .talker import Talker
from .talker_prompt import ASSISTANT_ROWS, TalkerPrompt, talker_prompt, user_rows
from .vocoder import Vocoder

if TYPE_CHECKING:
    from .omni import Omni


class Conversation:
    """Made by `Omni.conversation`. `append` adds a user's turn and prefills it at once; `reply` answers as a stream of events.

    One reply at a time; replies of different conversations run side by side. A reply that was cut short stays in the history as far
    as its text was made.
    """

    def __init__(self, omni: Omni, system: str | None = None, voice: str | None = None) -> None:
        self._omni, self._voice = omni, voice
        self._opening: list[Any] = [] if system is None else [{"role": "system", "content": system}]
        self._context = omni.thinker.new_context()
        self._lock = threading.Lock()
        self._busy = False
        self._begun = False  # a first prompt was queued
        self._answered = True  # nothing was appended since the last answer
        self._turn_is_open = False  # the last answer's turn has no end in the context yet

    def append(
        self,
        messages: Sequence[Any] | None = None,
        *,
        audio: Any = None,
        image: Any = None,
        video: Any = None,
        text: str | None = None,
        sample_rate: int = 16000,
        use_audio_in_video: bool = False,
        video_fps: float = 2.0,
    ) -> None:
        """Add turns and prefill them before the call returns, so that a later reply starts at once.

        Either `messages` of the chat shape, or one user turn of audio, image, video and text, in this order; `sample_rate` in hertz is
        that of audio given as an array. Raises AntiphonError for bad input, a full context, or while a reply is in flight.
        """
        self._enter()
        try:
            options = ReplyOptions(use_audio_in_video=use_audio_in_video, video_fps=video_fps)
            self.queue(_turn(audio, image, video, text, sample_rate) if messages is None else messages, options, add_generation_prompt=False)
            self._omni.thinker.prefill(self._context, self._omni.check_open)
        finally:
            self._leave()

    def reply(self, **options: Any) -> ReplyStream:
        """Answer what was appended: an iterator of TextDelta, AudioDelta and a final Done (see ReplyOptions for the options).

        Waits for a free stream if the bundle already serves `max_streams`. Raises AntiphonError before any work for bad options,
        nothing to answer, a full context, or while another reply of this conversation is in flight.
        """
        began = time.perf_counter()
        chosen = read_options(options)
        self._enter()
        try:
            if self._answered:
                raise AntiphonError("There is nothing to answer; append a turn before asking for a reply.")
            return self.start(chosen, began, with_generation_prompt=False)
        except BaseException:
            self._leave()
            raise

    def queue(self, messages: Sequence[Any], options: ReplyOptions, add_generation_prompt: bool) -> None:
        """Turn `messages` into tokens that wait for the next prefill; nothing changes when it raises."""
        front_end, context = self._omni.front_end, self._context
        media = {"use_audio_in_video": options.use_audio_in_video, "video_fps": options.video_fps}
        ending: list[int] = []
        if not self._begun:
            whole = [*self._opening, *messages] if self._opening and isinstance(messages, list | tuple) else messages
            prompt = front_end.prompt(whole, add_generation_prompt=add_generation_prompt, **media)
        else:
            prompt = front_end.continuation(messages, add_generation_prompt=add_generation_prompt, **media)
            if self._turn_is_open:
                ending = [*context.unfed, *front_end.turn_end.tolist()]
        self._omni.thinker.check_stages(prompt.calls)
        self._omni.thinker.check_room(context, context.waiting_tokens + len(ending) + len(prompt.token_ids))
        if ending:
            context.queue_text(ending)
            context.unfed = []
        context.queue_prompt(prompt)
        self._begun, self._turn_is_open, self._answered = True, False, False

    def start(self, options: ReplyOptions, began: float, with_generation_prompt: bool) -> ReplyStream:
        """Start the workers; `with_generation_prompt`: the queued prompt already opens the answer."""
        omni, context = self._omni, self._context
        choices = choose(options, omni.manifest, self._voice)
        opening = [] if with_generation_prompt else [omni.manifest.id(name) for name in ("im_start", "assistant", "newline")]
        omni.thinker.check_room(context, context.waiting_tokens + len(opening))
        speech = None if choices.voice is None else self._speech(choices)
        omni.admit()
        if opening:
            context.queue_text(opening)
        self._turn_is_open, self._answered = True, True
        try:
            stream = ReplyStream(Plan(omni.thinker, context, omni.front_end.decoder(), choices.thinker, choices.seed, speech, began, self._end))
        except BaseException:
            omni.dismiss()
            raise
        omni.register(stream)
        return stream

    def _speech(self, choices: Any) -> Speech:
        omni, context, manifest = self._omni, self._context, self._omni.manifest
        history = np.concatenate([np.asarray(context.token_ids, np.int64), *(segment.token_ids for segment in context.waiting)])
        rows, limit = len(user_rows(history, manifest.ids)) + ASSISTANT_ROWS, int(manifest.constants["talker_context"])
        if rows >= limit:
            raise AntiphonError(f"The user's turns need {rows} rows of the Talker's context, which holds {limit}; shorten them or ask for text only.")
        hidden_size = int({spec.name: spec.shape for spec in omni.engines["talker"].entry.inputs}["hidden"][1])

        def make_prompt(first_token: int) -> TalkerPrompt:
            prompt_ids = list(context.token_ids)[: context.answer_row]
            return talker_prompt(prompt_ids, context.hidden_rows, hidden_size, context.media, manifest.ids, choices.voice, first_token, omni.front_end)

        return Speech(
            make_talker=lambda prompt, priority: Talker(
                omni.engines, manifest, omni.turns, prompt, choices.talker, choices.predictor, choices.seed, priority, omni.prefill_chunk
            ),
            make_prompt=make_prompt,
            make_vocoder=lambda priority: Vocoder(omni.engines["code2wav"], omni.turns, priority),
            end_id=manifest.id("tts_eos"),
            schedule=choices.schedule,
            max_frames=choices.max_frames,
        )

    def _enter(self) -> None:
        self._omni.check_open()
        with self._lock:
            if self._busy:
                raise AntiphonError("A reply of this conversation is in flight; finish or close it first.")
            self._busy = True

    def _leave(self) -> None:
        self._busy = False

    def _end(self) -> None:
        self._omni.dismiss()
        self._leave()


def _turn(audio: Any, image: Any, video: Any, text: str | None, sample_rate: int) -> list[dict[str, Any]]:
    """One user turn in the chat shape."""
    parts: list[dict[str, Any]] = []
    if audio is not None:
        parts.append({"type": "input_audio", "input_audio": {"data": audio, "sample_rate": sample_rate}})
    if image is not None:
        parts.append({"type": "image_url", "image_url": {"url": image}})
    if video is not None:
        parts.append({"type": "video_url", "video_url": {"url": video}})
    if text is not None:
        parts.append({"type": "text", "text": text})
    if not parts:
        raise AntiphonError("append needs messages, or at least one of audio, image, video and text.")
    return [{"role": "user", "content": parts}]
