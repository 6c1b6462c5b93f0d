"""Detect the container or image format of media by the first bytes, and the library that reads it.

Other formats are refused before any library sees them. The libraries know many more, and some are dangerous:
play lists and session descriptions make FFmpeg open other files and addresses, and page descriptions make
Pillow start another program.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ...bundle.errors import InvalidInput
from .media_file import open_media

HEAD = 4096
"""Number of first bytes that are inspected."""
MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide")
"""Types of box with which an MP4 or QuickTime file may begin."""


class Format(NamedTuple):
    """One format: its name in errors, the kinds of media it may hold, and its name in each library (empty:
    the library never reads it).
    """

    name: str
    kinds: tuple[str, ...]
    soundfile: bool = False
    """Whether libsndfile reads it."""
    demuxer: str = ""
    """FFmpeg's name."""
    pillow: str = ""


SOUND, FILM, PICTURE = ("audio",), ("audio", "video"), ("image",)
WAV = Format("WAV", SOUND, True, "wav")
FORMATS = {
    "wav": WAV,
    "w64": Format("Wave64", SOUND, True, "w64"),
    "aiff": Format("AIFF", SOUND, True, "aiff"),
    "au": Format("AU", SOUND, True, "au"),
    "caf": Format("CAF", SOUND, True, "caf"),
    "flac": Format("FLAC", SOUND, True, "flac"),
    "ogg": Format("OGG", FILM, True, "ogg"),
    "mp3": Format("MP3", SOUND, True, "mp3"),
    "aac": Format("AAC", SOUND, False, "aac"),
    "mp4": Format("MP4", FILM, False, "mp4"),
    "matroska": Format("MKV", FILM, False, "matroska"),
    "avi": Format("AVI", FILM, False, "avi"),
    "gif": Format("GIF", ("video", "image"), False, "gif", "GIF"),
    "png": Format("PNG", PICTURE, pillow="PNG"),
    "jpeg": Format("JPEG", PICTURE, pillow="JPEG"),
    "webp": Format("WebP", PICTURE, pillow="WEBP"),
    "bmp": Format("BMP", PICTURE, pillow="BMP"),
    "tiff": Format("TIFF", PICTURE, pillow="TIFF"),
}
WANTED = {
    "audio": "WAV, FLAC, OGG, MP3, AAC, AIFF, M4A, MP4, MOV, MKV, WebM or AVI",
    "image": "PNG, JPEG, WebP, GIF, BMP or TIFF",
    "video": "MP4, MOV, MKV, WebM, AVI, OGG or GIF",
}
REFUSED = (
    (b"#EXTM3U", "a play list"),
    (b"[playlist]", "a play list"),
    (b"ffconcat", "a list of files to be joined"),
    (b"v=0", "a session description"),
    (b"%!PS", "a page description"),
    (b"\xc5\xd0\xd3\xc6", "a page description"),
    (b"%PDF", "a PDF document"),
    (b"<", "a document of XML or HTML"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "gzip data"),
)
"""Formats that are common or dangerous, with their names for errors. All other unknown data is refused,
too.
"""


def detect(source: Path | bytes) -> Format | None:
    """The format of a file or of data, by its first bytes; None if it is not supported."""
    name = _named(_head(source))
    return FORMATS[name] if name else None


def require_format(source: Path | bytes, kind: str, label: str) -> Format:
    """The format of media that are given as `kind` (audio, image, video).

    `label`: the name of the media in errors. Raises AntiphonError if the format is not one of that kind; the
    error names the format if it is known.
    """
    found = detect(source)
    if found is None or kind not in found.kinds:
        is_what = f"it is {found.name}" if found else _guess(_head(source))
        raise InvalidInput(f"{label} cannot be read as {kind}: {is_what}; give {WANTED[kind]}.")
    return found


def _head(source: Path | bytes) -> bytes:
    """The first bytes, without the content of the ID3 tags before them."""
    with open_media(source) as stream:
        head = stream.read(HEAD)
        if head[:3] == b"ID3" and len(head) > 10:
            size = sum((byte & 0x7F) << 7 * (3 - place) for place, byte in enumerate(head[6:10]))
            stream.seek(10 + size)
            after = stream.read(HEAD).lstrip(b"\0")
            return after if after[:4] == b"fLaC" or _is_aac(after) else b"ID3" + after
    return head


def _named(head: bytes) -> str:
    """The key in FORMATS, or an empty string."""
    starts = head.startswith
    if starts((b"RIFF", b"RIFX", b"RF64")):
        return {b"WAVE": "wav", b"AVI ": "avi", b"WEBP": "webp"}.get(head[8:12], "")
    for signature, name in SIGNATURES:
        if starts(signature):
            return name
    if starts(b"FORM") and head[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    if head[4:8] in MP4_BOXES:
        return "mp4"
    if _is_aac(head):
        return "aac"
    return "mp3" if starts(b"ID3") or _is_mpeg_audio(head.lstrip(b"\0")) else ""


SIGNATURES = (
    (b"fLaC", "flac"),
    (b"OggS", "ogg"),
    (b"\x1a\x45\xdf\xa3", "matroska"),
    (b"riff\x2e\x91\xcf\x11", "w64"),
    (b".snd\0\0", "au"),
    (b"caff\0", "caf"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"BM", "bmp"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
)


def _is_aac(head: bytes) -> bool:
    """Whether `head` begins with a frame of AAC in ADTS."""
    return len(head) > 6 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0


def _is_mpeg_audio(head: bytes) -> bool:
    """Whether `head` begins with a frame header of MPEG audio: a sync word, and no reserved version, layer,
    bit rate or sample rate.
    """
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return False
    version, layer, bit_rate, rate = (head[1] >> 3) & 3, (head[1] >> 1) & 3, head[2] >> 4, (head[2] >> 2) & 3
    return version != 1 and layer != 0 and bit_rate != 15 and rate != 3


def _guess(head: bytes) -> str:
    """The description, in an error, of data that is none of FORMATS."""
    begins = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for signature, name in REFUSED:
        if begins[: len(signature)].lower() == signature.lower():
            return f"it is {name}"
    return "its first bytes are of no format that is read"
