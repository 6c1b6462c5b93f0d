"""Reads a Hugging Face checkpoint folder tensor by tensor, so that a build never holds more than the tensor it is working on."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime.errors import AntiphonError
from .config import OmniConfig
from .qwen3_5_omni.codec_folder import CONFIG_NAME, WEIGHTS_NAME, find_codec_folder
from .read_config import read_config
from .stored_parts import canonical_name
from .stored_tensor import ITEM_BYTES, StoredTensor
from .torch_archive import read_torch_archive

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
# Integers and booleans are read as stored, the other types as float32.
INTEGER_TYPES = {"I64": "<i8", "I32": "<i4", "BOOL": "?"}
FLOAT_TYPES = {"BF16": "<u2", "F16": "<f2", "F32": "<f4", "F64": "<f8"}
BLOCK_BYTES = 8 * 2**20
LARGEST_HEADER = 100 * 2**20
CODEC_PREFIX = "code2wav."
REPAIR = "download the file again"


class Checkpoint:
    """A folder with `config.json` and safetensors weights: one `model.safetensors`, or shards with an index.

    Where the codec lies in a folder of its own, its tensors are here too, as `code2wav.` and their own names.
    Opening reads headers and file sizes only and raises AntiphonError for anything that does not fit together.
    Values are read from the file, not through a memory map: a map would leave every page it touched in the process's memory.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config: OmniConfig = read_config(self.path)
        self._tensors = {canonical_name(name, self.config.rename): tensor for name, tensor in _locate(self.path).items()}
        codec = _codec_folder(self.path, self.config)
        if codec is not None:
            kept = {name: tensor for name, tensor in self._tensors.items() if not name.startswith(CODEC_PREFIX)}
            self._tensors = kept | {CODEC_PREFIX + name: tensor for name, tensor in read_torch_archive(codec / WEIGHTS_NAME).items()}

    def names(self) -> tuple[str, ...]:
        """Names of all tensors, sorted."""
        return tuple(sorted(self._tensors))

    def has(self, name: str) -> bool:
        """Whether the checkpoint holds tensor `name`."""
        return name in self._tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of tensor `name`."""
        return self._find(name).shape

    def dtype(self, name: str) -> str:
        """Dtype of tensor `name` as safetensors writes it: BF16, F16, F32 ..."""
        return self._find(name).dtype

    def expect_shape(self, name: str, shape: tuple[int, ...]) -> None:
        """Raise AntiphonError unless tensor `name` exists and has `shape`."""
        found = self._find(name)
        if found.shape != tuple(shape):
            config = CONFIG_NAME if found.shard.name == WEIGHTS_NAME else "config.json"
            raise AntiphonError(
                f"{found.shard}: tensor {name} has shape {list(found.shape)}, expected {list(shape)} by {config}; "
                f"use the {config} that belongs to these weights."
            )

    def read(self, name: str) -> np.ndarray:
        """The values of tensor `name`: float32 for every floating dtype, integers and booleans as stored.

        Only this tensor's bytes are read, and converted block by block, so that nothing but the result takes memory of its size.
        Raises AntiphonError when it is missing.
        """
        tensor = self._find(name)
        stored = np.dtype(INTEGER_TYPES.get(tensor.dtype) or FLOAT_TYPES[tensor.dtype])
        values = np.zeros(math.prod(tensor.shape), stored if tensor.dtype in INTEGER_TYPES else "<f4")
        # A bfloat16 value is the upper half of a float32.
        target = values.view("<u2")[1::2] if tensor.dtype == "BF16" else values
        filled = 0
        for block in _blocks(tensor):
            count = len(block) // stored.itemsize
            target[filled : filled + count] = np.frombuffer(block, stored)
            filled += count
        return values.reshape(tensor.shape)

    def digest(self, name: str) -> str:
        """Hexadecimal BLAKE2b (32 bytes) of the dtype, the shape and the stored bytes of tensor `name`; read in blocks."""
        tensor = self._find(name)
        digest = hashlib.blake2b(f"{tensor.dtype} {list(tensor.shape)}\n".encode(), digest_size=32)
        for block in _blocks(tensor):
            digest.update(block)
        return digest.hexdigest()

    def _find(self, name: str) -> StoredTensor:
        tensor = self._tensors.get(name)
        if tensor is None:
            raise AntiphonError(f"{self.path}: tensor {name} is missing; use a complete checkpoint whose config.json belongs to its weights.")
        return tensor


def _blocks(tensor: StoredTensor) -> Iterator[memoryview]:
    """The stored bytes of `tensor` in blocks of whole values, each valid until the next; the file is opened for this read alone."""
    block = memoryview(bytearray(min(BLOCK_BYTES, tensor.end - tensor.begin)))
    try:
        with open(tensor.shard, "rb") as file:
            position = file.seek(tensor.begin)
            while position < tensor.end:
                wanted = block[: min(len(block), tensor.end - position)]
                if file.readinto(wanted) < len(wanted):
                    raise AntiphonError(f"{tensor.shard} ended while it was being read; something shortened the file, {REPAIR}.")
                position += len(wanted)
                yield wanted
    except OSError as error:
        raise AntiphonError(f"{tensor.shard} cannot be read ({error.strerror or error}); make it readable or {REPAIR}.") from None


def _codec_folder(checkpoint: Path, config: OmniConfig) -> Path | None:
    """The folder from which the configuration of Code2Wav came, if it was one."""
    return find_codec_folder(checkpoint) if config.family == "qwen3_5_omni" and config.code2wav is not None else None


def _locate(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of the checkpoint in `folder`, from the index if there is one, else from the single file."""
    index = folder / INDEX_NAME
    if not index.is_file():
        single = folder / SINGLE_NAME
        if not single.is_file():
            raise AntiphonError(f"{folder} holds no weights: expected {SINGLE_NAME} or {INDEX_NAME} with its shards; give the complete checkpoint.")
        return _read_header(single)
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        listed = {str(name): str(shard) for name, shard in weight_map.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise AntiphonError(f"{index} is not an index of shards (a JSON object with weight_map was expected); {REPAIR}.") from None
    shards = {}
    for shard in sorted(set(listed.values())):
        if Path(shard).name != shard or not (folder / shard).is_file():
            raise AntiphonError(f"{folder / shard} is missing but {INDEX_NAME} lists it; download this shard into the folder.")
        shards[shard] = _read_header(folder / shard)
    tensors = {}
    for name, shard in listed.items():
        if name not in shards[shard]:
            raise AntiphonError(f"{index} places tensor {name} in {shard}, which does not hold it; download the index and this shard again.")
        tensors[name] = shards[shard][name]
    return tensors


def _read_header(shard: Path) -> dict[str, StoredTensor]:
    """The tensors of one safetensors file: eight bytes of header length, a JSON header, then the data.

    Source: the format description of the safetensors project. Raises AntiphonError for a broken header or a file too short for it.
    """
    size = shard.stat().st_size
    with open(shard, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(LARGEST_HEADER, size - 8):
            raise AntiphonError(f"{shard} is truncated or not a safetensors file (its {size} bytes cannot hold the header it announces); {REPAIR}.")
        try:
            header = json.loads(file.read(length))
            tensors = {name: _entry(shard, name, 8 + length, entry) for name, entry in header.items() if name != "__metadata__"}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise AntiphonError(f"{shard}: the safetensors header is broken; {REPAIR}.") from None
    needed = max((tensor.end for tensor in tensors.values()), default=0)
    if size < needed:
        raise AntiphonError(f"{shard} is truncated: {size} bytes found, {needed} expected by its header; {REPAIR}.")
    return tensors


def _entry(shard: Path, name: str, data: int, entry: dict[str, Any]) -> StoredTensor:
    """One header entry; raises ValueError when its numbers contradict each other, AntiphonError for an unsupported dtype."""
    begin, end = (int(offset) for offset in entry["data_offsets"])
    shape = tuple(int(size) for size in entry["shape"])
    dtype = str(entry["dtype"])
    if dtype not in ITEM_BYTES:
        raise AntiphonError(
            f"{shard}: tensor {name} is stored as {dtype}, expected one of {', '.join(ITEM_BYTES)}; "
            "use the checkpoint before quantisation (Antiphon quantises while it builds)."
        )
    if begin < 0 or min(shape, default=0) < 0 or end - begin != ITEM_BYTES[dtype] * math.prod(shape):
        raise ValueError("offsets, shape and dtype do not agree")
    return StoredTensor(shard, dtype, shape, data + begin, data + end)
