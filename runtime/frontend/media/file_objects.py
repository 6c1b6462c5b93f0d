"""Open files and their like as bytes."""

from __future__ import annotations

from typing import Any

from ...bundle.errors import InvalidInput
from ...bundle.said import article, reason
from .media_policy import LOCAL, MediaPolicy


def is_file_object(source: Any) -> bool:
    """Whether `source` can be read: an open file, io.BytesIO, the body of an upload."""
    return callable(getattr(source, "read", None))


def read_file_object(file: Any, kind: str, policy: MediaPolicy = LOCAL) -> bytes:
    """All bytes of an open binary file, from its beginning where it can be wound back: who just wrote it left it at its end.

    Raises AntiphonError for files of text, for closed ones, for what cannot be read at once, and for more bytes than `policy` allows of data; no more
    than one byte beyond them is read.
    """
    pieces: list[bytes] = []
    left = policy.max_data_bytes + 1
    try:
        if _can_seek(file):
            file.seek(0)
        while left and (piece := _checked(file.read(left), file, kind)):  # a pipe gives what it has, an upload a piece of it
            pieces.append(piece)
            left -= len(piece)
    except (OSError, ValueError, TypeError) as error:
        raise InvalidInput(f"The {kind} is {article(type(file).__name__)} that cannot be read ({reason(error)}); give an open binary file.") from None
    content = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    policy.check_data_bytes(len(content), kind, or_more=True)
    return content


def _checked(content: Any, file: Any, kind: str) -> bytes:
    if isinstance(content, bytes | bytearray | memoryview):
        return bytes(content)
    close = getattr(content, "close", None)  # of a coroutine that will not be awaited
    if callable(close) and hasattr(content, "send"):
        close()
    found = "text" if isinstance(content, str) else article(type(content).__name__)
    raise InvalidInput(f"The {kind} is {article(type(file).__name__)} whose read() gives {found}, expected bytes; open the file in binary mode.")


def _can_seek(file: Any) -> bool:
    seekable = getattr(file, "seekable", None)
    return bool(seekable()) if callable(seekable) else callable(getattr(file, "seek", None))
