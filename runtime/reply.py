"""One reply in flight: the source of its text, Talker with predictor, and Code2Wav as three workers,
joined by bounded queues.

A token goes to the caller and to the Talker as soon as it is known, a frame goes to Code2Wav as soon as it is
complete, and a packet goes to the caller as soon as it is decoded. A caller who does not read blocks the
workers behind full queues.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from .events import AudioDelta, Done, Event, FinishReason, TextDelta, Timings
from .scheduling.admission import Admission, Place
from .scheduling.channels import Cancelled, Channel, Control
from .scheduling.engine_lock import NORMAL, URGENT
from .scheduling.forks import check_process
from .scheduling.threads import here, start_thread
from .stages.aria import Frame, Policy, dual_track, speak, spoken_text
from .stages.talker import Talker
from .stages.text_source import TextSource
from .stages.vocoder import Vocoder, packets

SHORT_BUFFER = 0.5
"""Seconds of sound left to play. Below it, runs of the speech stages go before those of the text."""
MAX_TEXT_AHEAD, MAX_FRAMES_AHEAD, MAX_EVENTS_AHEAD = 1024, 32, 64
"""Bounds of the queues Thinker -> Talker, Talker -> Code2Wav and workers -> caller."""


def default_budget(text_tokens: int) -> int:
    """The most frames for `text_tokens` tokens: a guard against speech that never ends.

    3 to 4 frames a token are usual.
    """
    return min(4096, 40 * text_tokens + 50)


class TextDecoder(Protocol):
    """Ids to text, without splitting a character."""

    def push(self, token_id: int) -> str: ...

    def flush(self) -> str: ...


@dataclass(frozen=True)
class SpeechRequest:
    """How an answer is spoken.

    The workers call the two builders with the function that returns the priority of a run.
    """

    make_talker: Callable[[Callable[[], int]], Talker]
    make_vocoder: Callable[[Callable[[], int]], Vocoder]
    end_id: int
    """Text id that follows the last token (tts_eos)."""
    schedule: tuple[int, ...]
    max_frames: int | None = None
    """The most frames. None: `default_budget`."""
    policy: Policy = field(default_factory=dual_track)
    frames_per_token: float | None = None
    """Estimate that refines the text cursor while the answer lasts.

    None: the cursor is the text that the schedule has consumed.
    """
    record: SpeechRecord = field(default_factory=lambda: SpeechRecord())


@dataclass
class SpeechRecord:
    """The text and frames spoken so far. The workers fill it while the reply runs."""

    places: list[int] = field(default_factory=list)
    """Index in the answer of every token that the Talker got."""
    cursors: list[int] = field(default_factory=list)
    """Tokens that the schedule had consumed at each frame."""
    ended: bool = False
    """Whether the Talker ended by itself."""

    def heard_tokens(self, frames: int, frames_per_token: float | None) -> int:
        """The number of the answer's tokens up to the last one that was spoken within
        its first `frames` frames.
        """
        frames = min(frames, len(self.cursors))
        if frames == 0:
            return 0
        total_frames, total_text = (len(self.cursors), len(self.places)) if self.ended else (None, None)
        spoken = spoken_text(frames - 1, self.cursors[frames - 1], total_frames, total_text, frames_per_token)
        return self.places[spoken - 1] + 1 if spoken else 0


@dataclass(frozen=True)
class ReplyRequest:
    """Everything one reply needs, decided before it starts. `speech` None: text only."""

    text: TextSource
    decoder: TextDecoder
    speech: SpeechRequest | None
    began: float
    """When the reply was asked for, by time.perf_counter."""
    on_end: Callable[[], None]
    """Called once, after the last worker's work."""


