"""Resolve a piece of media to a file or bytes: a data URL, base64 text, a path, bytes or an open file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ...bundle.errors import InvalidInput
from ...bundle.said import short, short_path
from .base64_text import decode_base64
from .file_objects import is_file_object, read_file_object
from .media_policy import LOCAL, MediaPolicy

LONGEST_PATH = 4096
"""The longest path. Longer text is taken as base64 without access to the file system."""

SEND_DATA = "encode its content as base64 or give a data URL"


def resolve_source(source: Any, kind: str, policy: MediaPolicy = LOCAL) -> Path | bytes:
    """Return the file or the bytes that `source` names; `kind` (audio, image, video) is used in messages.

    `source` is a data URL, base64 text, a path, a `file://` URL, an `os.PathLike`, bytes or an open binary
    file. Raises AntiphonError for web addresses (nothing is downloaded), missing or empty files, text that is
    neither a file nor base64, and media that `policy` forbids. If it forbids local files, the file system is
    not accessed.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        policy.check_data_bytes(memoryview(source).nbytes, kind)
        return _not_empty(bytes(source), kind)
    if isinstance(source, os.PathLike):
        return _file(Path(source), kind, policy)
    if is_file_object(source):
        return _not_empty(read_file_object(source, kind, policy), kind)
    if not isinstance(source, str):
        raise InvalidInput(
            f"{kind} is given as {short(source)}; expected a local path, base64 data, a data URL, "
            "an open binary file or a NumPy array."
        )
    scheme = source.split(":", 1)[0].lower() if ":" in source[:16] else ""
    if scheme in ("http", "https", "ftp", "s3"):
        raise InvalidInput(
            f"{kind} {short(source)} is a web address and is not fetched; "
            "download it first and give the local path."
        )
    if scheme == "data":
        return _data_url(source, kind, policy)
    if scheme == "file":
        return _file(Path(unquote(urlsplit(source[:LONGEST_PATH]).path)), kind, policy)
    if policy.local_files and len(source) <= LONGEST_PATH and "\n" not in source and "\0" not in source:
        path = Path(os.path.expanduser(source))
        if _exists(path):
            return _file(path, kind, policy)
    return _base64(source, kind, policy)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a component is too long for the file system, so this is base64
        return False


def _file(path: Path, kind: str, policy: MediaPolicy) -> Path:
    if not policy.local_files:
        raise InvalidInput(f"The {kind} is given as a local path, which is not opened here; {SEND_DATA}.")
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise InvalidInput(
            f"No {kind} file at {short_path(path)}: found {found}; give the path of an existing file."
        )
    size = path.stat().st_size
    policy.check_file_bytes(size, kind)
    if size == 0:
        raise InvalidInput(
            f"The {kind} file {short_path(path)} is empty (0 bytes); give a file with content."
        )
    return path


def _data_url(source: str, kind: str, policy: MediaPolicy) -> bytes:
    header, comma, payload = source.partition(",")
    if not comma or len(header) > LONGEST_PATH or not header.lower().endswith(";base64"):
        raise InvalidInput(
            f"The data URL of the {kind} ({short(source)}) is not of the form data:TYPE;base64,DATA; "
            f"encode the {kind} as base64."
        )
    return _base64(payload, kind, policy)


def _base64(text: str, kind: str, policy: MediaPolicy) -> bytes:
    data = decode_base64(text, kind, policy)
    if data is None and not policy.local_files:
        raise InvalidInput(
            f"The {kind} {short(text)} is not base64 data, and local paths are not opened here; {SEND_DATA}."
        )
    if data is None:
        raise InvalidInput(
            f"The {kind} {short(text)} is neither an existing file nor base64 data; "
            "check the path or the encoding."
        )
    return _not_empty(data, kind)


def _not_empty(data: bytes, kind: str) -> bytes:
    if not data:
        raise InvalidInput(f"The {kind} data is empty (0 bytes); give data with content.")
    return data
