"""The cache of built stages, addressed by everything that decides them.

A key is the hash of named parts (graph code, configuration, weights, precision, target, tools). An entry is a folder `STAGE/KEY` with the
stage's files and `entry.json`; a bundle gets copies, which share their blocks where the file system can. An entry is used only after its
files, and what entry.json says, were hashed again, so a damaged one is built anew.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runtime.bundle import FileHash, hash_file

ENTRY = "entry.json"
FICLONE = 0x40049409  # linux/fs.h: make the destination share the blocks of the source
COPY_BLOCK = 16 * 2**20


@dataclass(frozen=True)
class Lookup:
    """What the cache said. `reason` is a sentence's end for people: why it hit or missed."""

    hit: bool
    reason: str
    entry: dict[str, Any]
    """The stage entry stored with the files; empty on a miss."""


def default_cache() -> Path:
    """ANTIPHON_CACHE, else `antiphon` in the user's cache folder."""
    named, caches = os.environ.get("ANTIPHON_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(named) if named else (Path(caches) if caches else Path.home() / ".cache") / "antiphon"


def stage_key(parts: dict[str, str]) -> str:
    """The key of a stage: a hash of its parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


class StageCache:
    """Built stages under `folder`; `folder` None keeps nothing and always misses."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def fetch(self, stage: str, parts: dict[str, str], destination: Path) -> Lookup:
        """Put the files of a stage built from exactly `parts` into the empty folder `destination`, or say why not."""
        if self.folder is None:
            return Lookup(False, "the cache is off", {})
        key = stage_key(parts)
        folder = self.folder / stage / key
        if not folder.is_dir():
            return Lookup(False, self._difference(stage, parts), {})
        entry = self._read(stage, key)
        damaged = [ENTRY] if entry is None else [name for name, known in entry["files"].items() if not _is_whole(folder / name, known)]
        if entry is None or damaged:
            shutil.rmtree(folder, ignore_errors=True)
            return Lookup(False, f"the cached file {damaged[0]} was damaged", {})
        for name in entry["files"]:
            _copy(folder / name, destination / name)
        return Lookup(True, "nothing that decides it has changed", entry["stage"])

    def store(self, stage: str, parts: dict[str, str], source: Path, entry: dict[str, Any]) -> None:
        """Keep the files in `source`. A cache that cannot be written (no room, read-only) is no reason to fail a build."""
        if self.folder is None:
            return
        home = self.folder / stage / stage_key(parts)
        beside = home.parent / f".{home.name}.{uuid.uuid4().hex[:8]}"
        try:
            beside.mkdir(parents=True)
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
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def _read(self, stage: str, key: str) -> dict[str, Any] | None:
        """What entry.json says; None where it is missing or damaged."""
        assert self.folder is not None
        try:
            content = json.loads((self.folder / stage / key / ENTRY).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return content if isinstance(content, dict) and content.get("sha256") == _digest(content) else None

    def _difference(self, stage: str, parts: dict[str, str]) -> str:
        """Which parts differ from the closest entry of this stage."""
        assert self.folder is not None
        home = self.folder / stage
        keys = [path.name for path in home.iterdir() if not path.name.startswith(".")] if home.is_dir() else []
        entries = [entry for key in keys if (entry := self._read(stage, key)) is not None]
        if not entries:
            return "this stage was never built with this cache"
        differences = [sorted(name for name in {*parts, *entry["parts"]} if parts.get(name) != entry["parts"].get(name)) for entry in entries]
        closest: list[str] = min(differences, key=lambda names: (len(list(names)), list(names)))
        return f"changed since the closest build: {', '.join(closest)}"


def _digest(entry: dict[str, Any]) -> str:
    """SHA-256 of all that entry.json says but this digest itself."""
    content = {name: value for name, value in entry.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _is_whole(file: Path, known: dict[str, Any]) -> bool:
    try:
        return hash_file(file) == FileHash(**known)
    except OSError:
        return False


def _copy(source: Path, destination: Path) -> None:
    """Copy a file; on file systems that can (Btrfs, XFS) both share their blocks until one changes.

    Never a hard link: ONNX refuses external data with several names, and a change in a bundle would reach the cache.
    """
    with source.open("rb") as origin, destination.open("wb") as copy:
        try:
            fcntl.ioctl(copy, FICLONE, origin.fileno())
        except OSError:
            shutil.copyfileobj(origin, copy, COPY_BLOCK)
