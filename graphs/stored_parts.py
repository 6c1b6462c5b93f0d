"""Which parts of a model a checkpoint's weights hold, by the names of their tensors alone; a configuration may state more, or less."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..runtime.errors import AntiphonError
from ..runtime.json_file import parse_json_object, read_json_object

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
LARGEST_HEADER = 100 * 2**20
THINKER = "thinker."
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
        if (folder / INDEX_NAME).is_file():
            listed = read_json_object(folder / INDEX_NAME).get("weight_map")
            return tuple(listed) if isinstance(listed, dict) else ()
        with (folder / SINGLE_NAME).open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            return tuple(parse_json_object(file.read(length), SINGLE_NAME)) if length <= LARGEST_HEADER else ()
    except (OSError, AntiphonError):
        return ()
