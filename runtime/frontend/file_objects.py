"""Open files and their like as bytes."""

from __future__ import annotations

from typing import Any

from ..errors import AntiphonError
from ..said import article, reason


def is_file_object(source: Any) -> bool:
    """Whether `source` can be read: an open file, io.BytesIO, the body of an upload."""
    return callable(getattr(source, "read", None))


def read_file_object(file: Any, kind: str, most: int | None = None) -> bytes:
    """All bytes of an open binary file, from its beginning where it can be wound back: who just wrote it left it at its end.

    `most`: at most so many bytes are read. Raises AntiphonError for files of text, for closed ones and for what cannot be read at once.
    """
    try:
        if _can_seek(file):
            file.seek(0)
        content = file.read() if most is None else file.read(most)
    except (OSError, ValueError, TypeError) as error:
        raise AntiphonError(f"The {kind} is {article(type(file).__name__)} that cannot be read ({reason(error)}); give an open binary file.") from None
    if not isinstance(content, bytes | bytearray | memoryview):
        close = getattr(content, "close", None)  # of a coroutine that will not be awaited
        if callable(close) and hasattr(content, "send"):
            close()
        found = "text" if isinstance(content, str) else article(type(content).__name__)
        raise AntiphonError(f"The {kind} is {article(type(file).__name__)} whose read() gives {found}, expected bytes; open the file in binary mode.")
    return bytes(content)


def _can_seek(file: Any) -> bool:
    seekable = getattr(file, "seekable", None)
    return bool(seekable()) if callable(seekable) else callable(getattr(file, "seek", None))
