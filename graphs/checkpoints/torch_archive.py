"""Reads and writes the zip archives of `torch.save` without torch and without executing code from a file.

A `.pt` file is a zip archive of uncompressed members: `NAME/data.pkl` is a pickle that describes the tensors,
`NAME/data/KEY` holds the bytes of storage KEY. The pickle is parsed, not loaded. The parser knows only the
instructions that a dictionary of tensors needs, applies them to plain values, and never looks up the name of
a function or class. Sources: torch/serialization.py; the pickle protocol in pickletools.
"""

from __future__ import annotations

import math
import pickletools
import struct
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ...runtime.bundle.errors import AntiphonError
from .config_bounds import unusable_name
from .stored_tensor import ITEM_BYTES, StoredTensor, is_shape

STORAGES = {
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "DoubleStorage": "F64",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "BoolStorage": "BOOL",
}
REBUILD = "torch._utils _rebuild_tensor_v2"
DICTIONARY = "collections OrderedDict"
WRAPPERS = ("model", "generator")
"""Keys under which some files store the dictionary of tensors."""
PREFIX = "generator."
LARGEST_PICKLE, MOST_STEPS = 4 * 2**20, 400_000
"""Bytes and instructions of a pickle; a tensor takes about 200 bytes and 30 instructions."""
LARGEST_DIRECTORY = 4 * 2**20
"""Bytes of the archive's directory; a member takes about 100."""
LONGEST_END = 2**16 + 22 + 20 + 56
"""Largest number of bytes from the end-of-directory records to the end of the file: the 64-bit record, its
locator, the 32-bit record and its comment."""
LOCAL_HEADER = struct.Struct("<4s22xHH")
"""Local header of a zip member: signature, length of the name, length of the extra field."""
_MARK = object()


@dataclass(frozen=True)
class _Global:
    """The name of a function or class as pickletools writes it: module, space, name."""

    name: str


@dataclass(frozen=True)
class _Storage:
    dtype: str
    key: str


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Refused(Exception):
    """An unsupported pickle; the message is the second half of an error sentence."""


def read_torch_archive(path: Path) -> dict[str, StoredTensor]:
    """Every tensor of the file `path` by name, without a prefix `generator.`.

    The file contains a dictionary of tensors, directly or under the key `model` or `generator`. Only the
    archive's directory and its pickle are read. Raises AntiphonError if the file is no complete zip archive
    of torch.save, or contains anything but contiguous little-endian tensors of the types in STORAGES.
    """
    try:
        with open(path, "rb") as file:
            if file.read(2) != b"PK":
                raise AntiphonError(
                    f"{path} is not a zip archive as torch.save writes it since torch 1.6; "
                    "save it again with a newer torch."
                )
            if _directory_bytes(file) > LARGEST_DIRECTORY:
                raise _Refused(f"its zip directory has more than {LARGEST_DIRECTORY} bytes")
            with zipfile.ZipFile(file) as archive:
                return _read(path, archive)
    except (zipfile.BadZipFile, EOFError, RuntimeError, ValueError, OverflowError, struct.error):
        # zipfile raises these for a damaged file
        raise AntiphonError(
            f"{path} is truncated or damaged (its zip directory does not fit its bytes); "
            "download the file again."
        ) from None
    except _Refused as error:
        raise AntiphonError(
            f"{path}: {error}; use a file that torch.save wrote from a dictionary of tensors."
        ) from None
    except OSError as error:
        raise AntiphonError(
            f"{path} cannot be read ({error.strerror or error}); make it readable or download the file again."
        ) from None


