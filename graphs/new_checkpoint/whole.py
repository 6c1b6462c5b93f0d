"""Folders that are there whole or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...runtime.errors import AntiphonError


@contextmanager
def whole_checkpoint(target: Path, replace: bool = False) -> Iterator[Path]:
    """A new folder beside `target` to write a checkpoint into, which takes its name when the block ends, and is gone when it fails.

    An empty `target` gives way; one that holds anything does with `replace` only. Raises AntiphonError where files cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}"
        beside.mkdir()
    except OSError as error:
        raise AntiphonError(f"Cannot write to {target.parent} ({error.strerror}); give a folder that can be written.") from None
    try:
        yield beside
        if target.exists():
            if replace:
                shutil.rmtree(target)
            else:
                target.rmdir()
        os.replace(beside, target)
    except OSError as error:
        raise AntiphonError(f"Cannot write the checkpoint to {target} ({error.strerror}); free space there or give another folder.") from None
    finally:
        # Gone after the rename; still there only when something failed.
        shutil.rmtree(beside, ignore_errors=True)
