"""Checks the constants of a checkpoint's preprocessor and generation files when a bundle is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..runtime.bundle.errors import AntiphonError

COUNTS = {
    "sampling_rate": (1_000, 2**20),
    "n_fft": (16, 2**16),
    "hop_length": (1, 2**16),
    "feature_size": (1, 2**12),
    "min_pixels": (1, 2**31 - 1),
    "max_pixels": (1, 2**31 - 1),
    "resample": (0, 5),
}
SAMPLING = {
    "temperature": (0, 1000),
    "top_k": (0, 2**31 - 1),
    "top_p": (0, 1),
    "repetition_penalty": (1e-3, 1000),
}
"""(smallest, largest) value of each sampling parameter."""
STAGES = ("", "talker_", "predictor_")


def check_processors(sections: dict[str, dict[str, Any]], path: Path) -> None:
    """Raise AntiphonError for the first invalid constant of feature extraction, read from `path`."""
    for section in sections.values():
        for name, (low, high) in COUNTS.items():
            if name in section and not (type(section[name]) is int and low <= section[name] <= high):
                raise _refusal(path, name, section[name], f"an integer in {low} .. {high}")
        for name, least in (("image_mean", -1e6), ("image_std", 1e-6)):
            if name in section and not (
                len(section[name]) == 3 and all(_is_number(value, least, 1e6) for value in section[name])
            ):
                raise _refusal(path, name, section[name], f"three numbers of at least {least:g}")
        if "rescale_factor" in section and not _is_number(section["rescale_factor"], 1e-9, 1e6):
            raise _refusal(path, "rescale_factor", section["rescale_factor"], "a number above 0")


def check_generation(generation: dict[str, Any], path: Path) -> None:
    """Raise AntiphonError for the first invalid sampling value in `generation`; null means the default."""
    for stage in STAGES:
        for name, (low, high) in SAMPLING.items():
            value = generation.get(stage + name)
            if value is not None and not (
                _is_number(value, low, high) and (name != "top_k" or value == int(value))
            ):
                kind = "an integer" if name == "top_k" else "a number"
                raise _refusal(path, stage + name, value, f"{kind} in {low} .. {high}")


def short(value: Any) -> str:
    """The `repr` of `value` in at most 60 characters."""
    return f"{value!r:.60}"


def _is_number(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _refusal(path: Path, name: str, value: Any, expected: str) -> AntiphonError:
    return AntiphonError(f"{path}: {name} is {short(value)}, expected {expected}; correct the file.")
