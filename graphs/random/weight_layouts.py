"""Stored layouts of a model: which drawn tensors make a stored tensor, and in what order."""

from __future__ import annotations

from collections.abc import Iterable

from .initializers import Tensor
from .writer import Entry

EXPERTS = ("per_expert", "fused")
LINEAR = ("fused", "split")
_INSIDE = ".linear_attn.in_proj."
_SPLIT = {
    "q": "in_proj_qkv",
    "k": "in_proj_qkv",
    "v": "in_proj_qkv",
    "z": "in_proj_z",
    "b": "in_proj_b",
    "a": "in_proj_a",
}
_FUSED = {
    "q": "in_proj_qkvz",
    "k": "in_proj_qkvz",
    "v": "in_proj_qkvz",
    "z": "in_proj_qkvz",
    "b": "in_proj_ba",
    "a": "in_proj_ba",
}


def arrange(tensors: Iterable[Tensor], dtype: str, experts: str, linear: str) -> list[Entry]:
    """The stored tensors for `tensors`, in the layouts `experts` (of EXPERTS) and `linear` (of LINEAR).

    `dtype` applies to tensors without a dtype of their own.
    experts fused: `experts.gate_up_proj` [E, 2I, H] (gate rows, then up rows) and `experts.down_proj`
    [E, H, I], as in transformers v5.
    linear fused: rows (q, k, v, z and b, a) grouped by key head, as in Qwen3-Next and Qwen3.5-Omni.
    linear split: as in Qwen3.5.
    """
    entries: list[Entry] = []
    groups: dict[str, list[Tensor]] = {}
    for tensor in tensors:
        if experts == "fused" and ".mlp.experts." in tensor.name:
            prefix, _, rest = tensor.name.partition(".mlp.experts.")
            groups.setdefault(
                f"{prefix}.mlp.experts.{'down_proj' if 'down_proj' in rest else 'gate_up_proj'}", []
            ).append(tensor)
        elif _INSIDE in tensor.name:
            prefix, _, rest = tensor.name.partition(_INSIDE)
            names = _FUSED if linear == "fused" else _SPLIT
            groups.setdefault(f"{prefix}.linear_attn.{names[rest[0]]}.weight", []).append(tensor)
        else:
            entries.append(Entry(tensor.name, tensor.shape, (tensor,), tensor.dtype or dtype))
    for name, parts in groups.items():
        if ".linear_attn." in name:
            entries.append(
                _stacked(name, sorted(parts, key=_key_head) if linear == "fused" else parts, dtype)
            )
        else:
            rows, columns = parts[0].shape
            shape = (
                (len(parts), rows, columns)
                if name.endswith("down_proj")
                else (len(parts) // 2, 2 * rows, columns)
            )
            entries.append(Entry(name, shape, tuple(parts), dtype))
    return entries


def _key_head(tensor: Tensor) -> int:
    return int(tensor.name.rpartition(".")[2])


def _stacked(name: str, parts: list[Tensor], dtype: str) -> Entry:
    return Entry(name, (sum(part.shape[0] for part in parts), parts[0].shape[1]), tuple(parts), dtype)
