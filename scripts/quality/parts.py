"""The parts of an evaluation of one bundle; each adds its values to a `Found`."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.bundle.errors import AntiphonError
from ...runtime.events import Reply
from ...runtime.omni import Omni
from ...runtime.options import find_policy
from . import codec
from .cursor import Schedule, aligned_starts, cursor_errors, heard_starts, words_by_token
from .likeness import likeness, spectral_distance
from .listening import Listener, Tick, Utterance
from .normaliser import normalise
from .prompts import Prompt
from .recognisers import resampled
from .synthesisers import HELD_OUT_VOICE, RATE, Alignment, align, synthesise
from .values import (
    CURSOR_HIGH,
    CURSOR_MEDIAN,
    EMPTY,
    ENDLESS,
    GIVEN,
    LEAST_USED,
    LIVE,
    OWN,
    RESYNTHESIS,
    SPOKEN,
    SPOKEN_APART,
    SYNTHESISER,
    TYPED,
    Found,
    mean,
)
from .work import Work

TEXT_LIMIT, FRAME_LIMIT = 256, 600
"""Limits in tokens and frames (48 s).

An answer that reaches one has no end; the longest right answer is several times shorter.
"""
FRAMES_BEYOND = 3
"""A given text also has no end if it takes this many times the synthesiser's frames, plus 25."""
VOICE_SECONDS, VOICE_TEXTS = 6.0, 12
"""Length of the recording that is given as a voice, and the number of texts spoken with it."""
APART = 4
"""One in this many spoken prompts is also asked by the unheard voice."""
CURSOR_ANSWERS = 40
"""The number of own answers whose words Whisper times."""


@dataclass(frozen=True)
class Subject:
    """A loaded bundle and its prompts.

    `seed` is that of the first sampled run, `sampled` the number of runs.
    """

    omni: Omni
    bundle: Path
    prompts: Sequence[Prompt]
    sampled: int
    seed: int


