"""Files and folders that are written beside their place and take it when they are whole.

Who writes holds a lock on what is written, which the system releases when the process ends, however it ends. So what a dead process left can be told
from what a living one uses, also one in another container, and the next writer to the same place sweeps it. Where the file system has no locks, nothing
is swept.
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
"""What a file system, or a system, without exchange answers."""
OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST)
MOST_RACES = 100


@contextmanager
def folder_beside(target: Path, sweep_all: bool = False) -> Iterator[Path]:
    """A new folder beside `target`, removed when the block ends unless it has moved, with what `put_in_place` left there.

    What dead writers left of `target` is swept first; with `sweep_all` of everything in its folder, which must exist. Raises OSError.
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
    """A new, empty file beside `target`, and the descriptor that locks it, to be closed at the end. Sweeps and raises as `folder_beside` does."""
    sweep(target.parent, target.name)
    return _new(target, lambda path: path.open("xb").close())


def sweep(parent: Path, name: str | None = None) -> None:
    """Remove what dead writers left in `parent` beside `name` (None: beside anything), and put a folder back that one of them had set aside."""
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
    """The folder that stood at `target` until a writer that was killed set it aside; None where there is none."""
    return next((path for path, _, kind in _left(target.parent, target.name) if kind == OLD), None)


def put_in_place(folder: Path, target: Path) -> None:
    """Give `folder` the name `target`. A folder that had it is left under the old name of `folder`, or is gone.

    Both change names at once where the file system can exchange them. Elsewhere the older one is set aside first, and `sweep` puts it back should the
    process be killed before the new one has the name. Raises OSError.
    """
    for race in range(MOST_RACES):
        try:
            os.replace(folder, target)  # there is nothing, or an empty folder
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
            elif error.errno != errno.ENOENT or not folder.is_dir() or race == MOST_RACES - 1:  # else another writer took the target away in between
                raise
    raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))


def _step_aside(folder: Path, target: Path) -> bool:
    """Replace by two renames. False where another writer came in between."""
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
    """Make a path beside `target` and lock it; anew where a sweep took it for a dead writer's before it was locked."""
    while True:
        path = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.{BUILDING}"
        make(path)
        lock = _lock(path, fcntl.LOCK_SH)
        if lock is not None:
            return path, lock


def _left(parent: Path, name: str | None) -> list[tuple[Path, str, str]]:
    """(path, name it stands beside, BUILDING or OLD) of everything in `parent` that a writer made; links are nobody's."""
    pattern = re.compile(rf"\.({'.+' if name is None else re.escape(name)})\.[0-9a-f]{{8}}\.({BUILDING}|{OLD})", re.DOTALL)
    try:
        names = sorted(os.listdir(parent))
    except OSError:
        return []
    return [(parent / found[0], found[1], found[2]) for found in map(pattern.fullmatch, names) if found and not (parent / found[0]).is_symlink()]


def _lock(path: Path, kind: int) -> int | None:
    """A descriptor that holds a lock on `path`: shared by a writer, exclusive by a sweep; None where the other has it, or `path` is gone.

    A file system without locks gives a writer its descriptor all the same, and a sweep none.
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
    """Both paths take each other's name in one step. Raises OSError, one of NO_EXCHANGE where that cannot be."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if rename(HERE, os.fsencode(one), HERE, os.fsencode(other), EXCHANGE):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(other))