def _read(path: Path, archive: zipfile.ZipFile) -> dict[str, StoredTensor]:
    pickles = [member for member in archive.infolist() if member.filename.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise _Refused(f"{len(pickles)} members named data.pkl found, expected one")
    root = pickles[0].filename.removesuffix("data.pkl")
    members = {member.filename.removeprefix(root): member for member in archive.infolist()}
    if "byteorder" in members and _small(archive, members["byteorder"], 64) != b"little":
        raise _Refused("the values are not stored little-endian")
    stored = {}
    for name, tensor in _tensors(_parse(_small(archive, pickles[0], LARGEST_PICKLE))).items():
        member = members.get(f"data/{tensor.storage.key}")
        if member is None:
            raise _Refused(f"the values of tensor {name} are missing")
        stored[name] = _locate(path, archive, name, tensor, member)
    return stored


def _directory_bytes(file: BinaryIO) -> int:
    """The stated size of the archive's directory in bytes. zipfile reads a directory whole.

    Source: APPNOTE.TXT of PKWARE, 4.3.14 to 4.3.16.
    """
    start = max(0, file.seek(0, 2) - LONGEST_END)
    file.seek(start)
    end = file.read()
    place = end.rfind(b"PK\x05\x06")
    if place < 0:
        return 0  # zipfile reports this error
    sizes = [int(struct.unpack_from("<L", end, place + 12)[0])]
    if place >= 76 and end[place - 20 : place - 16] == b"PK\x06\x07":
        # The record of 64-bit sizes is directly before its locator, or at the position in the locator.
        file.seek(min(int(struct.unpack_from("<Q", end, place - 12)[0]), start + len(end)))
        sizes += (
            struct.unpack_from("<Q", record.ljust(56), 40)[0]
            for record in (end[place - 76 : place - 20], file.read(56))
        )
    return max(sizes)


def _small(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int) -> bytes:
    if member.file_size > limit or member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        raise _Refused(
            f"member {member.filename!r:.60} is compressed, encrypted or larger than {limit} bytes"
        )
    return archive.read(member)


def _locate(
    path: Path, archive: zipfile.ZipFile, name: str, tensor: _Tensor, member: zipfile.ZipInfo
) -> StoredTensor:
    """The position of the values of `tensor` in the file: after the local header of its storage's member."""
    if (
        member.compress_type != zipfile.ZIP_STORED
        or member.flag_bits & 1
        or member.compress_size != member.file_size
    ):
        raise _Refused(f"the values of tensor {name} are compressed or encrypted")
    count, contiguous = math.prod(tensor.shape), 1
    for size, step in zip(reversed(tensor.shape), reversed(tensor.stride), strict=True):
        if count and size > 1 and step != contiguous:  # an axis of size 1 may have any stride
            raise _Refused(
                f"tensor {name} is not contiguous (shape {tensor.shape!s:.60}, strides {tensor.stride!s:.60})"
            )
        contiguous *= size
    width = ITEM_BYTES[tensor.storage.dtype]
    begin, end = width * tensor.offset, width * (tensor.offset + count)
    if end > member.file_size:
        raise _Refused(f"tensor {name} needs {end} bytes of its storage, which has {member.file_size}")
    file = archive.fp
    assert file is not None
    file.seek(member.header_offset)
    signature, name_length, extra_length = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
    data = member.header_offset + LOCAL_HEADER.size + name_length + extra_length
    if signature != b"PK\x03\x04" or data + member.file_size > archive.start_dir:
        raise zipfile.BadZipFile
    return StoredTensor(path, tensor.storage.dtype, tensor.shape, data + begin, data + end)


def _tensors(state: Any) -> dict[str, _Tensor]:
    """The dictionary of tensors in the parsed pickle, without wrappers and prefix."""
    for wrapper in WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict):
        raise _Refused(f"a {type(state).__name__} found where a dictionary of tensors was expected")
    names = [name for name in state if isinstance(name, str) and name.startswith(PREFIX)]
    tensors = {name.removeprefix(PREFIX): state[name] for name in names} if names else state
    for name, value in tensors.items():
        if unusable_name((name,)) is not None or not isinstance(value, _Tensor):
            raise _Refused(f"entry {name!r:.60} is no tensor")
    return tensors


