"""Audio for the Thinker's training: the log power of the corpus' recordings, and variations of it."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr

from ...runtime.bundle.errors import AntiphonError
from ...runtime.frontend.audio.mel import MelSettings, log_power, normalise
from ..console import progress_bar
from ..quality.synthesisers import HELD_OUT_VOICE, RATE, SEEN_VARIANTS, synthesise
from .corpus import Corpus, Item, draws
from .domain import draw

SETTINGS = MelSettings()
LONGEST = 800
"""Mel frames of the longest recording used: one attention window."""
SILENCE = np.float32(-10.0)
"""Decimal logarithm of the power of silence."""
HELD_OUT = (("joe", 60), ("many", 24), ("new", 24))
"""Number of held-out spoken prompts by voice; "new" is a voice that no training hears."""


@dataclass(frozen=True)
class Clip:
    """A recording: its words, its answer if it is a prompt, and the position of its log power in memory."""

    text: str
    answer: str | None
    start: int
    frames: int


class Recordings:
    """All short recordings of a corpus as log power float16 [frames, mel], computed once and stored in the
    file `cache`."""

    def __init__(self, corpus: Corpus | Path, cache: Path) -> None:
        corpus = corpus if isinstance(corpus, Corpus) else Corpus(corpus)
        answers = prompt_answers(corpus.items)
        self.clips: list[Clip] = []
        numbers, frames = [], 0
        for number, item in enumerate(corpus.items):
            length = -(-item.samples * SETTINGS.sampling_rate // RATE) // SETTINGS.hop_length
            if length <= LONGEST:
                self.clips.append(Clip(item.text, answers.get(number), frames, length))
                numbers.append(number)
                frames += length
        if not cache.is_file():
            powers = np.zeros((frames, SETTINGS.feature_size), np.float16)
            with progress_bar() as report:
                for done, (number, clip) in enumerate(zip(numbers, self.clips, strict=True)):
                    powers[clip.start : clip.start + clip.frames] = recorded_power(corpus.audio(number))[
                        :, : clip.frames
                    ].T
                    report("log power", done + 1, len(numbers), None)
            np.save(cache.with_suffix(".part.npy"), powers)
            cache.with_suffix(".part.npy").rename(cache)
        self._powers = np.load(cache)
        if len(self._powers) != frames:
            raise AntiphonError(
                f"{cache} holds {len(self._powers):,} frames and the corpus {frames:,}; "
                "delete the file, it is made again."
            )

    def power(self, number: int) -> np.ndarray:
        """Log power float32 [mel, frames] of clip `number`."""
        clip = self.clips[number]
        return self._powers[clip.start : clip.start + clip.frames].T.astype(np.float32)


def prompt_answers(items: list[Item]) -> dict[int, str]:
    """The answers to the prompts in a corpus' `items`, by item number, from the same draws as
    corpus.texts."""
    choices = {voice: draws("prompt", voice) for voice in ("joe", "many")}
    answers: dict[int, str] = {}
    for number, item in enumerate(items):
        if item.role != "prompt":
            continue
        voice = "joe" if item.voice == "joe" else "many"
        choice = choices[voice]
        exchange = draw(choice, held_out=False)
        if voice == "many":
            choice.choice(SEEN_VARIANTS)
        choice.randrange(2**31)
        if exchange.spoken != item.text:
            raise AntiphonError(
                f"The corpus' prompt {number} is {item.text!r}, expected {exchange.spoken!r}; "
                "make the corpus again with this version."
            )
        answers[number] = exchange.answer
    return answers


def recorded_power(samples: np.ndarray, rate: int = RATE) -> np.ndarray:
    """Log power float32 [mel, frames] of float32 [samples] at `rate` Hz; its `normalise` equals
    frontend.mel.log_mel."""
    mono = (
        soxr.resample(samples, rate, SETTINGS.sampling_rate, quality="HQ")
        if rate != SETTINGS.sampling_rate
        else samples
    )
    return log_power(
        np.pad(mono.astype(np.float32), SETTINGS.n_fft // 2, mode="reflect"),
        SETTINGS,
        len(mono) // SETTINGS.hop_length,
    )


def augmented(power: np.ndarray, noise: np.random.Generator) -> np.ndarray:
    """Log-mel features float32 [mel, frames] of a variation of log `power`: speed, speaker, loudness, room,
    masked parts."""
    bands, frames = power.shape
    if noise.random() < 0.6:
        power = _resampled(power, 1, int(frames * noise.uniform(0.87, 1.15)))
    if noise.random() < 0.5:
        power = _warped(power, noise.uniform(0.9, 1.1))
    before, after = (
        (int(noise.integers(0, 45)), int(noise.integers(0, 30)))
        if noise.random() < 0.5
        else (int(noise.integers(0, 12)), 0)
    )
    power = np.pad(power, ((0, 0), (before, after)), constant_values=SILENCE)
    if noise.random() < 0.5:
        power = (
            power
            + np.linspace(noise.uniform(-0.6, 0.6), noise.uniform(-0.6, 0.6), bands, dtype=np.float32)[
                :, None
            ]
        )
    if noise.random() < 0.6:
        level = (
            power.max()
            - noise.uniform(3.0, 7.0)
            + np.linspace(noise.uniform(-1, 1), noise.uniform(-1, 1), bands, dtype=np.float32)[:, None]
        )
        power = np.maximum(
            power, level + np.log10(noise.standard_exponential(power.shape, np.float32) + np.float32(1e-6))
        )
    power = np.maximum(power + np.float32(noise.uniform(-2.0, 0.7)), SILENCE)
    sound = normalise(power, power.max())
    for _ in range(2):
        first, size = noise.integers(0, bands), noise.integers(0, 14)
        sound[first : first + size] = sound.min()
        first, size = noise.integers(0, sound.shape[1]), noise.integers(0, 9)
        sound[:, first : first + size] = sound.min()
    return np.ascontiguousarray(sound, np.float32)


def _resampled(power: np.ndarray, axis: int, size: int) -> np.ndarray:
    """`power` [mel, frames] with `size` entries along `axis`, by linear interpolation."""
    return _at(power, axis, np.linspace(0, power.shape[axis] - 1, size))


def _warped(power: np.ndarray, factor: float) -> np.ndarray:
    """`power` with its bands shifted as by a shorter or longer vocal tract."""
    return _at(power, 0, np.minimum(np.arange(len(power)) * factor, len(power) - 1))


def _at(power: np.ndarray, axis: int, places: np.ndarray) -> np.ndarray:
    low = np.minimum(places.astype(np.int64), power.shape[axis] - 2)
    share = (places - low).astype(np.float32)
    share = share[:, None] if axis == 0 else share
    return np.take(power, low, axis) * (1 - share) + np.take(power, low + 1, axis) * share


def held_out_recordings(cache: Path) -> list[tuple[str, str, np.ndarray]]:
    """Held-out spoken prompts: voice (of HELD_OUT), answer, log-mel features float32 [mel, frames].

    Made once and stored in the file `cache`.
    """
    exchanges = []
    choice = random.Random("held out, spoken")
    for name, count in HELD_OUT:
        exchanges += [
            (name, draw(choice, held_out=True), choice.randrange(2**31), choice.choice(SEEN_VARIANTS))
            for _ in range(count)
        ]
    spoken = [f"{name}: {exchange.spoken}" for name, exchange, _, _ in exchanges]
    if not cache.is_file():
        made = []
        with progress_bar() as report:
            for number, (name, exchange, seed, variant) in enumerate(exchanges):
                voice = {"joe": "joe", "many": variant, "new": HELD_OUT_VOICE}[name]
                made.append(recorded_power(synthesise(exchange.spoken, voice, seed)))
                report("held-out prompts", number + 1, len(exchanges), None)
        np.savez(cache.with_suffix(".part.npz"), *made, texts=np.array(spoken))
        cache.with_suffix(".part.npz").rename(cache)
    with np.load(cache) as stored:
        if "texts" not in stored or stored["texts"].tolist() != spoken:
            raise AntiphonError(
                f"{cache} holds other held-out prompts than this version draws; "
                "delete the file, it is made again."
            )
        powers = [stored[f"arr_{number}"] for number in range(len(spoken))]
    return [
        (name, exchange.answer, normalise(power, power.max()))
        for (name, exchange, _, _), power in zip(exchanges, powers, strict=True)
    ]


def plain(text: str) -> str:
    """`text` without characters that are not heard."""
    return re.sub(r"\s+", " ", re.sub(r"[^\w\s']", " ", text)).strip()
