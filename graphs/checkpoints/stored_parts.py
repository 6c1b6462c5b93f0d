"""The parts of a model in a checkpoint's weights, by tensor names. Its configuration can state others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...runtime.bundle.errors import AntiphonError
from .safetensors_folder import find_tensors

PREFIXES = {
    "audio": ("thinker.audio_tower.",),
    "vision": ("thinker.visual.",),
    "draft": ("thinker.mtp.", "mtp."),
    "speech": ("talker.", "code2wav."),
}


@dataclass(frozen=True)
class StoredParts:
    """Whether the weights have any tensor of each part; speech is Talker, predictor and Code2Wav, draft is
    MTP.

    `known` is false if there are no weights; then every part counts as present.
    """

    known: bool = False
    audio: bool = True
    vision: bool = True
    draft: bool = True
    speech: bool = True


def stored_parts(folder: Path, rename: dict[str, str]) -> StoredParts:
    """The parts in the weights of the checkpoint `folder`; `rename` is that of `canonical_name`.

    The parts are unknown if `folder` has no weights or its list of tensors cannot be read. Opening the
    checkpoint reports such errors.
    """
    names = _names(folder)
    if not names:
        return StoredParts()
    found = tuple(canonical_name(name, rename) for name in names)
    return StoredParts(
        known=True,
        **{part: any(name.startswith(prefixes) for name in found) for part, prefixes in PREFIXES.items()},
    )


def canonical_name(name: str, rename: dict[str, str]) -> str:
    """The name of tensor `name` in a whole omni checkpoint.

    `rename` maps a prefix of `name` to its replacement; the first prefix that matches is used.
    """
    for found, meant in rename.items():
        if name.startswith(found):
            return meant + name[len(found) :]
    return name


def _names(folder: Path) -> tuple[str, ...]:
    try:
        return tuple(find_tensors(folder).shards)
    except AntiphonError:
        return ()
