"""Find the other files that an ONNX file refers to, without the onnx library.

Source: onnx.proto3 (ONNX 1.23). Only the fields that lead to tensors are read; the others are skipped.
"""

from __future__ import annotations

from pathlib import Path

from .errors import BrokenBundle
from .said import reason, short_path

FIELDS: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {13: "StringStringEntryProto"},
}
"""Numbers and message types of the fields to follow, by message type."""
LOCATION = b"location"
"""Key of the entry that names a file."""
VARINT, FIXED_64, LENGTH, FIXED_32 = 0, 1, 2, 5
"""Wire types of protocol buffers."""


def external_files(path: Path) -> set[str]:
    """The locations of all external data of the ONNX file at `path`, as written in it.

    Raises AntiphonError if the file is not an ONNX file.
    """
    try:
        content = path.read_bytes()
        locations: set[str] = set()
        waiting = [("ModelProto", 0, len(content))]
        while waiting:
            message, start, end = waiting.pop()
            if message == "StringStringEntryProto":
                entry = {field: content[begin:stop] for field, begin, stop in _fields(content, start, end)}
                if entry.get(1) == LOCATION:
                    locations.add(entry.get(2, b"").decode("utf-8"))
                continue
            kinds = FIELDS[message]
            inner = [
                (kinds[field], begin, stop)
                for field, begin, stop in _fields(content, start, end)
                if field in kinds
            ]
            # skips the parts without a location, which are most
            waiting += [part for part in inner if content.find(LOCATION, part[1], part[2]) >= 0]
    except (IndexError, ValueError):
        raise BrokenBundle(f"{short_path(path)} is not an ONNX file; build the bundle again.") from None
    except OSError as error:
        raise BrokenBundle(
            f"{short_path(path)} cannot be read ({error.strerror or reason(error)}); "
            "make it readable or build the bundle again."
        ) from None
    return locations


def _fields(content: bytes, start: int, end: int) -> list[tuple[int, int, int]]:
    """(number, begin, end) of every field of a message that has a length.

    Raises ValueError or IndexError if the bytes are not a message.
    """
    found = []
    while start < end:
        key, start = _varint(content, start)
        wire = key & 7
        if wire == VARINT:
            start = _varint(content, start)[1]
        elif wire == LENGTH:
            size, start = _varint(content, start)
            found.append((key >> 3, start, start + size))
            start += size
        elif wire in (FIXED_64, FIXED_32):
            start += 8 if wire == FIXED_64 else 4
        else:
            raise ValueError(f"wire type {wire}")
    if start != end:
        raise ValueError("a field reaches beyond its message")
    return found


def _varint(content: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
        if shift > 63:
            raise ValueError("an integer of more than 64 bits")
