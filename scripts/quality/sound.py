"""Measures of speech without its words: DNSMOS, pauses and duration."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .missing import needed
from .recognisers import RATE, resampled

MOS_SAMPLES = int(9.01 * RATE)
"""Input length of DNSMOS.

Shorter audio is repeated, longer audio is scored in steps of a second, as in its published script.
"""
QUIET = 0.02
"""Level of a pause, relative to the loudest 10 ms."""
SHORTEST_PAUSE = 0.12
"""In seconds. Shorter silences belong to consonants."""


def mos(audio: np.ndarray, rate: int) -> dict[str, float] | None:
    """DNSMOS (P.835) of float32 [samples] at `rate` hertz: overall, signal, background, each 1 to 5; None for
    empty audio.

    Raises AntiphonError if the package is missing.
    """
    sound = resampled(audio, rate)
    if not len(sound):
        return None
    sound = np.clip(np.tile(sound, -(-MOS_SAMPLES // len(sound))), -1, 1)
    session, package = _mos_session()
    scores = []
    for start in range(0, int(len(sound) / RATE - 9.01) * RATE + 1, RATE):
        raw = session.run(None, {"input_1": sound[None, start : start + MOS_SAMPLES].astype(np.float32)})[0][
            0
        ]
        scores.append(package.DNSMOS.get_polyfit_val(None, *raw, False))
    signal, background, overall = np.mean(scores, axis=0).tolist()
    return {"overall": overall, "signal": signal, "background": background}


@cache
def _mos_session() -> tuple[Any, Any]:
    """The network on one thread, and the package with its polynomials.

    The package's own runner uses every core and computes one more score.
    """
    from ...runtime.engines.onnxruntime.library import onnxruntime

    package = needed("speechmos.dnsmos")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    file = Path(package.__file__).parent / "dnsmos_models" / "sig_bak_ovr.onnx"
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"]), package


def pauses(audio: np.ndarray, rate: int) -> tuple[float, list[float]]:
    """(seconds from the first sound to the last, seconds of every pause between) of float32 [samples] at
    `rate` hertz.

    (0, []) for silence.
    """
    frame = rate // 100
    frames = audio[: len(audio) // frame * frame].reshape(-1, frame)
    power = np.sqrt(np.mean(np.square(frames, dtype=np.float64), axis=1)) if len(frames) else np.zeros(0)
    loud = np.flatnonzero(power > QUIET * power.max()) if power.any() else np.zeros(0, np.int64)
    if not len(loud):
        return 0.0, []
    gaps = (np.diff(loud) - 1) / 100
    return float(loud[-1] + 1 - loud[0]) / 100, gaps[gaps >= SHORTEST_PAUSE].tolist()
