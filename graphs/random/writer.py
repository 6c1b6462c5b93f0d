"""Writes safetensors shards as a stream: each tensor is written as soon as it is drawn.

The header comes first; it depends only on the shapes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ..checkpoints.torch_archive import PREFIX, write_torch_archive
from .initializers import Tensor
from .random_values import encode, values

CODES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
ALL_CODES = CODES | {"int64": "I64"}
WIDTHS = {"bfloat16": 2, "float16": 2, "float32": 4, "int64": 8}
SHARD_BYTES = 2**30


@dataclass(frozen=True)
class Entry:
    """One stored tensor: its `parts` in order. The parts of a fused expert tensor are the experts."""

    name: str
    shape: tuple[int, ...]
    parts: tuple[Tensor, ...]
    dtype: str

    @property
    def bytes(self) -> int:
        """Bytes of the stored values."""
        return WIDTHS[self.dtype] * math.prod(self.shape)


class Progress:
    """Calls `report`, if given, with the bytes written so far and the bytes of all `entries`."""

    def __init__(self, entries: Iterable[Entry], report: Callable[[int, int], None] | None) -> None:
        self._report, self._written, self._total = report, 0, sum(entry.bytes for entry in entries)

    def add(self, entry: Entry) -> None:
        """Count `entry` as written."""
        self._written += entry.bytes
        if self._report:
            self._report(self._written, self._total)


def write(folder: Path, entries: list[Entry], seed: int, progress: Progress) -> None:
    """Write two or more shards of about 1 GiB and their index into `folder`; holds one tensor in memory."""
    total = sum(entry.bytes for entry in entries)
    # Even the smallest checkpoint has two shards, so that every test reads the sharded form.
    count = max(2, math.ceil(total / SHARD_BYTES))
    shards: list[list[Entry]] = [[] for _ in range(count)]
    offset = 0
    for entry in entries:
        shards[offset * count // total].append(entry)
        offset += entry.bytes
    index: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{count:05d}.safetensors"
        with open(folder / name, "wb") as file:
            file.write(_header(shard))
            for entry in shard:
                index[entry.name] = name
                for part in entry.parts:
                    file.write(encode(values(part, seed), entry.dtype))
                progress.add(entry)
    content = {"metadata": {"total_size": total}, "weight_map": dict(sorted(index.items()))}
    (folder / "model.safetensors.index.json").write_text(
        json.dumps(content, indent=2) + "\n", encoding="utf-8"
    )


def write_codec(path: Path, entries: list[Entry], seed: int, progress: Progress) -> None:
    """Write the torch archive of a codec folder. The names of `entries` lose their prefix `code2wav.`."""

    def drawn() -> Iterable[tuple[str, str, tuple[int, ...], bytes]]:
        for entry in entries:
            data = b"".join(encode(values(part, seed), entry.dtype) for part in entry.parts)
            yield PREFIX + entry.name.partition(".")[2], ALL_CODES[entry.dtype], entry.shape, data
            progress.add(entry)

    write_torch_archive(path, drawn())


def _header(shard: list[Entry]) -> bytes:
    """The length-prefixed JSON header, padded with spaces to a multiple of 8 bytes for aligned data."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for entry in shard:
        end = offset + entry.bytes
        header[entry.name] = {
            "dtype": ALL_CODES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
