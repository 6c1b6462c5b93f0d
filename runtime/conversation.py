"""One conversation: the Thinker's states go on from turn to turn; the Talker's prompt is made anew from all user turns."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .bundle.errors import Busy, ContextFull, InvalidInput
from .bundle.numeric import is_whole
from .bundle.said import article, short
from .bundle.talker_contract import TalkerContract
from .frontend.live_turn import LiveTurn
from .frontend.prompt.tools import parse_tools
from .options import ReplyOptions, ResolvedOptions, choose, read_options
from .reply import ReplyRequest, ReplyStream, SpeechRecord, SpeechRequest, Workers
from .scheduling.admission import Place
from .stages.talker import Talker
from .stages.talker_rows.joined_prompt import ASSISTANT_ROWS, talker_prompt, user_rows
from .stages.talker_rows.rows import InterleavedRows, SummedCodeRows, SummedRows, TalkerPrompt, TalkerRows
from .stages.talker_rows.sequence_prompt import SpeakingStyle, interleaved_prompt, prompt_rows
from .stages.vocoder import Vocoder
from .stages.voices import Voice

if TYPE_CHECKING:
    from .frontend.prompt.front_end import Prompt
    from .omni import Omni
    from .stages.thinker import Queued


class Conversation:
    """Made by `Omni.conversation`. `append` adds a user's turn and prefills it at once; `reply` answers as a stream of events.

    One reply at a time; replies of different conversations run side by side. A reply that was cut short stays in the history as far
    as its text was made.
    """

    def __init__(self, omni: Omni, system: str | None = None, voice: Any = None, style: str | None = None, tools: Any = None) -> None:
        self._tools = parse_tools(tools)
        self._omni, self._voice, self._style = omni, voice, style
        self._opening: list[Any] = [] if system is None else [{"role": "system", "content": system}]
        self._context = omni.thinker.new_context()
        self._lock = threading.Lock()
        self._holder: Place | None = None  # what the conversation is at: a call, or a reply until its workers have ended
        self._begun = False  # a first prompt was queued
        self._answered = True  # nothing was appended since the last answer
        self._turn_is_open = False  # the last answer's turn has no end in the context yet
        self._record: SpeechRecord | None = None  # of the last answer
        self._live: LiveTurn | None = None  # the turn that is being spoken
        self._live_difference = 0.0

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

        Either `messages` of the chat shape, or one user turn of audio, image, video and text, in this order; `sample_rate` in hertz is
        that of audio given as an array. With `more` the turn is still being spoken: `audio` is an array of what was heard since the last
        call, and the first call without `more`, with the last of the audio and perhaps text, ends the turn; the states are then those of one
        prefill of the whole (see `live_difference`). Raises AntiphonError for bad input, a full context, or while a reply is in flight. EngineLock
        that could not be prefilled are not in the history; sound of a turn that is being spoken is, and is prefilled with what follows.
        """
        call = Place()
        try:
            self._enter(call)
            if more or self._live is not None:
                if messages is not None or image is not None or video is not None:
                    raise InvalidInput("A turn is being spoken; give further audio, end it with an append without more, and then append the rest.")
                self._listen(audio, text, sample_rate, more)
                self._prefill()
            else:
                before = self._what_waits()
                try:
                    options = ReplyOptions(use_audio_in_video=use_audio_in_video, video_fps=video_fps)
                    self.queue(_turn(audio, image, video, text, sample_rate) if messages is None else messages, options, add_generation_prompt=False)
                    self._prefill()
                except BaseException:
                    self._forget_since(before)
                    raise
        finally:
            if self._holder is call:  # a statement without a call: an interrupt cannot come before it
                self._holder = None

    def _prefill(self) -> None:
        if self._context.waiting_tokens:
            self._omni.thinker.prefill(self._context, self._omni.check_open)

    @property
    def live_difference(self) -> float:
        """Of the last turn appended with `more`: the most that a log-mel feature differs from that of the finished recording, whose loudest
        sound was not known when it went in; 0.25 is a decade of power, and 0 where nothing louder followed the first 8 s."""
        return self._live_difference

    def reply(self, **options: Any) -> ReplyStream:
        """Answer what was appended: an iterator of TextDelta, AudioDelta and a final Done (see ReplyOptions for the options).

        Waits for a free stream if the bundle already serves `max_streams`. Raises AntiphonError before any work for bad options,
        nothing to answer, a full context, or while another reply of this conversation is in flight.
        """
        began = time.perf_counter()
        chosen = read_options(options)
        place = Place()
        try:
            self._enter(place)
            if self._live is not None:
                raise InvalidInput("A turn is being spoken; end it with an append without more before asking for a reply.")
            if self._answered:
                raise InvalidInput("There is nothing to answer; append a turn before asking for a reply.")
            return self.start(chosen, began, False, place)
        except BaseException:
            if self._holder is place and place.workers is None:
                self._holder = None
            raise

    def queue(self, messages: Sequence[Any], options: ReplyOptions, add_generation_prompt: bool) -> None:
        """Turn `messages` into tokens that wait for the next prefill; nothing changes when it raises."""
        front_end = self._omni.front_end
        media = {"use_audio_in_video": options.use_audio_in_video, "video_fps": options.video_fps, "tools": self._tools}
        if not self._begun:
            whole = [*self._opening, *messages] if self._opening and isinstance(messages, list | tuple) else messages
            prompt = front_end.prompt(whole, add_generation_prompt=add_generation_prompt, **media)
        else:
            prompt = front_end.continuation(messages, add_generation_prompt=add_generation_prompt, **media)
        self._queue(prompt)

    def _queue(self, prompt: Prompt) -> None:
        """Let `prompt` wait for the next prefill, after the end of the last answer's turn where that is still open."""
        context = self._context
        ending = self._omni.front_end.turn_end.tolist() if self._begun and self._turn_is_open else []
        self._omni.thinker.check_stages(prompt.calls)
        self._omni.thinker.check_room(context, context.waiting_tokens + len(context.unfed) + len(ending) + len(prompt.token_ids))
        if ending:
            context.end_answer(ending)
        context.queue_prompt(prompt)
        self._begun, self._turn_is_open, self._answered = True, False, False
        self._record = None  # too late to cut it

    def _listen(self, audio: Any, text: str | None, sample_rate: int, more: bool) -> None:
        """Further sound of the turn that is being spoken, which begins with the first and ends without `more`."""
        if audio is not None and not isinstance(audio, np.ndarray):
            raise InvalidInput(f"The audio of a turn that is being spoken is {article(type(audio).__name__)}, expected an array of samples; give files whole.")
        if more and (audio is None or text is not None):
            raise InvalidInput("An append with more takes audio alone; give text with the last of the audio, without more.")
        live = self._live
        if live is None:
            live = LiveTurn(self._omni.front_end, self._opening if not self._begun else [], not self._begun, sample_rate, self._tools)
        if sample_rate != live.sample_rate:
            raise InvalidInput(f"The sample rate changed from {live.sample_rate} to {sample_rate} within a turn; send all of it at one rate.")
        if not more:  # after the last of the sound it would be too late to refuse the text
            self._omni.thinker.check_room(self._context, self._context.waiting_tokens + len(live.closing(text).token_ids))
        pieces = [live.push(audio)] if audio is not None else []
        if self._live is None:
            self._queue(live.opening)
            self._live = live
        pieces += [] if more else live.finish(text)
        for piece in pieces:
            if len(piece.token_ids):
                self._queue(piece)
        self._live_difference = live.largest_difference
        if not more:
            self._live = None

    def start(self, options: ReplyOptions, began: float, with_generation_prompt: bool, place: Place) -> ReplyStream:
        """Start the workers when `place` is there; `with_generation_prompt`: the queued prompt already opens the answer.

        Whatever it raises, an interrupt too, the place is given back, and the conversation is as it was unless the Thinker had begun.
        """
        omni, context = self._omni, self._context
        choices = choose(options, omni.manifest, self._voice, self._style)
        opening = [] if with_generation_prompt else omni.front_end.answer_opening.tolist()
        omni.thinker.check_room(context, context.waiting_tokens + len(opening))
        voice = omni.voice(choices.voice) if choices.speaks or choices.voice is not None else None
        speech = self._speech(choices, voice) if choices.speaks and voice is not None else None
        before = self._what_waits()
        workers: Workers | None = None
        try:
            omni.places.take(place)
            if opening:
                context.queue_text(opening)
            self._turn_is_open, self._answered = True, True
            self._record = speech.record if speech else None
            on_end = partial(self._end, place)
            workers = Workers(ReplyRequest(omni.thinker, context, omni.front_end.decoder(), choices.thinker, choices.seed, speech, began, on_end))
            stream = ReplyStream(workers)
            omni.register(place, workers)
            workers.start()
            return stream
        except BaseException:
            if workers is None:
                omni.places.give_back(place)
            if workers is None or not workers.abort():
                self._forget_since(before)
            raise

    def _what_waits(self) -> tuple[Queued, bool, bool, bool, SpeechRecord | None]:
        return self._context.queued(), self._begun, self._turn_is_open, self._answered, self._record

    def _forget_since(self, before: tuple[Queued, bool, bool, bool, SpeechRecord | None]) -> None:
        """Back to what `_what_waits` returned; nothing may have been fed since."""
        queued, self._begun, self._turn_is_open, self._answered, self._record = before
        self._context.requeue(queued)

    def truncate(self, heard_samples: int) -> str:
        """Cut the last answer to what was heard: its first `heard_samples` samples. Returns the text that stays in the history.

        Call it after the reply was closed and before the next turn is appended; then that turn continues a conversation in which no more
        was said. How much text a sample stands for follows from the schedule's cursor, spread over the frames where the answer was
        complete. A reply that was stopped before its first word leaves nothing to cut. Raises AntiphonError when there is no spoken answer to
        cut, or `heard_samples` is no count.
        """
        call = Place()
        try:
            self._enter(call)
            if not is_whole(heard_samples) or heard_samples < 0:
                raise InvalidInput(f"heard_samples is {short(heard_samples)}, expected the number of samples that were heard, at least 0.")
            context = self._context
            if self._record is None:
                raise InvalidInput("There is no spoken answer to truncate; truncate after a reply with speech and before the next turn is appended.")
            if context.answer_start is None:
                return ""
            samples = self._omni.engines["code2wav"].entry.constant("samples_per_frame")
            kept = self._record.heard_tokens(-(-int(heard_samples) // samples), self._omni.frames_per_token)
            heard: str = self._omni.front_end.decode(context.answer_ids[:kept])
            context.cut_answer(kept)
            self._record = None
            return heard
        finally:
            if self._holder is call:
                self._holder = None

    def _speech(self, choices: ResolvedOptions, voice: Voice) -> SpeechRequest:
        omni, manifest = self._omni, self._omni.manifest
        contract = manifest.talker
        assert contract is not None
        rows = self._sequence_rows(choices, voice, contract) if contract.voice == "frames" else self._joined_rows(voice, contract)
        return SpeechRequest(
            make_talker=lambda priority: Talker(
                omni.engines, manifest, omni.engine_lock, rows, choices.policy, choices.talker, choices.predictor, choices.seed, priority, omni.prefill_chunk
            ),
            make_vocoder=lambda priority: Vocoder(omni.engines["code2wav"], omni.engine_lock, priority),
            end_id=manifest.id("tts_eos"),
            schedule=choices.schedule,
            max_frames=choices.max_frames,
            policy=choices.policy,
            frames_per_token=omni.frames_per_token,
        )

    def _check_talker_room(self, rows: int) -> None:
        limit = self._omni.manifest.constants.talker_context
        if rows >= limit:
            raise ContextFull(
                f"The user's turns, the voice and the style need {rows} rows of the Talker's context, which holds {limit}; shorten them or ask for text only."
            )

    def _joined_rows(self, voice: Voice, contract: TalkerContract) -> TalkerRows:
        """Rows after a prompt that a codec id is the voice of."""
        omni, context, manifest = self._omni, self._context, self._omni.manifest
        self._check_talker_room(len(user_rows(self._context.turn_ids(), manifest.ids)) + ASSISTANT_ROWS)
        codec_id, sizes = voice.codec_id, omni.input_sizes("talker")
        assert codec_id is not None

        def make_prompt(first_token: int) -> TalkerPrompt:
            prompt_ids = context.turn_ids(context.answer_row)
            return talker_prompt(
                prompt_ids, context.hidden_rows, sizes["hidden"], context.media, manifest.ids, codec_id, first_token, omni.front_end,
                sizes[contract.frame_input],
            )  # fmt: skip

        return SummedRows(make_prompt, manifest.id("tts_pad"))

    def _sequence_rows(self, choices: ResolvedOptions, voice: Voice, contract: TalkerContract) -> TalkerRows:
        """Rows after a prompt that frames are the voice of."""
        omni, context, manifest = self._omni, self._context, self._omni.manifest
        style = choices.style
        assert voice.codes is not None
        named = manifest.speech_prompts.styles.get(style.lower()) if style is not None else None
        in_words = omni.front_end.encode_text(style).tolist() if style is not None and named is None else []
        speaking = SpeakingStyle(voice.codes, voice.prompt_ids, in_words, named or (), choices.language)
        limit, hidden_size = contract.hidden_rows, omni.input_sizes("talker")["hidden"]
        self._check_talker_room(prompt_rows(context.turn_ids(), limit, manifest.ids, speaking))

        def make_prompt() -> TalkerPrompt:
            prompt_ids = context.turn_ids(context.answer_row)
            return interleaved_prompt(prompt_ids, context.hidden_rows, hidden_size, limit, manifest.ids, speaking)

        return SummedCodeRows(make_prompt, manifest.id("tts_pad")) if contract.layout == "summed" else InterleavedRows(make_prompt)

    def _enter(self, place: Place) -> None:
        """Let `place` hold the conversation. A reply that was closed or forgotten is waited for: its workers are about to end."""
        self._omni.check_open()
        holder = self._holder
        workers = None if holder is None else holder.workers
        if workers is not None and workers.control.stopped:
            workers.join()
        with self._lock:
            if self._holder is not None:
                raise Busy("A reply of this conversation is in flight; finish or close it first.")
            self._holder = place

    def _end(self, place: Place) -> None:
        self._omni.places.give_back(place)
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
