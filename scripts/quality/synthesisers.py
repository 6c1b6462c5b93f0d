"""The voices that the tiny model is trained on and that measures are relative to: Piper and espeak-ng.

Piper's voice is neural (en_US-joe-medium, CC0); the variants of espeak-ng give variety. All audio is float32
[samples] at 24 kHz, with equal loudness and short silence at its ends.
"""

from __future__ import annotations

import io
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...runtime.bundle.errors import AntiphonError
from . import piper_voice
from .missing import needed

RATE = 24_000
LOUDNESS = 0.08
"""Root mean square of every utterance."""
LEAD_SECONDS, TAIL_SECONDS = 0.04, 0.16
"""Silence kept at the ends: short, so that speech starts at once, and long enough to hear its end."""
PAUSE = 0.15
"""Seconds between sentences of the neural voice."""
NOISE, NOISE_DURATION = 0.4, 0.3
"""Piper's sampling noise, below its defaults, because an even voice is easier to learn."""
SEEN_VARIANTS = tuple(
    f"{language}+{variant}"
    for language in ("en-us", "en-gb", "en-gb-x-rp")
    for variant in ("m1", "m3", "m5", "m7", "f1", "f2", "f3", "f5", "max", "klatt")
)
HELD_OUT_VOICE = "en-gb-scotland+f4"
"""An espeak-ng voice that no training hears, for `--voice sample.wav`."""


@dataclass(frozen=True)
class Alignment:
    """Times of a synthesiser's speech: `sentences` of groups (phonemes, start in seconds); a group is one or
    more words."""

    seconds: float
    sentences: tuple[tuple[tuple[str, float], ...], ...]


def synthesise(text: str, voice: str, seed: int = 0) -> np.ndarray:
    """`text` spoken by `voice`: "joe", "espeak", or the name of an espeak-ng voice.

    `seed` seeds joe's noise, and varies speed and pitch of the named voices. The same arguments give the same
    audio.
    """
    if voice == "joe":
        chunks = _joe(text, seed)
        return _finished(_joined(chunks), chunks[0].sample_rate)
    if voice == "espeak":
        return _finished(*_espeak(text, "en-us", 165, 50))
    noise = np.random.default_rng(seed)
    return _finished(*_espeak(text, voice, int(noise.integers(135, 190)), int(noise.integers(30, 75))))


def align(text: str, seed: int = 0) -> Alignment:
    """Times of the words of `text` in the audio of `synthesise` with "joe".

    Raises AntiphonError if a package is missing.
    """
    chunks = _joe(text, seed)
    rate = chunks[0].sample_rate
    start, stop = _edges(_joined(chunks), rate)
    sentences, before = [], -start
    for chunk in chunks:
        groups: list[list[Any]] = []
        begins = True
        for phoneme in chunk.phoneme_alignments or ():
            if phoneme.phoneme.isalpha() and begins:
                groups.append(["", before])
            begins = phoneme.phoneme in " ^" or begins and not phoneme.phoneme.isalpha()
            if phoneme.phoneme.isalpha():
                groups[-1][0] += phoneme.phoneme
            before += int(phoneme.num_samples)
        before += int(PAUSE * rate)
        sentences.append(tuple((phonemes, max(0.0, first / rate)) for phonemes, first in groups))
    return Alignment((stop - start) / rate, tuple(sentences))


def _joe(text: str, seed: int) -> list[Any]:
    """The sentences of `text` by the neural voice, with the durations of their phonemes."""
    voice = piper_voice.voice()
    voice.session.noise = np.random.default_rng(seed)
    return list(voice.synthesize(text, _manner(), include_alignments=True))


def _manner() -> Any:
    return needed("piper").SynthesisConfig(noise_scale=NOISE, noise_w_scale=NOISE_DURATION)


def _joined(chunks: list[Any]) -> np.ndarray:
    """The sentences, with a pause between them."""
    pause = np.zeros(int(PAUSE * chunks[0].sample_rate), np.float32)
    parts = [part for chunk in chunks for part in (chunk.audio_float_array, pause)]
    return np.concatenate(parts[:-1])


def _espeak(text: str, voice: str, speed: int, pitch: int) -> tuple[np.ndarray, int]:
    import soundfile

    program = shutil.which("espeak-ng")
    if program is None:
        raise AntiphonError(
            "The program espeak-ng is missing; install it (Debian: apt-get install espeak-ng)."
        )
    command = [program, "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", text]
    audio, rate = soundfile.read(
        io.BytesIO(subprocess.run(command, check=True, capture_output=True).stdout), dtype="float32"
    )
    return audio, rate


def _finished(audio: np.ndarray, rate: int) -> np.ndarray:
    """`audio` at 24 kHz, trimmed, with the common loudness."""
    import soxr

    audio = soxr.resample(audio, rate, RATE).astype(np.float32)
    start, stop = _edges(audio, RATE)
    audio = np.pad(audio, (0, max(0, stop - len(audio))))[start:stop]
    voiced = audio[np.abs(audio) > 0.005]
    audio = audio * (LOUDNESS / max(float(np.sqrt(np.mean(np.square(voiced)))), 1e-4))
    return np.clip(audio, -0.99, 0.99).astype(np.float32)


def _edges(audio: np.ndarray, rate: int) -> tuple[int, int]:
    """The first kept sample and the one after the last (which may lie beyond the end) when the ends of
    `audio` are trimmed."""
    frame = rate // 100
    power = np.sqrt(np.mean(np.square(audio[: len(audio) // frame * frame].reshape(-1, frame)), axis=1))
    loud = np.flatnonzero(power > 0.02 * power.max())
    return max(0, int(loud[0] * frame - LEAD_SECONDS * rate)), int(
        (loud[-1] + 1) * frame + TAIL_SECONDS * rate
    )
