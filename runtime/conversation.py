"""One conversation.

The Thinker's states are kept from turn to turn; the Talker's prompt is made anew for each
answer from all user turns.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from .bundle.errors import InvalidInput
from .bundle.numeric import is_whole
from .bundle.said import article, short
from .conversation_status import ANSWERED, IS_SPOKEN, MOVES, Move, Status, after, check
from .frontend.live_turn import LiveTurn
from .frontend.prompt.front_end import Prompt
from .frontend.prompt.tools import parse_tools
from .history import HistoryMessage, summary
from .model import LoadedModel
from .options import ReplyOptions, ResolvedOptions, choose, read_options
from .reply import ReplyRequest, ReplyStream, SpeechRecord, start_reply
from .scheduling.admission import Admission, Place
from .speech_request import speech_request
from .stages.text_source import GivenText, TextSource, ThinkerText
from .stages.thinker import Queued, ThinkerContext


@dataclass(frozen=True)
class _State:
    """All of a conversation that its Thinker's context does not hold.

    A move replaces it in one assignment, which an interrupt cannot split.
    """

    status: Status = Status.NEW
    messages: tuple[HistoryMessage, ...] = ()
    """All turns but an answer that is the last one."""
    record: SpeechRecord | None = None
    """Of the last answer, while it is SPOKEN."""
    live: LiveTurn | None = None
    """The turn that is being spoken, while LISTENING."""


class Conversation:
    """Made by `Omni.conversation`.

    `append` adds a user's turn and prefills it at once; `reply` answers as a stream of events.

    One reply at a time; replies of different conversations run side by side. A reply that was cut short stays
    in the history as far as its text was made.
    """

    def __init__(
        self,
        model: LoadedModel,
        admission: Admission,
        system: str | None = None,
        voice: Any = None,
        style: str | None = None,
        tools: Any = None,
    ) -> None:
        """`voice` (a Voice) and `style` are the defaults of its replies.

        Raises AntiphonError for invalid tools.
        """
        self._tools = parse_tools(tools)
        self._model, self._admission, self._voice, self._style = model, admission, voice, style
        self._opening: list[Any] = [] if system is None else [{"role": "system", "content": system}]
        self._context = model.thinker.new_context()
        self._lock = threading.Lock()
        self._holder: Place | None = None  # the call that runs, or the reply whose workers run
        self._state = _State()
        self._live_difference = 0.0

    @property
    def status(self) -> Status:
        """What may happen next: see conversation_status."""
        return self._state.status if self._holder is None else Status.BUSY

    @property
    def history(self) -> tuple[HistoryMessage, ...]:
        """All turns so far, the system prompt first.

        An answer that is being written is there as far as its text was made, one that was
        truncated as far as it was heard.
        """
        state = self._state
        if state.status not in ANSWERED:
            return state.messages
        return (
            *state.messages,
            HistoryMessage("assistant", self._model.front_end.decode(self._context.answer_ids)),
        )

    @property
    def token_ids(self) -> tuple[int, ...]:
        """Ids of all tokens that the Thinker has read: prompts, answers and the ends of turns."""
        return tuple(self._context.token_ids)

    @property
    def answer_ids(self) -> tuple[int, ...]:
        """Ids of the last answer; empty before it and after the next turn was appended."""
        return tuple(self._context.answer_ids)

    @property
    def context(self) -> ThinkerContext:
        """The Thinker's side of the conversation, for measurements: to be read, not changed."""
        return self._context

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
        more: bool = False,
    ) -> None:
        """Add turns and prefill them before the call returns, so that a later reply starts at once.

        Either `messages` of the chat shape, or one user turn of audio, image, video and text, in this order;
        `sample_rate` in hertz is that of audio given as an array. With `more` the turn is still being spoken:
        `audio` is an array of what was heard since the last call, and the first call without `more`, with the
        last of the audio and perhaps text, ends the turn; the states are then those of one prefill of the
        whole (see `live_difference`). Raises AntiphonError for bad input, a full context, or while a reply is
        in flight. Turns that could not be prefilled are not in the history; sound of a turn that is being
        spoken is, and is prefilled with what follows.
        """
        call = Place()
        try:
            options = ReplyOptions(use_audio_in_video=use_audio_in_video, video_fps=video_fps)
            self._enter(call, Move.APPEND)
            if more or self._state.status is Status.LISTENING:
                if messages is not None or image is not None or video is not None:
                    raise InvalidInput(IS_SPOKEN)
                self._listen(audio, text, sample_rate, more)
                self._prefill()
            else:
                before = self._what_waits()
                try:
                    self.queue(
                        _turn(audio, image, video, text, sample_rate) if messages is None else messages,
                        options,
                        add_generation_prompt=False,
                    )
                    self._prefill()
                except BaseException:
                    self._forget_since(before)
                    raise
        finally:
            if self._holder is call:  # a statement without a call: an interrupt cannot come before it
                self._holder = None

    def _prefill(self) -> None:
        if self._context.waiting_tokens:
            self._model.thinker.prefill(self._context, self._admission.check_open)

    @property
    def live_difference(self) -> float:
        """The largest difference between a log-mel feature of the last turn that was appended with `more` and
        that of the finished recording, whose loudest sound was not known then. 0.25 is a decade of power; 0
        where nothing louder followed the first 8 s.
        """
        return self._live_difference

    def reply(self, **options: Any) -> ReplyStream:
        """Answer what was appended: an iterator of TextDelta,
        AudioDelta and a final Done (see ReplyOptions for the options).

        Waits for a free stream if the bundle already serves `max_streams`. Raises AntiphonError before any
        work for bad options, nothing to answer, a full context, or while another reply of this
        conversation is in flight.
        """
        began = time.perf_counter()
        chosen = read_options(options)
        place = Place()
        try:
            self._enter(place, Move.WRITE)
            check(self._state.status, Move.WRITE)
            return self._start(chosen, began, place, self._model.front_end.answer_opening.tolist())
        except BaseException:
            if self._holder is place and place.running is None:
                self._holder = None
            raise

    def answer(
        self, messages: Sequence[Any], options: ReplyOptions, began: float, place: Place
    ) -> ReplyStream:
        """Append `messages` and answer them, both with one prefill, on `place`:
        the reply of a conversation of one turn.
        """
        self.queue(messages, options, add_generation_prompt=True)
        return self._start(options, began, place)

    def recite(
        self,
        token_ids: Sequence[int],
        messages: Sequence[Any] | None,
        options: ReplyOptions,
        began: float,
        place: Place,
    ) -> ReplyStream:
        """Speak the text `token_ids` as the answer to `messages` (None: to nothing) on `place`.

        The conversation ends with it (see GivenText).
        """
        if messages is not None:
            self.queue(messages, options, add_generation_prompt=True)
        return self._start(options, began, place, given=token_ids)

    def queue(self, messages: Sequence[Any], options: ReplyOptions, add_generation_prompt: bool) -> None:
        """Turn `messages` into tokens that wait for the next prefill. Nothing changes when it raises."""
        front_end, state = self._model.front_end, self._state
        target = after(state.status, Move.APPEND)
        media = {
            "use_audio_in_video": options.use_audio_in_video,
            "video_fps": options.video_fps,
            "tools": self._tools,
        }
        if state.status is Status.NEW:
            # else the front end says what is wrong
            if self._opening and isinstance(messages, Sequence) and not isinstance(messages, str | bytes):
                messages = [*self._opening, *messages]
            prompt = front_end.prompt(messages, add_generation_prompt=add_generation_prompt, **media)
        else:
            prompt = front_end.continuation(messages, add_generation_prompt=add_generation_prompt, **media)
        said = (*self.history, *summary(messages))
        self._queue(prompt)
        self._state = _State(target, said)

    def _queue(self, prompt: Prompt) -> None:
        """Let `prompt` wait for the next prefill, after the end of the last answer's turn
        where that is still open.
        """
        model, context = self._model, self._context
        ending = model.front_end.turn_end.tolist() if self._state.status in ANSWERED else []
        model.thinker.check_stages(prompt.calls)
        pending = 0 if context.pending_id is None else 1
        model.thinker.check_room(
            context, context.waiting_tokens + pending + len(ending) + len(prompt.token_ids)
        )
        if ending:
            context.end_answer(ending)
        context.queue_prompt(prompt)

    def _listen(self, audio: Any, text: str | None, sample_rate: int, more: bool) -> None:
        """Further sound of the turn that is being spoken.

        The first sound begins it, and sound without `more` ends it.
        """
        if audio is not None and not isinstance(audio, np.ndarray):
            raise InvalidInput(
                f"The audio of a turn that is being spoken is {article(type(audio).__name__)}, "
                "expected an array of samples; give files whole."
            )
        if more and (audio is None or text is not None):
            raise InvalidInput(
                "An append with more takes audio alone; give text with the last of the audio, without more."
            )
        target = after(self._state.status, Move.LISTEN if more else Move.END_TURN)
        model, is_new = self._model, self._state.status is Status.NEW
        live = self._state.live or LiveTurn(
            model.front_end, self._opening if is_new else [], is_new, sample_rate, self._tools
        )
        if sample_rate != live.sample_rate:
            raise InvalidInput(
                f"The sample rate changed from {live.sample_rate} to {sample_rate} within a turn; "
                "send all of it at one rate."
            )
        if not more:  # after the last of the sound it would be too late to refuse the text
            model.thinker.check_room(
                self._context, self._context.waiting_tokens + len(live.closing(text).token_ids)
            )
        pieces = [live.push(audio)] if audio is not None else []
        if self._state.live is None:
            said = (
                *self.history,
                *summary(self._opening if is_new else []),
                HistoryMessage("user", "", ("audio",)),
            )
            self._queue(live.opening)
            self._state = _State(Status.LISTENING, said, live=live)
        pieces += [] if more else live.finish(text)
        for piece in pieces:
            if len(piece.token_ids):
                self._queue(piece)
        self._live_difference = live.largest_difference
        if not more:
            *earlier, last = self._state.messages
            self._state = _State(target, (*earlier, replace(last, text=text or "")))

    def _start(
        self,
        options: ReplyOptions,
        began: float,
        place: Place,
        opening: Sequence[int] = (),
        given: Sequence[int] | None = None,
    ) -> ReplyStream:
        """Start the workers on `place`.

        `opening`: ids that open the answer, where the queued prompt does not; `given`: ids of a given text.

        Whatever it raises, an interrupt too, the place is given back, and the conversation is as it was
        unless the Thinker had begun.
        """
        model, context = self._model, self._context
        choices = choose(options, model.manifest, self._voice, self._style)
        model.thinker.check_room(context, context.waiting_tokens + len(opening))
        voice = model.voice(choices.voice) if choices.speaks or choices.voice is not None else None
        length = None if given is None else len(given)
        speech = (
            speech_request(model, context, choices, voice, length)
            if choices.speaks and voice is not None
            else None
        )
        before = self._what_waits()

        def make_request() -> ReplyRequest:
            if opening:
                context.queue_text(opening)
            move, record = (Move.SPEAK, speech.record) if speech is not None else (Move.WRITE, None)
            self._state = _State(MOVES[move].target, self._state.messages, record)
            return ReplyRequest(
                self._source(choices, given),
                model.front_end.decoder(),
                speech,
                began,
                partial(self._end, place),
            )

        return start_reply(self._admission, place, make_request, partial(self._forget_since, before))

    def _source(self, choices: ResolvedOptions, given: Sequence[int] | None) -> TextSource:
        thinker = self._model.thinker
        return (
            ThinkerText(thinker, self._context, choices.thinker, choices.seed)
            if given is None
            else GivenText(thinker, self._context, given)
        )

    def _what_waits(self) -> tuple[Queued, _State]:
        return self._context.queued(), self._state

    def _forget_since(self, before: tuple[Queued, _State]) -> None:
        """Restore what `_what_waits` returned. Nothing may have been prefilled since."""
        queued, self._state = before
        self._context.requeue(queued)

    def truncate(self, heard_samples: int) -> str:
        """Cut the last answer to what was heard: its first `heard_samples` samples.

        Returns the text that stays in the history.

        Call it after the reply was closed and before the next turn is appended; then that turn continues a
        conversation in which no more was said. How much text a sample stands for follows from the schedule's
        cursor, spread over the frames where the answer was complete. A reply that was stopped before its
        first word leaves nothing to cut. Raises AntiphonError when there is no spoken answer to cut, or
        `heard_samples` is no count.
        """
        call = Place()
        try:
            self._enter(call, Move.TRUNCATE)
            if not is_whole(heard_samples) or heard_samples < 0:
                raise InvalidInput(
                    f"heard_samples is {short(heard_samples)}, "
                    "expected the number of samples that were heard, at least 0."
                )
            state, context, model = self._state, self._context, self._model
            target = after(state.status, Move.TRUNCATE)
            if context.answer_start is None:
                return ""
            assert state.record is not None, "an answer with speech has a record"
            kept = state.record.heard_tokens(
                -(-int(heard_samples) // model.samples_per_frame), model.frames_per_token
            )
            heard: str = model.front_end.decode(context.answer_ids[:kept])
            context.cut_answer(kept)
            self._state = _State(target, state.messages)
            return heard
        finally:
            if self._holder is call:
                self._holder = None

    def _enter(self, place: Place, move: Move) -> None:
        """Let `place` hold the conversation for `move`.

        It waits for a reply that was closed or forgotten, whose workers are about to end.
        """
        self._admission.check_open()
        holder = self._holder
        running = None if holder is None else holder.running
        if running is not None and running.stopped:
            running.join()
        with self._lock:
            if self._holder is not None:
                check(Status.BUSY, move)
            self._holder = place

    def _end(self, place: Place) -> None:
        self._admission.give_back(place)
        if self._holder is place:
            self._holder = None


def _turn(audio: Any, image: Any, video: Any, text: str | None, sample_rate: int) -> list[dict[str, Any]]:
    """One user turn in the chat shape."""
    parts: list[dict[str, Any]] = []
    if audio is not None:
        rate = {"sample_rate": sample_rate} if isinstance(audio, np.ndarray) else {}  # all else knows its own
        parts.append({"type": "input_audio", "input_audio": {"data": audio, **rate}})
    if image is not None:
        parts.append({"type": "image_url", "image_url": {"url": image}})
    if video is not None:
        parts.append({"type": "video_url", "video_url": {"url": video}})
    if text is not None:
        parts.append({"type": "text", "text": text})
    if not parts:
        raise InvalidInput("append needs messages, or at least one of audio, image, video and text.")
    return [{"role": "user", "content": parts}]