class Evaluation:
    """Makes and measures the speech of one subject.

    `work` caches synthesised audio, `listener` transcripts.
    """

    def __init__(self, subject: Subject, work: Work, listener: Listener, tick: Tick) -> None:
        self.subject, self.omni, self.work, self.listener, self.tick, self.found = (
            subject,
            subject.omni,
            work,
            listener,
            tick,
            Found(),
        )
        self._sampled: list[Reply] = []

    @property
    def missing(self) -> dict[str, str]:
        """The parts that cannot be measured for this bundle, with the stage that is missing."""
        return {
            part: stage
            for part, stages in NEEDED.items()
            for stage in reversed(stages)
            if stage not in self.omni.engines
        }

    def run(self, parts: Sequence[str]) -> Found:
        """Measure those of `parts` that the bundle has stages for, in the order of PARTS."""
        for name, part in PARTS.items():
            if name in parts and name not in self.missing:
                part(self)
        return self.found

    # Synthesiser

    def spoken(self, text: str, voice: str = "joe") -> np.ndarray:
        """`text` spoken by a synthesiser, float32 at RATE."""
        return self.work.audio(f"{voice} 0 {text}", lambda: synthesise(text, voice))

    @cached_property
    def right(self) -> list[Utterance]:
        """The right answers, spoken by the synthesiser."""
        made = []
        for done, prompt in enumerate(self.subject.prompts):
            self.tick("synthesiser: speaking", done, len(self.subject.prompts))
            made.append(Utterance(prompt.kind, prompt.answer, self.spoken(prompt.answer)))
        return made

    def floor(self) -> None:
        """Measure the synthesiser's own speech: the floor that no bundle is expected to beat."""
        self.listener.listen(self.found, SYNTHESISER, self.right, RATE, self.tick)

    # Codec

    def codec(self) -> None:
        """Measure the synthesiser's speech after encoding and decoding by the bundle's codec."""
        made, codes = [], []
        for done, utterance in enumerate(self.right):
            self.tick(f"{RESYNTHESIS}: encoding", done, len(self.right))
            codes.append(codec.encode(self.omni, utterance.audio, RATE))
            made.append(Utterance(utterance.kind, utterance.text, codec.decode(self.omni, codes[-1])))
        entries = self.omni.manifest.constants.codebook_size
        used = [len(np.unique(book)) / entries for book in np.concatenate(codes).T]
        self.found.add(LEAST_USED, RESYNTHESIS, min(used), "%")
        self.found.add("entries used, mean of the codebooks", RESYNTHESIS, mean(used), "%")
        self.listener.listen(self.found, RESYNTHESIS, made, self.omni.sample_rate, self.tick)

    # Talker

    def speech(self) -> None:
        """Measure speech of the right answers, given to the Talker as text."""
        made, endless = [], 0
        for done, (prompt, right) in enumerate(zip(self.subject.prompts, self.right, strict=True)):
            self.tick(f"{GIVEN}: speaking", done, len(self.right))
            reply = self.omni.speak(
                prompt.answer,
                _typed(prompt),
                seed=self.subject.seed + done,
                max_frames=self._frames_beyond(right.audio),
            )
            endless += reply.finish_reason != "stop"
            made.append(Utterance(prompt.kind, prompt.answer, reply.audio))
        self.found.add(ENDLESS, GIVEN, endless, "runs")
        self.found.add(EMPTY, GIVEN, sum(not len(one.audio) for one in made), "runs")
        self._durations(GIVEN, made)
        self.listener.listen(self.found, GIVEN, made, self.omni.sample_rate, self.tick)

    def _frames_beyond(self, audio: np.ndarray) -> int:
        return FRAMES_BEYOND * int(len(audio) / RATE / self._frame_seconds) + 25

    def _durations(self, column: str, made: Sequence[Utterance]) -> None:
        """Add durations relative to the synthesiser's of the same text."""
        ratios = [
            len(one.audio) / self.omni.sample_rate / (len(self.spoken(one.text)) / RATE)
            for one in made
            if normalise(one.text)
        ]
        self.found.add(
            "duration by the synthesiser's, median", column, statistics.median(ratios) if ratios else None
        )
        self.found.add(
            "duration by the synthesiser's, 95th percentile",
            column,
            float(np.quantile(ratios, 0.95)) if ratios else None,
        )

    # Thinker and hearing

    def text(self) -> None:
        """Measure greedy text answers to typed prompts."""
        self._right(TYPED, [_typed(prompt) for prompt in self.subject.prompts], self.subject.prompts)

    def hearing(self) -> None:
        """Measure spoken prompts: all in the synthesiser's voice, some in a voice that no training heard."""
        self._asked_aloud(SPOKEN, "joe", self.subject.prompts)
        self._asked_aloud(SPOKEN_APART, HELD_OUT_VOICE, self.subject.prompts[::APART])

    def _asked_aloud(self, measure: str, voice: str, prompts: Sequence[Prompt]) -> None:
        asked = []
        for done, prompt in enumerate(prompts):
            self.tick(f"{measure}: asking", done, len(prompts))
            asked.append(_aloud(self.spoken(prompt.spoken, voice)))
        self._right(measure, asked, prompts)

    def _right(self, measure: str, asked: Sequence[list[dict[str, Any]]], prompts: Sequence[Prompt]) -> None:
        """Add the shares of answers with the right words, in total and by kind."""
        hits: dict[str, list[float]] = {}
        for done, (messages, prompt) in enumerate(zip(asked, prompts, strict=True)):
            self.tick(f"{measure}: answering", done, len(prompts))
            reply = self.omni.generate(
                messages, greedy=True, modalities=("text",), max_text_tokens=TEXT_LIMIT
            )
            for kind in ("", prompt.kind):
                hits.setdefault(kind, []).append(float(normalise(reply.text) == normalise(prompt.answer)))
        for kind, shares in sorted(hits.items()):
            self.found.add(measure, OWN, mean(shares), "%", kind)

    # Whole answers

    def _replies(self, count: int) -> list[Reply]:
        """The first `count` answers to typed prompts with the bundle's own sampling and increasing seeds."""
        for number in range(len(self._sampled), count):
            self.tick(f"{OWN}: sampled runs", number, count)
            messages = _typed(self.subject.prompts[number % len(self.subject.prompts)])
            self._sampled.append(
                self.omni.generate(
                    messages,
                    seed=self.subject.seed + number,
                    max_text_tokens=TEXT_LIMIT,
                    max_frames=FRAME_LIMIT,
                )
            )
        return self._sampled[:count]

    def sampled(self) -> None:
        """Measure whether sampled answers end, are understood, and say the text that the bundle wrote."""
        prompts = [
            self.subject.prompts[number % len(self.subject.prompts)] for number in range(self.subject.sampled)
        ]
        replies = list(zip(prompts, self._replies(self.subject.sampled), strict=True))
        self.found.add(
            "right, typed, sampled",
            OWN,
            mean([float(normalise(reply.text) == normalise(prompt.answer)) for prompt, reply in replies]),
            "%",
        )
        self.found.add(
            ENDLESS,
            OWN,
            sum(reply.finish_reason in ("length", "frame_budget") for _, reply in replies),
            "runs",
        )
        self.found.add(EMPTY, OWN, sum(not len(reply.audio) for _, reply in replies), "runs")
        made = [
            Utterance(prompt.kind, reply.text, reply.audio)
            for prompt, reply in replies
            if normalise(reply.text)
        ]
        self._durations(OWN, made)
        self.listener.listen(self.found, OWN, made, self.omni.sample_rate, self.tick)

    # Voices

    def voice(self) -> None:
        """Measure the likeness to a recorded voice that no training heard, with an upper and a lower
        bound."""
        texts = list(dict.fromkeys(prompt.answer for prompt in self.subject.prompts))
        sample, others = self._long(texts, HELD_OUT_VOICE), texts[::-1][:VOICE_TEXTS]
        other = np.concatenate([self.spoken(text, HELD_OUT_VOICE) for text in others])
        voice = self.omni.voice(sample, RATE)
        said: dict[bool, list[np.ndarray]] = {True: [], False: []}
        for done, text in enumerate(others):
            self.tick("unheard voice: speaking", done, len(others))
            limit = self._frames_beyond(self.spoken(text))
            for is_given, parts in said.items():
                options: dict[str, Any] = {"voice": voice} if is_given else {}
                parts.append(
                    self.omni.speak(
                        text,
                        _typed(self.subject.prompts[0]),
                        seed=self.subject.seed + done,
                        max_frames=limit,
                        **options,
                    ).audio
                )
        resynthesised = codec.decode(self.omni, codec.encode(self.omni, other, RATE))
        joe = np.concatenate([self.spoken(text) for text in others])
        rate = self.omni.sample_rate
        for column, given, own, at in (
            (SYNTHESISER, other, joe, RATE),
            (RESYNTHESIS, resynthesised, None, rate),
            (GIVEN, np.concatenate(said[True]), np.concatenate(said[False]), rate),
        ):
            for measure, audio in (
                ("that voice given as a recording", given),
                ("the default voice, for comparison", own),
            ):
                if audio is not None:
                    self.found.add(
                        f"likeness to an unheard voice: {measure}",
                        column,
                        likeness(sample, resampled(audio, at, RATE), RATE),
                    )
                    self.found.add(
                        f"spectral distance from an unheard voice: {measure}",
                        column,
                        spectral_distance(sample, resampled(audio, at, RATE), RATE),
                        "dB",
                    )

    def _long(self, texts: Sequence[str], voice: str) -> np.ndarray:
        """Speech of the first texts, at most `VOICE_SECONDS` long."""
        audio = np.zeros(0, np.float32)
        for text in texts:
            audio = np.concatenate([audio, self.spoken(text, voice)])
            if len(audio) >= VOICE_SECONDS * RATE:
                break
        return audio[: int(VOICE_SECONDS * RATE)]

    # Cursor

    @property
    def _frame_seconds(self) -> float:
        entry = self.omni.engines["code2wav"].entry
        return entry.constant("samples_per_frame") / entry.constant("sample_rate")

    def cursor(self) -> None:
        """Measure the cursor's errors: on the synthesiser's speech with its own durations, on own answers
        with Whisper's."""
        front_end = self.omni.front_end
        schedule = Schedule(
            find_policy(self.omni.manifest, None), self._frame_seconds, self.omni.model.frames_per_token
        )
        aligned = []
        for done, prompt in enumerate(self.subject.prompts):
            self.tick(f"{SYNTHESISER}: aligning", done, len(self.subject.prompts))
            known = self.work.value(f"align {prompt.answer}", lambda text=prompt.answer: asdict(align(text)))  # type: ignore[misc]
            alignment = Alignment(known["seconds"], known["sentences"])
            ids = front_end.encode_text(prompt.answer).tolist()
            frames = round(alignment.seconds / schedule.frame_seconds)
            aligned.append(
                (aligned_starts(alignment, prompt.answer), words_by_token(ids, front_end.decode), frames)
            )
        self._cursor_errors(SYNTHESISER, schedule, aligned)
        timed = []
        replies = self._replies(min(CURSOR_ANSWERS, self.subject.sampled))
        for done, reply in enumerate(replies):
            self.tick(f"{OWN}: timing words", done, len(replies))
            starts = (
                heard_starts(self.listener.words(reply.audio, self.omni.sample_rate), reply.text)
                if reply.finish_reason == "stop"
                else None
            )
            timed.append((starts, words_by_token(reply.token_ids, front_end.decode), len(reply.codes)))
        self._cursor_errors(OWN, schedule, timed)

    def _cursor_errors(
        self, column: str, schedule: Schedule, answers: Sequence[tuple[list[float] | None, list[int], int]]
    ) -> None:
        after: list[int] = []
        live: list[int] = []
        known = [(starts, words_at, frames) for starts, words_at, frames in answers if starts]
        for starts, words_at, frames in known:
            for total, errors in zip(
                (after, live), cursor_errors(schedule, starts, words_at, frames), strict=True
            ):
                total += errors
        for name, errors in (("", after), (LIVE, live)):
            self.found.add(
                f"{CURSOR_MEDIAN}{name}", column, float(np.median(errors)) if errors else None, "words"
            )
            self.found.add(
                f"{CURSOR_HIGH}{name}", column, float(np.quantile(errors, 0.95)) if errors else None, "words"
            )
        self.found.add(
            "answers whose words are timed", column, len(known) / len(answers) if answers else None, "%"
        )


