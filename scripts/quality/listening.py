"""One column of the quality table: recognisers, DNSMOS and timing over many utterances."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from . import sound
from .normaliser import Errors, normalise, word_errors
from .recognisers import Recogniser, Sphinx, Whisper, Word
from .values import WER, Found, mean
from .work import Work, digest

Tick = Callable[[str, int, int], None]
"""tick(what, done, total)."""


@dataclass(frozen=True)
class Utterance:
    """Speech that should say `text`: float32 [samples]; `kind` is its part of the domain."""

    kind: str
    text: str
    audio: np.ndarray


class Listener:
    """Recognisers and measures, loaded on first use. Results are cached per piece of audio."""

    def __init__(self, work: Work, threads: int = 1, mos_items: int = 40) -> None:
        """`mos_items`: the number of utterances per column that DNSMOS scores; it is slow."""
        self._work, self._threads, self._mos_items = work, threads, mos_items

    @cached_property
    def whisper(self) -> Whisper:
        """The recogniser that the gates use."""
        return Whisper(self._threads)

    @cached_property
    def recognisers(self) -> tuple[Recogniser, ...]:
        """All recognisers; the gates' recogniser is first."""
        return self.whisper, Sphinx()

    def heard(self, recogniser: Recogniser, audio: np.ndarray, rate: int) -> str:
        """The transcript of `audio`; empty for empty audio."""
        if not len(audio):
            return ""
        return str(
            self._work.value(f"{recogniser.procedure} {digest(audio)}", lambda: recogniser.hear(audio, rate))
        )

    def words(self, audio: np.ndarray, rate: int) -> list[Word]:
        """Whisper's words and their times."""
        if not len(audio):
            return []
        key = f"words {self.whisper.procedure} {digest(audio)}"
        return [
            Word(*word)
            for word in self._work.value(
                key, lambda: [[word.text, word.start, word.end] for word in self.whisper.words(audio, rate)]
            )
        ]

    def mos(self, audio: np.ndarray, rate: int) -> dict[str, float] | None:
        """See sound.mos."""
        found: dict[str, float] | None = self._work.value(
            f"mos {digest(audio)}", lambda: sound.mos(audio, rate)
        )
        return found

    def listen(
        self, found: Found, column: str, utterances: Sequence[Utterance], rate: int, tick: Tick
    ) -> None:
        """Add the measures of `utterances` at `rate` hertz to `found`."""
        for recogniser in self.recognisers:
            errors: dict[str, Errors] = {}
            for done, utterance in enumerate(utterances):
                tick(f"{column}: {recogniser.name}", done, len(utterances))
                missed = word_errors(utterance.text, self.heard(recogniser, utterance.audio, rate))
                for kind in ("", utterance.kind):
                    errors[kind] = errors.get(kind, Errors()) + missed
            for kind, sum_of_errors in sorted(errors.items()):
                found.add(WER.format(recogniser.name), column, sum_of_errors.rate, "%", kind)
        scores = []
        for done, utterance in enumerate(utterances[: self._mos_items]):
            tick(f"{column}: DNSMOS", done, min(len(utterances), self._mos_items))
            scores.append(self.mos(utterance.audio, rate))
        for name in ("overall", "signal", "background"):
            found.add(f"DNSMOS, {name}", column, mean([score[name] for score in scores if score]))
        _pace(found, column, utterances, rate)


def _pace(found: Found, column: str, utterances: Sequence[Utterance], rate: int) -> None:
    """Add speaking rate and pauses."""
    lasting = [(utterance, *sound.pauses(utterance.audio, rate)) for utterance in utterances]
    rates = [len(normalise(utterance.text).split()) / seconds for utterance, seconds, _ in lasting if seconds]
    silences = [pause for _, _, silent in lasting for pause in silent]
    voiced = sum(seconds for _, seconds, _ in lasting)
    found.add("words a second, median", column, statistics.median(rates) if rates else None)
    found.add("words a second, standard deviation", column, statistics.pstdev(rates) if rates else None)
    found.add("pause, median", column, statistics.median(silences) if silences else None, "s")
    found.add("share of time in pauses", column, sum(silences) / voiced if voiced else None, "%")
