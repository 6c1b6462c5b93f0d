"""Write files and folders beside their target, and move them there when they are complete.

A writer holds a lock on what it writes, and the system releases the lock when the process ends for any
reason. So the files of a dead process can be distinguished from those of a living one, even one in another
container. The next writer to the same target removes them. On a file system without locks, nothing is
removed.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

BUILDING, OLD = "building", "old"
EXCHANGE, HERE = 2, -100
"""RENAME_EXCHANGE of linux/fs.h and AT_FDCWD of fcntl.h."""
NO_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
"""Error codes of a system or file system that cannot exchange two names."""
OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST)
MOST_RACES = 100


@contextmanager
def folder_beside(target: Path, sweep_all: bool = False) -> Iterator[Path]:
    """Yield a new folder beside `target`. When the block ends, the folder of that name is removed: the new
    folder, or the older one that `put_in_place` left there.

    The files that dead writers of `target` left are removed first; with `sweep_all`, also those of other
    targets in the same parent folder, which must exist. Raises OSError.
    """
    sweep(target.parent, None if sweep_all else target.name)
    folder, lock = _new(target, lambda path: path.mkdir())
    try:
        yield folder
    finally:
        try:
            shutil.rmtree(folder, ignore_errors=True)
        finally:  # a second Ctrl-C may have come in between
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def file_beside(target: Path) -> tuple[Path, int]:
    """A new, empty file beside `target`, and the descriptor that holds its lock. The caller closes the
    descriptor.

    Removes files of dead writers and raises as `folder_beside` does.
    """
    sweep(target.parent, target.name)
    return _new(target, lambda path: path.open("xb").close())


def sweep(parent: Path, name: str | None = None) -> None:
    """Remove the files that dead writers of `name` (None: of any name) left in `parent`. If one of them had
    set a folder aside, move it back.
    """
    for path, of, kind in _left(parent, name):
        lock = _lock(path, fcntl.LOCK_EX)
        if lock is None:
            continue
        try:
            if kind == OLD and not os.path.lexists(parent / of):
                with suppress(OSError):  # another sweep was faster
                    os.rename(path, parent / of)
            elif path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        finally:
            os.close(lock)


def set_aside(target: Path) -> Path | None:
    """The folder that a killed writer moved away from `target`; None if there is none."""
    return next((path for path, _, kind in _left(target.parent, target.name) if kind == OLD), None)


def put_in_place(folder: Path, target: Path) -> None:
    """Rename `folder` to `target`. An existing folder at `target` gets the old name of `folder`, or is
    deleted.

    Where the file system can exchange names, both change at once. Elsewhere the old folder is set aside
    first; if the process is killed before the new folder has its name, `sweep` moves the old one back. Raises
    OSError.
    """
    for race in range(MOST_RACES):
        try:
            os.replace(folder, target)  # the target is missing or an empty folder
            return
        except OSError as error:
            if error.errno not in OCCUPIED:
                raise
        try:
            _exchange(folder, target)
            return
        except OSError as error:
            if error.errno in NO_EXCHANGE:
                if _step_aside(folder, target):
                    return
            # ENOENT: another writer moved the target away in between
            elif error.errno != errno.ENOENT or not folder.is_dir() or race == MOST_RACES - 1:
                raise
    raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))


def _step_aside(folder: Path, target: Path) -> bool:
    """Replace `target` with two renames. Returns False if another writer came in between."""
    old = folder.with_suffix(f".{OLD}")
    lock = _lock(target, fcntl.LOCK_SH)
    if lock is None:
        return False
    try:
        os.replace(target, old)
        os.replace(folder, target)
        return True
    except OSError as error:
        if error.errno not in (*OCCUPIED, errno.ENOENT) or not folder.is_dir():
            raise
        return False
    finally:
        if not os.path.lexists(target):
            with suppress(OSError):
                os.replace(old, target)
        try:
            shutil.rmtree(old, ignore_errors=True)
        finally:  # Ctrl-C may have come in between
            shutil.rmtree(old, ignore_errors=True)
            os.close(lock)


def _new(target: Path, make: Callable[[Path], None]) -> tuple[Path, int]:
    """Make a path beside `target` and lock it. Repeats if a sweep removed the path before it was locked."""
    while True:
        path = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.{BUILDING}"
        make(path)
        lock = _lock(path, fcntl.LOCK_SH)
        if lock is not None:
            return path, lock


def _left(parent: Path, name: str | None) -> list[tuple[Path, str, str]]:
    """(path, name of its target, BUILDING or OLD) of everything in `parent` that a writer made, except
    links.
    """
    pattern = re.compile(
        rf"\.({'.+' if name is None else re.escape(name)})\.[0-9a-f]{{8}}\.({BUILDING}|{OLD})", re.DOTALL
    )
    try:
        names = sorted(os.listdir(parent))
    except OSError:
        return []
    return [
        (parent / found[0], found[1], found[2])
        for found in map(pattern.fullmatch, names)
        if found and not (parent / found[0]).is_symlink()
    ]


def _lock(path: Path, kind: int) -> int | None:
    """A descriptor that holds a lock on `path`: shared for a writer, exclusive for a sweep.

    None if the other kind is held or `path` is gone. On a file system without locks, a writer gets its
    descriptor and a sweep gets None.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        is_held = True
    except BlockingIOError:
        is_held = False
    except OSError:
        is_held = kind == fcntl.LOCK_SH
    with suppress(OSError):
        if is_held and os.path.samestat(os.stat(path), os.fstat(descriptor)):
            return descriptor
    os.close(descriptor)
    return None


def _exchange(one: Path, other: Path) -> None:
    """Exchange the names of two paths in one step. Raises OSError, with a code of NO_EXCHANGE if that is not
    possible.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if rename(HERE, os.fsencode(one), HERE, os.fsencode(other), EXCHANGE):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(other))
