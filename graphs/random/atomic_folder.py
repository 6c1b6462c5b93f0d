"""Writes checkpoint folders atomically: complete or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ...runtime.bundle.beside import folder_beside, put_in_place
from ...runtime.bundle.errors import AntiphonError


@contextmanager
def whole_checkpoint(target: Path, replace: bool = False) -> Iterator[Path]:
    """Yield a new folder beside `target`, which is renamed to `target` at the end of the block.

    The folder is removed if the block fails. Temporary folders of a killed process beside `target` are
    removed too. An empty `target` is replaced; a `target` with content only with `replace`. Raises
    AntiphonError if files cannot be written.
    """
    with ExitStack() as stack:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            beside = stack.enter_context(folder_beside(target))
        except OSError as error:
            raise AntiphonError(
                f"Cannot write to {target.parent} ({error.strerror}); give a folder that can be written."
            ) from None
        try:
            yield beside
            if replace:
                put_in_place(beside, target)
            else:
                os.replace(beside, target)  # replaces an empty folder
        except OSError as error:
            raise AntiphonError(
                f"Cannot write the checkpoint to {target} ({error.strerror}); "
                "free space there or give another folder."
            ) from None
