"""Folders that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ...runtime.bundle.beside import folder_beside, put_in_place
from ...runtime.bundle.errors import AntiphonError


@contextmanager
def whole_checkpoint(target: Path, replace: bool = False) -> Iterator[Path]:
    """A new folder beside `target` to write a checkpoint into, which takes its name when the block ends, and is gone when it fails.

    What a killed process left beside `target` goes, too.

    An empty `target` gives way; one that holds anything does with `replace` only. Raises AntiphonError where files cannot be written.
    """
    with ExitStack() as stack:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            beside = stack.enter_context(folder_beside(target))
        except OSError as error:
            raise AntiphonError(f"Cannot write to {target.parent} ({error.strerror}); give a folder that can be written.") from None
        try:
            yield beside
            if replace:
                put_in_place(beside, target)
            else:
                os.replace(beside, target)  # an empty folder gives way
        except OSError as error:
            raise AntiphonError(f"Cannot write the checkpoint to {target} ({error.strerror}); free space there or give another folder.") from None
