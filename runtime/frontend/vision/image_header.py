"""Read the size of an image from its header, before a library reserves memory for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from ..media.media_file import open_media
from ..media.media_formats import Format

Order = Literal["little", "big"]
MOST_FRAMES = 10_000
"""The most frames of an animation. WebP decoders keep a record of every frame, but only the first is used."""
MOST_SEGMENTS = 10_000
TIFF_SIZES = {256: "width", 257: "height", 322: "tile_width", 323: "tile_height"}
"""Tags of a TIFF directory that give sizes."""


class ImageHeader(NamedTuple):
    """The sizes that an image claims."""

    width: int
    height: int
    frames: int = 1
    """Frames of a WebP animation, counted up to MOST_FRAMES + 1; 1 for other images."""
    tile: tuple[int, int] = (1, 1)
    """Width and height of the tiles of a TIFF; a tile is decoded as a whole."""


def read_header(source: Path | bytes, found: Format) -> ImageHeader | None:
    """The header of an image of the format `found`; None if it is broken."""
    with open_media(source) as stream:
        try:
            return READERS[found.pillow](stream)
        except (IndexError, ValueError):
            return None


def _png(stream: BinaryIO) -> ImageHeader:
    head = _exactly(stream, 24)
    return ImageHeader(_number(head[16:20], "big"), _number(head[20:24], "big"))


def _gif(stream: BinaryIO) -> ImageHeader:
    head = _exactly(stream, 10)
    return ImageHeader(_number(head[6:8], "little"), _number(head[8:10], "little"))


def _bmp(stream: BinaryIO) -> ImageHeader:
    head = _exactly(stream, 26)
    if _number(head[14:18], "little") == 12:  # OS/2's short header
        return ImageHeader(_number(head[18:20], "little"), _number(head[20:22], "little"))
    # negative: rows from the top
    width, height = (
        abs(int.from_bytes(head[place : place + 4], "little", signed=True)) for place in (18, 22)
    )
    return ImageHeader(width, height)


def _webp(stream: BinaryIO) -> ImageHeader:
    head = _exactly(stream, 30)
    kind = head[12:16]
    if kind == b"VP8 ":
        return ImageHeader(_number(head[26:28], "little") & 0x3FFF, _number(head[28:30], "little") & 0x3FFF)
    if kind == b"VP8L":
        bits = _number(head[21:25], "little")
        return ImageHeader((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    width, height = _number(head[24:27], "little") + 1, _number(head[27:30], "little") + 1
    return ImageHeader(width, height, max(1, sum(1 for _ in _webp_frames(stream))))


def _webp_frames(stream: BinaryIO) -> Iterator[int]:
    """Yield the positions of the frames of an animation, at most MOST_FRAMES + 1."""
    place, found = 12, 0
    while found <= MOST_FRAMES:
        stream.seek(place)
        chunk = stream.read(8)
        if len(chunk) < 8:
            return
        if chunk[:4] == b"ANMF":
            found += 1
            yield place
        size = _number(chunk[4:], "little")
        place += 8 + size + size % 2


def _jpeg(stream: BinaryIO) -> ImageHeader:
    """The size in the first frame header (SOF). Source: ITU-T T.81, section B.2.2."""
    stream.seek(2)
    marker = b""
    for _ in range(MOST_SEGMENTS):
        marker = (marker + _exactly(stream, 1))[-2:]
        code = marker[-1]
        if (
            len(marker) < 2
            or marker[0] != 0xFF
            or code == 0xFF
            or code in (0x00, 0x01)
            or 0xD0 <= code <= 0xD8
        ):
            continue  # a byte between segments, or a marker without a segment
        length = _number(_exactly(stream, 2), "big")
        if 0xC0 <= code <= 0xCF and code not in (0xC4, 0xC8, 0xCC):
            head = _exactly(stream, 5)
            return ImageHeader(_number(head[3:5], "big"), _number(head[1:3], "big"))
        stream.seek(max(0, length - 2), 1)
        marker = b""
    raise ValueError


def _tiff(stream: BinaryIO) -> ImageHeader:
    """The size of the first picture. Source: TIFF 6.0, section 2; BigTIFF has 8-byte counts and offsets."""
    head = _exactly(stream, 16)
    order: Order = "little" if head[:2] == b"II" else "big"
    big = _number(head[2:4], order) == 43
    word, entry_bytes = (8, 20) if big else (4, 12)
    stream.seek(_number(head[8:16] if big else head[4:8], order))
    entries = _number(_exactly(stream, 8 if big else 2), order)
    sizes = dict.fromkeys(TIFF_SIZES.values(), 0)
    for _ in range(min(entries, MOST_SEGMENTS)):
        entry = _exactly(stream, entry_bytes)
        name = TIFF_SIZES.get(_number(entry[:2], order))
        if name:
            bytes_each = {3: 2, 4: 4, 16: 8}.get(_number(entry[2:4], order), word)
            sizes[name] = _number(entry[4 + word : 4 + word + bytes_each], order)
    if not sizes["width"] or not sizes["height"]:
        raise ValueError
    return ImageHeader(
        sizes["width"], sizes["height"], tile=(max(1, sizes["tile_width"]), max(1, sizes["tile_height"]))
    )


READERS = {"PNG": _png, "GIF": _gif, "BMP": _bmp, "WEBP": _webp, "JPEG": _jpeg, "TIFF": _tiff}


def _exactly(stream: BinaryIO, size: int) -> bytes:
    found = stream.read(size)
    if len(found) < size:
        raise IndexError
    return found


def _number(data: bytes, order: Order) -> int:
    return int.from_bytes(data, order)
