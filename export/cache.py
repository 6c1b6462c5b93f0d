"""The cache of built stages. The key of a stage is a hash of everything that determines it.

These are named parts: graph code, configuration, weights, precision, target, tools. An entry is a folder
`STAGE/KEY` with the stage's files and `entry.json`. A bundle gets copies, which share disk blocks with the
cache if the file system can. The copies and the content of entry.json are hashed again before use, so a
damaged entry is detected and built again. A cache that cannot be read or written does not make a build fail.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runtime.bundle.beside import folder_beside
from ..runtime.bundle.errors import AntiphonError
from ..runtime.bundle.files import FileHash, hash_file
from ..runtime.bundle.json_file import read_json_object
from ..runtime.bundle.typed_json import typed

ENTRY = "entry.json"
FICLONE = 0x40049409  # linux/fs.h: the destination shares the blocks of the source
COPY_BLOCK = 16 * 2**20


@dataclass(frozen=True)
class Lookup:
    """The result of a lookup. `reason` says why it hit or missed, as the end of a sentence."""

    hit: bool
    reason: str
    entry: dict[str, Any]
    """The stage entry stored with the files; empty on a miss."""


@dataclass(frozen=True)
class _Entry:
    """The content of entry.json."""

    parts: dict[str, str]
    files: dict[str, FileHash]
    stage: dict[str, Any]


def default_cache() -> Path:
    """The folder ANTIPHON_CACHE, else `antiphon` in the user's cache folder.

    Raises AntiphonError if the user has no home folder.
    """
    named, caches = os.environ.get("ANTIPHON_CACHE"), os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(named) if named else (Path(caches) if caches else Path.home() / ".cache") / "antiphon"
    except RuntimeError:
        raise AntiphonError(
            "No home folder is known for the cache of built stages; set ANTIPHON_CACHE to a folder, "
            "or build with --no-cache."
        ) from None


def stage_key(parts: dict[str, str]) -> str:
    """The key of a stage: the hash of its parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


class StageCache:
    """Built stages in `folder`. With `folder` None it stores nothing, and every lookup misses."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def fetch(self, stage: str, parts: dict[str, str], destination: Path) -> Lookup:
        """Copy the files of a stage that was built from exactly `parts` into the empty folder `destination`.

        A damaged entry is removed and counts as a miss.
        """
        if self.folder is None:
            return Lookup(False, "the cache is off", {})
        key = stage_key(parts)
        folder = self.folder / stage / key
        if not os.path.isdir(folder):
            return Lookup(False, self._difference(stage, parts), {})
        entry = self._read(stage, key)
        damaged = (
            ENTRY
            if entry is None
            else next(
                (
                    name
                    for name, known in entry.files.items()
                    if not _copy_whole(folder, destination, name, known)
                ),
                None,
            )
        )
        if entry is None or damaged is not None:
            shutil.rmtree(folder, ignore_errors=True)
            for file in destination.iterdir():
                file.unlink()
            return Lookup(False, f"the cached file {damaged} was damaged", {})
        return Lookup(True, "nothing that decides it has changed", entry.stage)

    def store(self, stage: str, parts: dict[str, str], source: Path, entry: dict[str, Any]) -> None:
        """Store the files in `source`. Does nothing if the cache cannot be written (disk full, read-only)."""
        if self.folder is None:
            return
        home = self.folder / stage / stage_key(parts)
        try:
            home.parent.mkdir(parents=True, exist_ok=True)
            # The folders of all killed builds are removed, because a build with the same key may never come
            # again.
            with folder_beside(home, sweep_all=True) as beside:
                files = {}
                for file in sorted(source.iterdir()):
                    _copy(file, beside / file.name)
                    files[file.name] = dataclasses.asdict(hash_file(file))
                content: dict[str, Any] = {"parts": parts, "files": files, "stage": entry}
                content["sha256"] = _digest(content)
                (beside / ENTRY).write_text(json.dumps(content, indent=2), encoding="utf-8")
                if not home.exists():
                    os.replace(beside, home)
        except OSError:
            pass

    def _read(self, stage: str, key: str) -> _Entry | None:
        """The content of entry.json; None if it is missing or damaged."""
        assert self.folder is not None
        try:
            path = self.folder / stage / key / ENTRY
            content = read_json_object(path)
            entry: _Entry = typed(_Entry, content, str(path))
        except AntiphonError:
            return None
        is_plain = all(
            name == os.path.basename(name) and name not in ("", ".", "..") and "\0" not in name
            for name in entry.files
        )
        return entry if is_plain and content.get("sha256") == _digest(content) else None

    def _difference(self, stage: str, parts: dict[str, str]) -> str:
        """A sentence's end with the parts that differ from the closest entry of this stage."""
        assert self.folder is not None
        try:
            keys = [name for name in os.listdir(self.folder / stage) if not name.startswith(".")]
        except FileNotFoundError:
            keys = []
        except OSError as error:
            return f"the cache cannot be read ({error.strerror})"
        entries = [entry for key in keys if (entry := self._read(stage, key)) is not None]
        if not entries:
            return "this stage was never built with this cache"
        differences = [
            sorted(name for name in {*parts, *entry.parts} if parts.get(name) != entry.parts.get(name))
            for entry in entries
        ]
        closest: list[str] = min(differences, key=lambda names: (len(list(names)), list(names)))
        return f"changed since the closest build: {', '.join(closest)}"


def _digest(entry: dict[str, Any]) -> str:
    """The SHA-256 of the content of entry.json without the digest itself."""
    content = {name: value for name, value in entry.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _copy_whole(source: Path, destination: Path, name: str, known: FileHash) -> bool:
    """Copy the file `name`; return whether it is undamaged. Raises OSError if the destination is full."""
    try:
        (source / name).open("rb").close()
    except OSError:
        return False
    _copy(source / name, destination / name)
    return hash_file(destination / name) == known


def _copy(source: Path, destination: Path) -> None:
    """Copy a file. On Btrfs and XFS source and copy share blocks until one of them changes.

    It is not a hard link: ONNX refuses external data with several links, and a change in a bundle would
    change the cache.
    """
    with source.open("rb") as origin, destination.open("wb") as copy:
        try:
            fcntl.ioctl(copy, FICLONE, origin.fileno())
        except OSError:
            shutil.copyfileobj(origin, copy, COPY_BLOCK)