def _parse(pickled: bytes) -> Any:
    """The value that a pickle describes: dictionaries, lists, tuples, strings, numbers and tensors.

    Raises _Refused for anything else.
    """
    machine = _Machine()
    try:
        for steps, (opcode, argument, _) in enumerate(pickletools.genops(pickled)):
            if steps > MOST_STEPS:
                raise _Refused(f"its pickle has more than {MOST_STEPS} instructions")
            if opcode.name == "STOP":
                return machine.stack.pop()
            step = machine.steps.get(opcode.name)
            if step is None:
                raise _Refused(
                    f"its pickle holds the instruction {opcode.name}, which no dictionary of tensors needs"
                )
            step(argument)
    except (IndexError, KeyError, TypeError, ValueError, AttributeError):
        raise _Refused("its pickle is damaged") from None
    raise _Refused("its pickle is damaged")


class _Machine:
    """The stack and the memo of a pickle, and the effect of each supported instruction on them."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.marks: list[int] = []
        """Positions of the marks on the stack."""
        push, nothing = self.stack.append, lambda _: None
        values = (
            "BINUNICODE",
            "SHORT_BINUNICODE",
            "BINUNICODE8",
            "BININT",
            "BININT1",
            "BININT2",
            "LONG1",
            "LONG4",
            "BINFLOAT",
        )
        self.steps: dict[str, Any] = {
            **dict.fromkeys(values, push),
            **dict.fromkeys(("PROTO", "FRAME"), nothing),
            "NONE": lambda _: push(None),
            "NEWTRUE": lambda _: push(True),
            "NEWFALSE": lambda _: push(False),
            "EMPTY_DICT": lambda _: push({}),
            "EMPTY_LIST": lambda _: push([]),
            "EMPTY_TUPLE": lambda _: push(()),
            "MARK": lambda _: self.mark(),
            "TUPLE": lambda _: push(tuple(self.marked())),
            "TUPLE1": lambda _: push(self.last(1)),
            "TUPLE2": lambda _: push(self.last(2)),
            "TUPLE3": lambda _: push(self.last(3)),
            "APPEND": lambda _: self.extend(self.last(1)),
            "APPENDS": lambda _: self.extend(self.marked()),
            "SETITEM": lambda _: self.set_items(self.last(2)),
            "SETITEMS": lambda _: self.set_items(self.marked()),
            "BINPUT": self.put,
            "LONG_BINPUT": self.put,
            "MEMOIZE": lambda _: self.put(len(self.memo)),
            "BINGET": self.get,
            "LONG_BINGET": self.get,
            "GLOBAL": lambda name: push(_Global(name)),
            "STACK_GLOBAL": lambda _: push(_named(*self.last(2))),
            "BINPERSID": lambda _: push(_storage(self.stack.pop())),
            "REDUCE": lambda _: push(_call(*self.last(2))),
            "BUILD": lambda _: self.stack.pop(),  # attributes of a dictionary, such as _metadata
        }

    def mark(self) -> None:
        self.marks.append(len(self.stack))
        self.stack.append(_MARK)

    def last(self, count: int) -> tuple[Any, ...]:
        values = tuple(self.stack[-count:])
        if len(values) < count:
            raise IndexError
        del self.stack[-count:]
        return values

    def marked(self) -> list[Any]:
        while self.marks and (self.marks[-1] >= len(self.stack) or self.stack[self.marks[-1]] is not _MARK):
            self.marks.pop()  # marks that another instruction removed from the stack
        place = self.marks.pop()
        values = self.stack[place + 1 :]
        del self.stack[place:]
        return values

    def extend(self, values: Iterable[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise TypeError
        self.stack[-1].extend(values)

    def set_items(self, values: Any) -> None:
        target, keys = self.stack[-1], values[0::2]
        if (
            not isinstance(target, dict)
            or len(values) % 2
            or not all(isinstance(key, str | int) for key in keys)
        ):
            raise TypeError
        target.update(zip(keys, values[1::2], strict=True))

    def put(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    def get(self, place: int) -> None:
        self.stack.append(self.memo[place])


def _named(module: Any, name: Any) -> _Global:
    if not isinstance(module, str) or not isinstance(name, str):
        raise TypeError
    return _Global(f"{module} {name}")


def _storage(reference: Any) -> _Storage:
    """The storage of a persistent id ("storage", type, key, device, values)."""
    tag, kind, key, _, _ = reference
    name = kind.name.removeprefix("torch ") if isinstance(kind, _Global) else ""
    if tag != "storage" or name not in STORAGES or not isinstance(key, str):
        raise _Refused(
            f"a storage of type {name or type(kind).__name__!r:.60} found, "
            f"expected one of {', '.join(STORAGES)}"
        )
    return _Storage(STORAGES[name], key)


def _call(called: Any, arguments: Any) -> Any:
    """The result of one of the two known calls, made from its arguments without a call."""
    name = called.name if isinstance(called, _Global) else type(called).__name__
    if name == DICTIONARY and arguments == ():
        return {}
    if name != REBUILD:
        raise _Refused(f"its pickle asks to call {name!r:.60}, which Antiphon never does")
    storage, offset, shape, stride = arguments[:4]
    if (
        not isinstance(storage, _Storage)
        or len(shape) != len(stride)
        or not is_shape((offset,))
        or not is_shape(shape)
        or not is_shape(stride)
    ):
        raise ValueError
    return _Tensor(storage, offset, tuple(shape), tuple(stride))


def write_torch_archive(path: Path, entries: Iterable[tuple[str, str, tuple[int, ...], bytes]]) -> None:
    """Write a file that `torch.load(path, weights_only=True)` reads as a dictionary of tensors.

    `entries` are (name, dtype as safetensors names it, shape, little-endian bytes). They are read and written
    one after the other, so one tensor at a time is in memory. Names in a codec folder have the prefix
    `generator.`.
    """
    kinds = {dtype: kind for kind, dtype in STORAGES.items()}
    root, pickled = path.stem, bytearray(b"\x80\x02}(")  # protocol 2, an empty dictionary, a mark
    with zipfile.ZipFile(path, "w") as archive:

        def write(member: str, data: bytes) -> None:
            # The date of a ZipInfo is fixed, so equal tensors give equal files.
            archive.writestr(zipfile.ZipInfo(f"{root}/{member}"), data)

        for key, (name, dtype, shape, data) in enumerate(entries):
            count = math.prod(shape)
            assert len(data) == ITEM_BYTES[dtype] * count, (
                f"{name}: {len(data)} bytes for {count} values of {dtype}"
            )
            strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
            reference = (
                _text("storage")
                + _name(f"torch {kinds[dtype]}")
                + _text(str(key))
                + _text("cpu")
                + _integer(count)
            )
            pickled += _text(name) + _name(REBUILD) + b"((" + reference + b"tQ" + _integer(0)
            pickled += (
                b"("
                + b"".join(map(_integer, shape))
                + b"t("
                + b"".join(map(_integer, strides))
                + b"t\x89"
                + _name(DICTIONARY)
                + b")RtR"
            )
            write(f"data/{key}", data)
        for member, content in (
            ("data.pkl", bytes(pickled) + b"u."),
            ("byteorder", b"little"),
            ("version", b"3\n"),
        ):
            write(member, content)


def _text(value: str) -> bytes:
    """The pickle instruction BINUNICODE."""
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _name(value: str) -> bytes:
    """The pickle instruction GLOBAL."""
    return b"c" + value.replace(" ", "\n").encode() + b"\n"


def _integer(value: int) -> bytes:
    """The pickle instruction LONG1, which holds any size."""
    encoded = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(encoded)]) + encoded
