"""The position of one tensor in a checkpoint file of any format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

ITEM_BYTES = {"BF16": 2, "F16": 2, "F32": 4, "F64": 8, "I64": 8, "I32": 4, "BOOL": 1}
"""Bytes per value of the supported dtypes, named as safetensors names them."""

MOST_AXES = 16
LARGEST_SIZE = 2**63 - 1


def is_shape(sizes: Any) -> bool:
    """Whether `sizes` is a supported shape: at most MOST_AXES integers in 0 .. LARGEST_SIZE."""
    return len(sizes) <= MOST_AXES and all(type(size) is int and 0 <= size <= LARGEST_SIZE for size in sizes)


@dataclass(frozen=True)
class StoredTensor:
    """One tensor: the bytes `begin` to `end` of the file `shard`, little-endian and row-major."""

    shard: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int
