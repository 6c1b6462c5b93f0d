"""Check the files of a bundle: all inside it, all complete, and each file that is read listed in the
manifest.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .errors import BrokenBundle
from .external_data import external_files
from .said import reason, short, short_path

MANIFEST_FILE = "manifest.json"
FRONT_END = ("frontend/frontend.json", "frontend/tokenizer.json", "frontend/chat_template.jinja")
"""Files that every bundle has."""
OPTIONAL = ("frontend/voices.npy",)
"""Files that are read if they exist."""
ONNX = ".onnx"
"""The suffix of an engine file that can refer to other files."""


@dataclass(frozen=True)
class FileHash:
    """Size in bytes and SHA-256 (hex) of one file of the bundle."""

    bytes: int
    sha256: str


def hash_file(path: Path) -> FileHash:
    """Size and SHA-256 of one file, read in pieces."""
    with path.open("rb") as file:
        return FileHash(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def hash_folder(folder: str | Path) -> dict[str, FileHash]:
    """The `hashes` of a manifest: every file under `folder` except the manifest, by relative path."""
    root = Path(folder)
    files: Iterable[Path] = sorted(
        path for path in root.rglob("*") if path.is_file() and path != root / MANIFEST_FILE
    )
    return {path.relative_to(root).as_posix(): hash_file(path) for path in files}


def check_files(folder: Path, hashes: Mapping[str, FileHash], engines: Iterable[str]) -> None:
    """Check that all files of the bundle at `folder` exist with their full size, and that the small ones are
    unchanged.

    `hashes`: those of the manifest. `engines`: the engine files of its stages. The front end and the engine
    files are hashed; weights are not, since they are large. Raises AntiphonError for the first file that
    leads out of the bundle, is missing, has another size, is damaged, or is read but not in `hashes`.
    """
    engines = tuple(engines)
    for name, expected in hashes.items():
        path = inside(folder, name)
        if not os.path.isfile(path):
            raise BrokenBundle(
                f"The bundle {short_path(folder)} lacks the file {name:.100}; "
                "copy the whole folder or build the bundle again."
            )
        if path.stat().st_size != expected.bytes:
            raise BrokenBundle(
                f"{short_path(path)} has {path.stat().st_size} bytes, expected {expected.bytes}; "
                "copy the bundle again."
            )
    small = {*FRONT_END, *(name for name in OPTIONAL if os.path.lexists(folder / name)), *engines}
    for name in sorted(small):
        check_file(folder, name, _listed(folder, name, hashes))
    for engine in sorted(name for name in set(engines) if name.endswith(ONNX)):
        for location in sorted(external_files(folder / engine)):
            _listed(folder, _beside(folder, engine, location), hashes)


def check_file(folder: Path, name: str, expected: FileHash) -> None:
    """Read the file `name` of the bundle. Raises AntiphonError if it does not match `expected`."""
    try:
        found = hash_file(folder / name)
    except OSError as error:
        raise BrokenBundle(
            f"{short_path(folder / name)} cannot be read ({error.strerror or reason(error)}); "
            "make it readable or copy the bundle again."
        ) from None
    if found != expected:
        raise BrokenBundle(
            f"{short_path(folder / name)} is damaged: its SHA-256 is not the one in the manifest; "
            "copy the bundle again."
        )


def inside(folder: Path, name: str) -> Path:
    """The path of the file `name` of the bundle. Raises AntiphonError for a name that leads out of it, also
    by a link.
    """
    is_plain = (
        name.isprintable()
        and "\\" not in name
        and name == PurePosixPath(name).as_posix()
        and not {"", ".", ".."} & {*name.split("/")}
    )
    if not is_plain:
        raise BrokenBundle(
            f"{short_path(folder / MANIFEST_FILE)} names the file {short(name)}, "
            "which is no path inside the bundle; build the bundle again."
        )
    root = os.path.realpath(folder)
    if os.path.commonpath([root, os.path.realpath(folder / name)]) != root:
        raise BrokenBundle(
            f"{short_path(folder / name)} is a link that leads out of the bundle; "
            "copy the bundle with the files its links lead to."
        )
    return folder / name


def _listed(folder: Path, name: str, hashes: Mapping[str, FileHash]) -> FileHash:
    if name not in hashes:
        inside(folder, name)
        raise BrokenBundle(
            f"The file {name:.100} is read and {short_path(folder / MANIFEST_FILE)} has no SHA-256 of it; "
            "build the bundle again."
        )
    return hashes[name]


def _beside(folder: Path, engine: str, location: str) -> str:
    """The name of external data of the file `engine`. Raises AntiphonError if it is not beside the engine."""
    if "/" in location or location in ("", ".", ".."):
        raise BrokenBundle(
            f"{short_path(folder / engine)} takes weights from {short(location)}, expected a file beside it; "
            "build the bundle again."
        )
    return (PurePosixPath(engine).parent / location).as_posix()
