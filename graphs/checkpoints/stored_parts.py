"""Which parts of a model a checkpoint's weights hold, by the names of their tensors alone; a configuration may state more, or less."""

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
    """Whether the weights hold any tensor of the audio encoder, the vision encoder, the draft head (MTP), and of speech (Talker, predictor, Code2Wav).

    `known` is false where there are no weights to look at; then everything counts as there.
    """

    known: bool = False
    audio: bool = True
    vision: bool = True
    draft: bool = True
    speech: bool = True


def stored_parts(folder: Path, rename: dict[str, str]) -> StoredParts:
    """The parts in the weights of the checkpoint `folder`, whose names are read through `rename` (see `canonical_name`).

    Unknown where `folder` has no weights, or weights whose list of tensors cannot be read: opening the checkpoint says what is wrong.
    """
    names = _names(folder)
    if not names:
        return StoredParts()
    found = tuple(canonical_name(name, rename) for name in names)
    return StoredParts(known=True, **{part: any(name.startswith(prefixes) for name in found) for part, prefixes in PREFIXES.items()})


def canonical_name(name: str, rename: dict[str, str]) -> str:
    """The name that tensor `name` has in a whole omni checkpoint; `rename`: prefix found to prefix meant, the first that fits counts."""
    for found, meant in rename.items():
        if name.startswith(found):
            return meant + name[len(found) :]
    return name


def _names(folder: Path) -> tuple[str, ...]:
    try:
        return tuple(find_tensors(folder).shards)
    except AntiphonError:
        return ()
