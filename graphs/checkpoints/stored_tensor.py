"""Where one tensor of a checkpoint lies, whatever the format of its file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

ITEM_BYTES = {"BF16": 2, "F16": 2, "F32": 4, "F64": 8, "I64": 8, "I32": 4, "BOOL": 1}
"""Bytes per value of the supported dtypes, named as safetensors names them."""

MOST_AXES = 16
LARGEST_SIZE = 2**63 - 1


def is_shape(sizes: Any) -> bool:
    """Whether `sizes` are those of a tensor: a few integers of at least 0, whose product takes no time."""
    return len(sizes) <= MOST_AXES and all(type(size) is int and 0 <= size <= LARGEST_SIZE for size in sizes)


@dataclass(frozen=True)
class StoredTensor:
    """`begin` and `end` are byte positions in the file `shard`; the values lie between them little-endian and in row-major order."""

    shard: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int
