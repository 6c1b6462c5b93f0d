"""Reads a Hugging Face checkpoint folder tensor by tensor: a build holds one tensor in memory at a time."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...runtime.bundle.errors import AntiphonError
from ..config import OmniConfig
from ..families.registry import family
from .check_weights import check_weights
from .read_config import read_config
from .safetensors_folder import REPAIR, find_tensors
from .stored_parts import canonical_name
from .stored_tensor import StoredTensor
from .torch_archive import read_torch_archive

# Integers and booleans are read as stored, floats as float32.
INTEGER_TYPES = {"I64": "<i8", "I32": "<i4", "BOOL": "?"}
FLOAT_TYPES = {"BF16": "<u2", "F16": "<f2", "F32": "<f4", "F64": "<f8"}
BLOCK_BYTES = 8 * 2**20
CODEC_PREFIX = "code2wav."


class Checkpoint:
    """A folder with `config.json` and safetensors weights: one `model.safetensors`, or shards with an index.

    The tensors of a codec in its own folder are included; their names get the prefix `code2wav.`.
    Opening reads only headers and file sizes. It raises AntiphonError if files contradict each other.
    Values are read from the file, not through a memory map, which would keep every page it read in memory.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config: OmniConfig = read_config(self.path)
        listing = find_tensors(self.path)
        check_weights(listing, self.config)
        self._tensors = {
            canonical_name(name, self.config.rename): tensor for name, tensor in listing.tensors().items()
        }
        self._codec = (
            family(self.config.family).find_codec(self.path) if self.config.code2wav is not None else None
        )
        if self._codec is not None:
            kept = {
                name: tensor for name, tensor in self._tensors.items() if not name.startswith(CODEC_PREFIX)
            }
            self._tensors = kept | {
                CODEC_PREFIX + name: tensor
                for name, tensor in read_torch_archive(self._codec.weights).items()
            }

    def names(self) -> tuple[str, ...]:
        """Names of all tensors, sorted."""
        return tuple(sorted(self._tensors))

    def has(self, name: str) -> bool:
        """Whether the checkpoint has tensor `name`."""
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
            config = (
                self._codec.config.name
                if self._codec is not None and found.shard == self._codec.weights
                else "config.json"
            )
            raise AntiphonError(
                f"{found.shard}: tensor {name} has shape {list(found.shape)}, "
                f"expected {list(shape)} by {config}; use the {config} that belongs to these weights."
            )

    def read(self, name: str) -> np.ndarray:
        """The values of tensor `name`: float32 for every floating dtype, integers and booleans as stored.

        The bytes are read and converted in blocks, so only the result takes memory of the tensor's size.
        Raises AntiphonError if the tensor is missing.
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
        """Hexadecimal BLAKE2b hash (32 bytes) of the dtype, shape and stored bytes of tensor `name`."""
        tensor = self._find(name)
        digest = hashlib.blake2b(f"{tensor.dtype} {list(tensor.shape)}\n".encode(), digest_size=32)
        for block in _blocks(tensor):
            digest.update(block)
        return digest.hexdigest()

    def _find(self, name: str) -> StoredTensor:
        tensor = self._tensors.get(name)
        if tensor is None:
            raise AntiphonError(
                f"{self.path}: tensor {name} is missing; "
                "use a complete checkpoint whose config.json belongs to its weights."
            )
        return tensor


def _blocks(tensor: StoredTensor) -> Iterator[memoryview]:
    """Yield the stored bytes of `tensor` in blocks of whole values. A block is valid until the next one."""
    block = memoryview(bytearray(min(BLOCK_BYTES, tensor.end - tensor.begin)))
    try:
        with open(tensor.shard, "rb") as file:
            position = file.seek(tensor.begin)
            while position < tensor.end:
                wanted = block[: min(len(block), tensor.end - position)]
                if file.readinto(wanted) < len(wanted):
                    raise AntiphonError(
                        f"{tensor.shard} ended while it was being read; "
                        f"something shortened the file, {REPAIR}."
                    )
                position += len(wanted)
                yield wanted
    except OSError as error:
        raise AntiphonError(
            f"{tensor.shard} cannot be read ({error.strerror or error}); make it readable or {REPAIR}."
        ) from None
