"""Check an MP4 or QuickTime file before a library reads it: no media in other files, no impossible sample
count.

Source: ISO/IEC 14496-12, sections 4.2 (boxes), 8.7.2 (data reference) and 8.7.3 (sample size).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ...bundle.errors import InvalidInput
from .media_file import open_media

PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"stbl")
"""Boxes that contain the boxes to check."""
DEEPEST = 8
MOST_BOXES = 100_000
SELF_CONTAINED = 1
"""Flag of a data reference: the media lie in this file."""


def check_boxes(source: Path | bytes, label: str) -> None:
    """Raise AntiphonError if the movie header refers to other files, is compressed, or claims more samples
    than the file has bytes.
    """
    with open_media(source) as stream:
        size = stream.seek(0, 2)
        for kind, start, end in _boxes(stream, 0, size, DEEPEST, label):
            if kind == b"cmov":
                raise InvalidInput(
                    f"{label} has a compressed movie header; write it again as an ordinary MP4, "
                    "for example with ffmpeg -c copy."
                )
            if kind == b"dref":
                _check_references(stream, start, end, label)
            if kind in (b"stsz", b"stz2"):
                samples = int.from_bytes(_read(stream, start + 8, 4), "big")
                if samples > size:  # each sample has at least one byte, or an entry in this table
                    raise InvalidInput(
                        f"{label} claims {samples:,} samples in {size:,} bytes; repair it or make it again."
                    )


def _boxes(
    stream: BinaryIO, start: int, end: int, levels: int, label: str
) -> Iterator[tuple[bytes, int, int]]:
    """Yield (kind, first byte of the content, first byte after it) of each box; boxes in PARENTS come before
    the boxes inside them.
    """
    pending, seen = [(start, end, levels)], 0
    while pending:
        place, end, levels = pending.pop()
        while place + 8 <= end:
            seen += 1
            if seen > MOST_BOXES:
                raise InvalidInput(
                    f"{label} has more than {MOST_BOXES:,} boxes before its media; "
                    "write it again as an ordinary MP4."
                )
            header = _read(stream, place, 16)
            length, kind, content = int.from_bytes(header[:4], "big"), header[4:8], place + 8
            if length == 1:
                length, content = int.from_bytes(header[8:16], "big"), place + 16
            after = end if length == 0 else place + length
            if after < content:
                break  # not a box; the library that reads the media reports the error
            yield kind, content, min(after, end)
            if kind in PARENTS and levels:
                pending.append((content, min(after, end), levels - 1))
            place = after


def _check_references(stream: BinaryIO, start: int, end: int, label: str) -> None:
    place = start + 8  # version, flags and the number of entries
    while place + 12 <= end:
        entry = _read(stream, place, 12)
        length = int.from_bytes(entry[:4], "big")
        if not entry[11] & SELF_CONTAINED:
            raise InvalidInput(
                f"{label} refers to media in another file, which is not opened; "
                "give a file that holds its media itself."
            )
        place += max(length, 12)


def _read(stream: BinaryIO, place: int, size: int) -> bytes:
    stream.seek(place)
    return stream.read(size)