PARTS = {
    "floor": Evaluation.floor,
    "codec": Evaluation.codec,
    "speech": Evaluation.speech,
    "text": Evaluation.text,
    "hearing": Evaluation.hearing,
    "sampled": Evaluation.sampled,
    "voice": Evaluation.voice,
    "cursor": Evaluation.cursor,
}
"""By the names of `--only`."""

NEEDED = {
    "codec": ("code2wav", "codec_encoder"),
    "speech": ("talker",),
    "hearing": ("audio_encoder",),
    "sampled": ("talker",),
    "voice": ("talker", "codec_encoder"),
    "cursor": ("talker",),
}
"""The stages that a part needs."""


def chosen_parts(names: str) -> list[str]:
    """The comma-separated part names in `names`; "" means all. Raises AntiphonError for an unknown name."""
    chosen = [name.strip() for name in names.split(",")] if names else list(PARTS)
    unknown = [name for name in chosen if name not in PARTS]
    if unknown:
        raise AntiphonError(
            f"--only names {unknown[0]!r}, expected some of {', '.join(PARTS)}, with commas between."
        )
    return chosen


def _typed(prompt: Prompt) -> list[dict[str, Any]]:
    return [{"role": "user", "content": prompt.typed}]


def _aloud(audio: np.ndarray) -> list[dict[str, Any]]:
    part = {"type": "input_audio", "input_audio": {"data": audio, "sample_rate": RATE}}
    return [{"role": "user", "content": [part]}]
