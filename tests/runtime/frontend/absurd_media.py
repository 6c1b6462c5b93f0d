"""Headers that claim more than any recording or picture has, and play lists; nothing follows the headers.

Each is refused by a check of our own.
"""

from __future__ import annotations

import struct
from pathlib import Path


def wav(rate: int, channels: int = 1, samples: int = 500) -> bytes:
    size = 2 * samples * channels
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * 2 % 2**32, 2 * channels, 16)
    return (
        b"RIFF"
        + struct.pack("<I", 36 + size)
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + form
        + b"data"
        + struct.pack("<I", size)
        + bytes(size)
    )


def sparse_wav(path: Path, seconds: int, rate: int = 16000) -> Path:
    """Silence that takes no room on the disk."""
    head = bytearray(wav(rate, samples=0))
    head[4:8], head[40:44] = struct.pack("<I", 36 + 2 * seconds * rate), struct.pack("<I", 2 * seconds * rate)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(44 + 2 * seconds * rate)
    return path


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR" + struct.pack(">II", width, height) + b"\x08\x02\0\0\0"


def jpeg(width: int, height: int) -> bytes:
    return (
        b"\xff\xd8\xff\xe0\0\x10JFIF"
        + bytes(10)
        + b"\xff\xc0\0\x11\x08"
        + struct.pack(">HH", height, width)
        + bytes(10)
    )


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + bytes(3)


def bmp(width: int, height: int) -> bytes:
    return b"BM" + bytes(12) + struct.pack("<Iii", 40, width, -height)


def webp(width: int, height: int, frames: int = 0) -> bytes:
    size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    return b"RIFF\0\0\0\0WEBPVP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + size + b"ANMF\0\0\0\0" * frames


def tiff(width: int, height: int, tile: int = 0) -> bytes:
    tags = {256: width, 257: height} | ({322: tile, 323: tile} if tile else {})
    return (
        b"II*\0"
        + struct.pack("<IH", 8, len(tags))
        + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
        + bytes(4)
    )


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def mp4(table: bytes, place: str = "stbl") -> bytes:
    """A movie header whose one track has nothing but `table`,
    in its sample table or (`dinf`) among its data references.
    """
    return box(b"ftyp", b"isom\0\0\0\0") + box(
        b"moov", box(b"trak", box(b"mdia", box(b"minf", box(place.encode(), table))))
    )


def mp4_of_samples(samples: int) -> bytes:
    return mp4(box(b"stsz", bytes(4) + struct.pack(">II", 1, samples)))


def mp4_of_another_file(name: bytes = b"elsewhere") -> bytes:
    return mp4(box(b"dref", bytes(4) + struct.pack(">I", 1) + box(b"url ", bytes(4) + name)), "dinf")
