"""Open media as a file without a name."""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO, cast

from ...bundle.errors import AntiphonError
from ...bundle.said import short_path


class CannotOpen(AntiphonError):
    """A file that was removed after its path was checked, or that this user may not read."""


class NamelessFile(io.BufferedReader):
    """A file that hides its path. With a path, FFmpeg would resolve relative names in a container against it,
    and would guess formats from names.
    """

    @property
    def name(self) -> str:  # type: ignore[override]
        return ""


def open_media(source: Path | bytes) -> BinaryIO:
    """Open `source` for reading; the caller closes it. Raises AntiphonError for a file that cannot be
    opened.
    """
    if isinstance(source, bytes):
        return io.BytesIO(source)
    try:
        return cast(BinaryIO, NamelessFile(io.FileIO(source)))
    except OSError as error:
        raise CannotOpen(
            f"The file {short_path(source)} cannot be opened ({error.strerror}); make it readable."
        ) from None
