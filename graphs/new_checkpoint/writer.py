"""Streaming safetensors shards: the header is known from the shapes, so every tensor is written as soon as it is drawn."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .random_values import encode, values
from .tensors import Tensor

CODES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
SHARD_BYTES = 2**30


@dataclass(frozen=True)
class Entry:
    """One stored tensor: `parts` are drawn and written one after the other (a fused expert tensor is all experts in order)."""

    name: str
    shape: tuple[int, ...]
    parts: tuple[Tensor, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def per_expert(tensors: Iterator[Tensor]) -> list[Entry]:
    """Every tensor by itself: the published layout."""
    return [Entry(tensor.name, tensor.shape, (tensor,)) for tensor in tensors]


def fused(tensors: Iterator[Tensor]) -> list[Entry]:
    """Experts joined to `experts.gate_up_proj` [E, 2I, H] (gate rows, then up rows) and `experts.down_proj` [E, H, I], as transformers v5 holds them."""
    entries: list[Entry] = []
    groups: dict[str, list[Tensor]] = {}
    for tensor in tensors:
        prefix, experts, rest = tensor.name.partition(".mlp.experts.")
        if not experts:
            entries.append(Entry(tensor.name, tensor.shape, (tensor,)))
            continue
        kind = "down_proj" if "down_proj" in rest else "gate_up_proj"
        groups.setdefault(f"{prefix}.mlp.experts.{kind}", []).append(tensor)
    for name, parts in groups.items():
        rows, columns = parts[0].shape
        shape = (len(parts), rows, columns) if name.endswith("down_proj") else (len(parts) // 2, 2 * rows, columns)
        entries.append(Entry(name, shape, tuple(parts)))
    return entries


def write(folder: Path, entries: list[Entry], dtype: str, seed: int, on_progress: Callable[[int, int], None] | None = None) -> None:
    """Write at least two shards of about 1 GiB and `model.safetensors.index.json` into `folder`.

    One tensor at a time is held in memory. `on_progress` gets (bytes written, bytes in all) after every tensor.
    """
    width = 4 if dtype == "float32" else 2
    total = width * sum(entry.size for entry in entries)
    # Two shards even for the smallest, so that everyone reads the sharded form.
    count = max(2, math.ceil(total / SHARD_BYTES))
    shards: list[list[Entry]] = [[] for _ in range(count)]
    offset = 0
    for entry in entries:
        shards[offset * count // total].append(entry)
        offset += width * entry.size
    index: dict[str, str] = {}
    written = 0
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{count:05d}.safetensors"
        with open(folder / name, "wb") as file:
            file.write(_header(shard, dtype, width))
            for entry in shard:
                index[entry.name] = name
                for part in entry.parts:
                    file.write(encode(values(part, seed), dtype))
                written += width * entry.size
                if on_progress:
                    on_progress(written, total)
    content = {"metadata": {"total_size": total}, "weight_map": dict(sorted(index.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _header(shard: list[Entry], dtype: str, width: int) -> bytes:
    """The length-prefixed JSON header, padded with spaces to 8 bytes as the format asks for aligned data."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for entry in shard:
        end = offset + width * entry.size
        header[entry.name] = {"dtype": CODES[dtype], "shape": list(entry.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
