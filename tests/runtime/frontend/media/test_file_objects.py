from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import pytest

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.frontend.media.file_objects import is_file_object, read_file_object
from antiphon.runtime.frontend.media.media_policy import MediaPolicy
from antiphon.runtime.frontend.media.media_source import resolve_source

DATA = bytes(range(256)) * 40


class OneWay:
    """The body of an upload, which cannot be wound back."""

    def __init__(self) -> None:
        self._left = DATA[10:]

    def read(self, most: int = -1) -> bytes:
        piece, self._left = self._left[:1000], self._left[1000:]  # fewer than asked for, as a pipe gives them
        return piece


class Later:
    """A file of asyncio."""

    async def read(self, most: int = -1) -> bytes:
        return DATA


def test_an_open_file_is_read_from_its_beginning_as_often_as_asked(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(DATA)
    at_its_end, spooled = io.BytesIO(), tempfile.SpooledTemporaryFile()
    with open(tmp_path / "a", "rb") as opened, spooled:
        at_its_end.write(DATA)
        spooled.write(DATA)
        for file in (opened, at_its_end, spooled, io.BytesIO(DATA)):
            assert is_file_object(file) and resolve_source(file, "audio") == DATA == resolve_source(
                file, "audio"
            )


def test_what_cannot_be_wound_back_is_read_from_where_it_is() -> None:
    assert resolve_source(OneWay(), "audio") == DATA[10:]


def test_no_more_is_read_than_the_policy_allows() -> None:
    file = io.BytesIO(DATA)
    assert read_file_object(file, "audio", MediaPolicy(max_data_bytes=len(DATA))) == DATA
    with pytest.raises(
        AntiphonError, match="The audio data has 6 bytes or more, expected at most 5; give less"
    ):
        read_file_object(file, "audio", MediaPolicy(max_data_bytes=5))
    assert file.tell() == 6


def closed() -> io.BytesIO:
    file = io.BytesIO(DATA)
    file.close()
    return file


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("sentence", "file"),
    [
        (
            "The image is a StringIO whose read\\(\\) gives text, expected bytes; "
            "open the file in binary mode",
            io.StringIO("text"),
        ),
        ("The image is a Later whose read\\(\\) gives a coroutine, expected bytes", Later()),
        ("The image is a BytesIO that cannot be read \\(I/O operation on closed file", closed()),
        ("The image data is empty", io.BytesIO()),
    ],
)
def test_what_gives_no_bytes_is_refused(sentence: str, file: Any) -> None:
    with pytest.raises(AntiphonError, match=sentence):
        resolve_source(file, "image")
