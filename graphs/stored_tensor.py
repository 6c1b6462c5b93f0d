"""Where one tensor of a checkpoint lies, whatever the format of its file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ITEM_BYTES = {"BF16": 2, "F16": 2, "F32": 4, "F64": 8, "I64": 8, "I32": 4, "BOOL": 1}
"""Bytes per value of the supported dtypes, named as safetensors names them."""


@dataclass(frozen=True)
class StoredTensor:
    """`begin` and `end` are byte positions in the file `shard`; the values lie between them little-endian and in row-major order."""

    shard: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int
