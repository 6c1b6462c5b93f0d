"""Read `frontend.json`, the constants of the front end, and check every value."""

# Checked by hand: these are ranges by section, sections that are null together, open tables of ids, and
# relations between fields. Of these, msgspec states the ranges only, and its errors do not tell the value;
# the types alone would be the smallest part.

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from ..bundle.errors import BrokenBundle, as_broken_bundle
from ..bundle.json_file import read_json_object
from ..bundle.said import short, short_path

SCHEMA = 1
REPAIR = "build the bundle again"
COUNTS: dict[str, dict[str, tuple[int, int]]] = {
    "positions.thinker": {"position_id_per_seconds": (1, 10**6), "spatial_merge_size": (1, 64)},
    "positions.talker": {"position_id_per_seconds": (1, 10**6), "spatial_merge_size": (1, 64)},
    "audio": {
        "sampling_rate": (1000, 768_000),
        "n_fft": (2, 2**16),
        "hop_length": (1, 2**16),
        "feature_size": (1, 4096),
        "n_window": (1, 10**5),
        "n_window_infer": (1, 10**6),
        "convolutions": (1, 8),
    },
    "vision": {"num_position_embeddings": (1, 2**24)},
    **dict.fromkeys(
        ("image", "video"),
        {
            "patch_size": (1, 512),
            "temporal_patch_size": (1, 64),
            "merge_size": (1, 64),
            "resample": (0, 5),
            "min_pixels": (1, 2**31),
            "max_pixels": (1, 2**31),
        },
    ),
}
"""The smallest and largest allowed value of every integer, by section."""
OPTIONAL = ("convolutions", "resample")
NO_ID = -1
"""The value for a token that the model does not have."""
SENSES = {"audio": ("audio",), "image": ("image", "video", "vision")}
"""The sections of each sense. If the model has no encoder for a sense, all its sections are null."""
UNHEARD = {
    "sampling_rate": 16_000,
    "n_fft": 400,
    "hop_length": 160,
    "feature_size": 128,
    "n_window": 50,
    "n_window_infer": 800,
}
_PICTURE = {
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
    "rescale_factor": 1 / 255,
    "resample": 3,
    "min_pixels": 1024,
    "max_pixels": 1024,
}
UNSEEN: dict[str, dict[str, Any]] = {
    "image": _PICTURE,
    "video": _PICTURE,
    "vision": {"num_position_embeddings": 1},
}
"""Placeholders for the sections of a sense that the model lacks. They are never used: media of that sense are
refused first.
"""
STAMP = re.compile(r"[^{}]{0,100}(\{seconds(:\.\d)?f?\}[^{}]{0,100})?")
"""A Python format string with short text and at most one field, `seconds`."""


def read_constants(path: Path) -> dict[str, Any]:
    """The content of `frontend.json`.

    Raises AntiphonError if the file is missing, has another schema version, or holds an invalid value.
    """
    if not path.exists():
        raise BrokenBundle(
            f"No front end at {short_path(path)}; give the frontend folder of a bundle, "
            "or build the bundle again."
        )
    with as_broken_bundle():
        constants = read_json_object(path, REPAIR)
    if constants.get("schema") != SCHEMA:
        raise BrokenBundle(
            f"{short_path(path)} is not of front-end schema {SCHEMA}; "
            "build the bundle again with this version of Antiphon."
        )
    absent = _absent(constants, path)
    for place, counts in COUNTS.items():
        if place in absent:
            continue
        section = _section(constants, place, path)
        for name, (least, most) in counts.items():
            if name in section or name not in OPTIONAL:
                value = section.get(name)
                _expect(
                    _is_count(value, least, most),
                    path,
                    f"{place}.{name}",
                    value,
                    f"an integer from {least} to {most}",
                )
    if "audio" not in absent:
        sound = constants["audio"]
        _expect(
            sound["hop_length"] <= sound["n_fft"],
            path,
            "audio.hop_length",
            sound["hop_length"],
            "at most n_fft",
        )
        window, heard = sound["n_window"], sound["n_window_infer"]
        _expect(
            heard >= 2 * window, path, "audio.n_window_infer", heard, f"at least one chunk of {2 * window}"
        )
    for name, index in _section(constants, "ids", path).items():
        _expect(_is_count(index, NO_ID, 2**31), path, f"ids.{name:.60}", index, "an id")
    for name, token in _section(constants, "special_tokens", path).items():
        _expect(isinstance(token, str), path, f"special_tokens.{name:.60}", token, "text")
    for name, value in _section(constants, "template_switches", path).items():
        _expect(isinstance(value, bool), path, f"template_switches.{name:.60}", value, "true or false")
    _section(constants, "generation", path)
    for place in {"image", "video"} - absent:
        _check_colours(constants[place], path, place)
    if constants.get("timestamps") is not None:
        stamps = _section(constants, "timestamps", path)
        layout: Any = stamps.get("format")
        seconds: Any = stamps.get("audio_seconds")
        _expect(
            isinstance(layout, str) and STAMP.fullmatch(layout) is not None,
            path,
            "timestamps.format",
            layout,
            "a format of seconds",
        )
        _expect(
            _is_number(seconds) and seconds >= 0,
            path,
            "timestamps.audio_seconds",
            seconds,
            "a number of at least 0",
        )
    return constants


def _absent(constants: dict[str, Any], path: Path) -> set[str]:
    """The sections of senses that the model lacks. Raises AntiphonError if only some sections of a sense are
    null.
    """
    absent: set[str] = set()
    for name, sections in SENSES.items():
        missing = [section for section in sections if constants.get(section) is None]
        _expect(
            len(missing) in (0, len(sections)),
            path,
            name,
            constants.get(name),
            "a section, or null with all of " + ", ".join(sections),
        )
        absent |= set(missing)
    return absent


def _section(constants: dict[str, Any], place: str, path: Path) -> dict[str, Any]:
    node: Any = constants
    for name in place.split("."):
        node = node.get(name) if isinstance(node, dict) else None
    if not isinstance(node, dict):
        raise BrokenBundle(f"{short_path(path)} lacks or misspells the section {place}; {REPAIR}.")
    return node


def _check_colours(section: dict[str, Any], path: Path, place: str) -> None:
    for name in ("image_mean", "image_std"):
        found = section.get(name)
        fits = (
            isinstance(found, list)
            and len(found) == 3
            and all(_is_number(value) and (name == "image_mean" or value > 0) for value in found)
        )
        _expect(
            fits,
            path,
            f"{place}.{name}",
            found,
            "three numbers" + (" above 0" if name == "image_std" else ""),
        )
    factor = section.get("rescale_factor", 1.0)
    _expect(_is_number(factor) and factor > 0, path, f"{place}.rescale_factor", factor, "a number above 0")
    _expect(
        section["min_pixels"] <= section["max_pixels"],
        path,
        f"{place}.min_pixels",
        section["min_pixels"],
        "at most max_pixels",
    )


def _is_count(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and abs(value) < 1e30
    )


def _expect(holds: bool, path: Path, place: str, found: object, expected: str) -> None:
    if not holds:
        raise BrokenBundle(f"{short_path(path)}: {place} is {short(found)}, expected {expected}; {REPAIR}.")