class Workers:
    """The running part of a reply: an admission.RunningReply.

    It never refers to the caller's handle, so that a forgotten handle can stop it.
    Nothing runs before `start`.
    """

    def __init__(self, request: ReplyRequest) -> None:
        self._request, self._speech = request, request.speech
        self.control = Control()
        self.events: Channel[Event] = Channel(self.control, MAX_EVENTS_AHEAD)
        self._text: Channel[int] = Channel(self.control, MAX_TEXT_AHEAD)
        self._frames: Channel[Frame] = Channel(self.control, MAX_FRAMES_AHEAD)
        self._token_ids: list[int] = []
        self._pieces: list[str] = []
        self._codes: list[np.ndarray] = []
        self._text_reason: FinishReason = "stop"
        self._over_budget = False
        self._moments: dict[str, float] = {}
        self._samples, self._sample_rate, self._underruns, self._text_waits = 0, 0, 0, 0
        self._prefill_tokens = request.text.prompt_tokens
        self._step_seconds: list[float] = []
        self._talker_seconds = self._vocoder_seconds = 0.0
        self._speaking = self._speech is not None
        self._frames_at_text_end: int | None = None
        self.process = os.getpid()
        self.closed = False
        """Whether the caller gets no more events."""
        # the source of the text comes last: while a thread may still be refused, the
        # conversation is as it was
        jobs = ([self._voice, self._talk] if self._speech else []) + [self._think]
        self._left, self._not_begun = len(jobs), list(jobs)
        self._threads = [
            threading.Thread(
                target=self._work, args=(job,), name=f"antiphon-{job.__name__.strip('_')}", daemon=True
            )
            for job in jobs
        ]

    def start(self) -> None:
        """Start all workers.

        Whatever it raises, `abort` must follow. Raises AntiphonError when the system has no thread left.
        """
        for thread in self._threads:
            start_thread(thread, "a reply")

    def abort(self) -> bool:
        """End the workers that `start` has started.

        Returns whether the source of the text had begun; if not, the conversation is as it was.
        """
        self.control.stop()
        with self.control.lock:
            refused, self._not_begun = self._not_begun, []
        self._end(len(refused))
        self.close()
        return self._think not in refused

    def close(self) -> None:
        """Stop the workers and wait until they have ended, where this thread may wait (see threads)."""
        self.closed = True
        self.control.stop()
        self.join()

    @property
    def stopped(self) -> bool:
        """Whether the workers were told to stop."""
        return self.control.stopped

    def stop(self) -> None:
        """Tell the workers to stop, without waiting.

        May be called from a finaliser and from the handler of a signal.
        """
        self.control.stop()

    def join(self) -> None:
        """Wait until the workers have ended.

        A thread that must not wait (see threads), a worker for example, goes on at once.
        """
        for thread in self._threads:
            if not here.inside and thread.is_alive():
                thread.join()

    def _work(self, job: Callable[[], None]) -> None:
        here.inside = True
        with self.control.lock:
            if job not in self._not_begun:  # aborted meanwhile
                return
            self._not_begun.remove(job)
        try:
            self.control.check()
            job()
        except Cancelled:
            pass
        except BaseException as error:
            self.control.stop(error)
        self._end(1)

    def _end(self, workers: int) -> None:
        with self.control.lock:
            self._left -= workers
            is_last = self._left == 0 and workers > 0
        if is_last:
            self._request.on_end()
            try:
                self.events.put(self.done())
                self.events.close()
            except Cancelled:
                pass

    def done(self) -> Done:
        """The closing event with all that was made so far.

        Its reason is `cancelled` where the workers were stopped.
        """
        codes = np.stack(self._codes) if self._codes else np.zeros((0, 0), np.int64)
        reason: FinishReason = (
            "cancelled"
            if self.control.stopped
            else "frame_budget"
            if self._over_budget
            else self._text_reason
        )
        return Done(reason, "".join(self._pieces), tuple(self._token_ids), codes, self._timings())

    # Text

    def _think(self) -> None:
        request = self._request
        for token in request.text.tokens(self._before_thinking, self._step_seconds.append):
            self._mark("token")
            self._token_ids.append(token.id)
            self._emit_text(request.decoder.push(token.id), (token.id,))
            if token.is_last:
                self._text_reason = "length"
            if token.spoken and self._speech:
                self._speech.record.places.append(len(self._token_ids) - 1)
                self._text.put(token.id)
        if not self._token_ids or self._speech and not self._speech.record.places:
            self._text_reason = "empty"
        remaining = request.decoder.flush()
        if remaining:
            self._emit_text(remaining, ())
        self._text.close()

    def _emit_text(self, piece: str, token_ids: tuple[int, ...]) -> None:
        self._pieces.append(piece)
        self.events.put(TextDelta(piece, token_ids))

    def _before_thinking(self) -> int:
        """Wait while the first sound is being made and its workers have text;
        then return the priority of the next token's run.
        """
        is_awaited = self.control.when(
            lambda: (
                not self._speaking
                or "audio" in self._moments
                or self._text.starving
                and self._frames.starving
            ),
            lambda: self._speaking and "token" in self._moments and self._text.starving,
        )
        return self._urgency() if is_awaited else NORMAL

    # Talker and code predictor

    def _talk(self) -> None:
        assert self._speech is not None
        speech, talker = self._speech, self._speech.make_talker(self._urgency)

        def budget(text_tokens: int) -> int:
            if speech.max_frames is not None:
                return speech.max_frames
            # the schedule itself bounds what is spoken before the end of the text
            if self._frames_at_text_end is None:
                return len(self._codes) + 1
            # a slow schedule may have used the budget up before the last text is in,
            # which must be spoken, too
            return max(
                default_budget(text_tokens), self._frames_at_text_end + default_budget(0), talker.min_frames
            )

        for frame in speak(speech.policy, self, talker, speech.end_id, budget):
            self._mark("frame")
            self._codes.append(frame.codes)
            speech.record.cursors.append(frame.cursor)
            self._talker_seconds = talker.seconds
            self._frames.put(frame)
        self._over_budget = not talker.ended and bool(self._codes)
        speech.record.ended = talker.ended
        self._frames.close()
        self._text.abandon()

    def next(self) -> int | None:
        """See aria.TextRows."""
        token, waited = self._text.get()
        if token is None:
            self._frames_at_text_end = len(self._codes)
        self._text_waits += waited and bool(self._codes)
        return token

    # Code2Wav

    def _voice(self) -> None:
        assert self._speech is not None
        vocoder = self._speech.make_vocoder(self._urgency)
        self._sample_rate = vocoder.sample_rate
        for packet in packets(lambda: self._frames.get()[0], self._speech.schedule):
            samples = vocoder.decode(packet)
            self._vocoder_seconds = vocoder.seconds
            if not len(samples):
                continue
            self._underruns += "audio" in self._moments and self._buffered() < 0
            cursor = spoken_text(
                packet[-1].index, packet[-1].cursor, frames_per_token=self._speech.frames_per_token
            )
            self.events.put(AudioDelta(samples, packet[0].index, len(packet), cursor))
            self._samples += len(samples)
            self._mark("audio")
        if self._codes and not self._samples:
            raise AssertionError(
                f"{len(self._codes)} frames gave no sound: "
                "the stage code2wav claims a lead longer than the answer"
            )
        with self.control.lock:
            self._speaking = False
            self.control.changed()

    # Time

    def _mark(self, event: str) -> None:
        """Note when `event` happened first, and wake a Thinker that waits for the first sound."""
        if event not in self._moments:
            with self.control.lock:
                self._moments[event] = time.perf_counter()
                self.control.changed()

    def _buffered(self) -> float:
        """Seconds of sound that are left to a listener who has played since the first packet."""
        return self._samples / self._sample_rate - (time.perf_counter() - self._moments["audio"])

    def _urgency(self) -> int:
        """The priority of a speech stage's next run: URGENT while a listener waits for sound.

        Raises Cancelled after `stop`.
        """
        self.control.check()
        return URGENT if "audio" not in self._moments or self._buffered() < SHORT_BUFFER else NORMAL

    def _timings(self) -> Timings:
        def since(event: str) -> float | None:
            return self._moments[event] - self._request.began if event in self._moments else None

        frames, steps = len(self._codes), self._step_seconds
        return Timings(
            time_to_first_token=since("token"),
            time_to_first_frame=since("frame"),
            time_to_first_audio=since("audio"),
            prefill_tokens=self._prefill_tokens,
            seconds_per_token=sum(steps) / len(steps) if steps else None,
            seconds_per_frame=self._talker_seconds / (frames - 1) if frames > 1 else None,
            seconds_per_vocoder_frame=self._vocoder_seconds / frames if frames else None,
            total=time.perf_counter() - self._request.began,
            audio_seconds=self._samples / self._sample_rate if self._sample_rate else 0.0,
            underruns=self._underruns,
            text_waits=self._text_waits,
        )


