"""Read open files and similar objects as bytes."""

from __future__ import annotations

from typing import Any

from ...bundle.errors import InvalidInput
from ...bundle.said import article, reason
from .media_policy import LOCAL, MediaPolicy


def is_file_object(source: Any) -> bool:
    """Whether `source` can be read: an open file, io.BytesIO or the body of an upload."""
    return callable(getattr(source, "read", None))


def read_file_object(file: Any, kind: str, policy: MediaPolicy = LOCAL) -> bytes:
    """All bytes of an open binary file.

    If the file can seek, it is read from its beginning: after writing, its position is at the end. At most
    one byte more than `policy` allows is read. Raises AntiphonError for text files, closed files, files whose
    read() is asynchronous, and more bytes than `policy` allows.
    """
    pieces: list[bytes] = []
    left = policy.max_data_bytes + 1
    try:
        if _can_seek(file):
            file.seek(0)
        # one read of a pipe or an upload may return only a part
        while left and (piece := _checked(file.read(left), file, kind)):
            pieces.append(piece)
            left -= len(piece)
    except (OSError, ValueError, TypeError) as error:
        raise InvalidInput(
            f"The {kind} is {article(type(file).__name__)} that cannot be read ({reason(error)}); "
            "give an open binary file."
        ) from None
    content = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    policy.check_data_bytes(len(content), kind, or_more=True)
    return content


def _checked(content: Any, file: Any, kind: str) -> bytes:
    if isinstance(content, bytes | bytearray | memoryview):
        return bytes(content)
    close = getattr(content, "close", None)  # closes a coroutine, which will not be awaited
    if callable(close) and hasattr(content, "send"):
        close()
    found = "text" if isinstance(content, str) else article(type(content).__name__)
    raise InvalidInput(
        f"The {kind} is {article(type(file).__name__)} whose read() gives {found}, expected bytes; "
        "open the file in binary mode."
    )


def _can_seek(file: Any) -> bool:
    seekable = getattr(file, "seekable", None)
    return bool(seekable()) if callable(seekable) else callable(getattr(file, "seek", None))