class ReplyStream:
    """The caller's handle: an iterator of events that ends with Done.

    Closing or forgetting it stops the workers within one frame.

    `next` waits for the next event and raises what a worker raised. After `cancel`, from any thread, the next
    event is Done("cancelled"); after `close` there are no more events.
    """

    def __init__(self, workers: Workers) -> None:
        self._workers = workers

    def __iter__(self) -> ReplyStream:
        return self

    def __next__(self) -> Event:
        workers = self._workers
        check_process(workers.process, "This reply")
        if workers.closed:
            raise StopIteration
        try:
            event = workers.events.get()[0]
        except Cancelled:
            if workers.closed:  # by another thread meanwhile
                raise StopIteration from None
            workers.close()
            if workers.control.error is not None:
                raise workers.control.error from None
            return workers.done()
        assert event is not None
        if isinstance(event, Done):
            workers.close()
        return event

    def cancel(self) -> None:
        """Stop the workers without waiting for them.

        May be called from a finaliser and from the handler of a signal.
        """
        self._workers.stop()

    def close(self) -> None:
        """Stop the workers and wait until they have ended: at most one run of one engine.

        In a finaliser and in the handler of a signal that came in the midst of a call on
        this Omni it does not wait.
        """
        self._workers.close()

    def __enter__(self) -> ReplyStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_workers"):
            self.cancel()


def start_reply(
    admission: Admission, place: Place, make_request: Callable[[], ReplyRequest], undo: Callable[[], None]
) -> ReplyStream:
    """Wait for `place`, then make the request and start its workers.

    Whatever it raises, an interrupt too, the place is given back, and `undo` is called unless the
    source of the text had begun.
    """
    workers: Workers | None = None
    try:
        admission.take(place)
        workers = Workers(make_request())
        stream = ReplyStream(workers)
        admission.register(place, workers)
        workers.start()
        return stream
    except BaseException:
        if workers is None:
            admission.give_back(place)
        if workers is None or not workers.abort():
            undo()
        raise
