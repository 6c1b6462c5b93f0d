"""Cases of Attention: the NumPy reference extended to the fused forms, and small calls of every program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import ml_dtypes
import numpy as np

from ...runtime.kernels.contract import Program
from ..tools.case import Case, rounded
from .programs import PAGE
from .reference import attention

TOLERANCES = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 8e-3}
LARGEST_E4M3 = 448.0


def fused_attention(
    inputs: Mapping[str, np.ndarray], num_heads: int, kv_num_heads: int
) -> dict[str, np.ndarray]:
    """The outputs y, present_key and present_value of a program, by name, computed in float64.

    Extends reference.attention by a page table, the scales of an FP8 cache (uint8 bits; new rows attend with
    their stored values) and an output gate.
    """
    past_length, query_length, table = inputs["past_length"], inputs["query_length"], inputs.get("page_table")
    outputs: dict[str, np.ndarray] = {}
    # Decoded new rows and cache, as attention sees them; the cache is [batch, kv_heads, capacity, dim].
    attended: dict[str, np.ndarray] = {}
    for name in ("key", "value"):
        cache, scale = inputs[f"past_{name}"].copy(), inputs.get(f"{name}_scale")
        new = inputs[name].reshape(*inputs[name].shape[:2], kv_num_heads, cache.shape[-1])
        head_scale = None if scale is None else _per_head(scale, kv_num_heads)[:, None]
        if head_scale is not None:
            # In float32 as in the kernels; float64 would round differently.
            new = encoded(new.astype(np.float32) / head_scale)
        _write(cache, new, past_length, query_length, table)
        outputs[f"present_{name}"] = cache
        whole = cache if table is None else _gathered(cache, table)
        if head_scale is not None:
            new, whole = decoded(new) * head_scale, decoded(whole) * head_scale[..., None]
        attended |= {name: new.reshape(inputs[name].shape), f"past_{name}": whole}
    y, _, _ = attention(
        inputs["query"],
        attended["key"],
        attended["value"],
        attended["past_key"],
        attended["past_value"],
        past_length,
        query_length,
        num_heads,
        kv_num_heads,
    )
    if "gate" in inputs:
        y = y / (1 + np.exp(-inputs["gate"]))
    return {"y": y, **outputs}


def encoded(values: np.ndarray) -> np.ndarray:
    """float8_e4m3fn bits of `values`, to nearest even, saturated."""
    return np.clip(values, -LARGEST_E4M3, LARGEST_E4M3).astype(ml_dtypes.float8_e4m3fn).view(np.uint8)


def decoded(bits: np.ndarray) -> np.ndarray:
    return bits.view(ml_dtypes.float8_e4m3fn).astype(np.float64)


def make_inputs(
    program: Program,
    rng: np.random.Generator,
    past: Sequence[int],
    lengths: Sequence[int],
    tokens: int,
    capacity: int,
    heads: tuple[int, int],
    garbage: float = np.nan,
    scales: int = 1,
) -> dict[str, np.ndarray]:
    """Inputs of `program`. Cache rows that were never written hold `garbage`.

    Pages are in random order, among pages that belong to no stream.
    """
    num_heads, kv_heads = heads
    dtypes = {spec.name: spec.dtype for spec in program.inputs}
    batch, dim = len(past), int(program.tensor("past_key").shape[-1])
    made: dict[str, np.ndarray] = {
        name: rounded(rng.normal(size=(batch, tokens, count * dim)), dtypes[name])
        for name, count in (("query", num_heads), ("key", kv_heads), ("value", kv_heads), ("gate", num_heads))
        if name in dtypes
    }
    made |= {"past_length": np.array(past, np.int64), "query_length": np.array(lengths, np.int64)}
    for name in ("key_scale", "value_scale"):
        if name in dtypes:
            # Some rows saturate: 448 times the smallest scale is 1.8.
            made[name] = rng.uniform(0.004, 0.02, scales).astype(np.float32)
    written = np.arange(capacity)[None, None, :, None] < made["past_length"][:, None, None, None]
    table = (
        rng.permutation(batch * (capacity // PAGE) + 3)[: batch * (capacity // PAGE)]
        .reshape(batch, capacity // PAGE)
        .astype(np.int32)
    )
    for name in ("past_key", "past_value"):
        rows = rng.normal(size=(batch, kv_heads, capacity, dim))
        if dtypes[name] == "float8_e4m3fn":
            bits = encoded(
                rows / _per_head(made[name.replace("past", "")[1:] + "_scale"], kv_heads)[:, None, None]
            )
            cache = np.where(written, bits, np.uint8(0x7F if np.isnan(garbage) else 0x7E))
        else:
            cache = np.where(written, rounded(rows, dtypes[name]), garbage)
        if "page_table" in dtypes:
            pages = np.full(
                (table.size + 3, kv_heads, PAGE, dim),
                garbage if cache.dtype != np.uint8 else 0x7F,
                cache.dtype,
            )
            pages[table] = cache.reshape(batch, kv_heads, capacity // PAGE, PAGE, dim).swapaxes(1, 2)
            made |= {name: pages, "page_table": table}
        else:
            made[name] = cache
    return made


def cases(program: Program, rng: np.random.Generator) -> Iterator[Case]:
    """Ragged batches at the regime's edges, with entries without rows or past.

    Every other cache holds NaN after its rows.
    """
    regime = program.name.rsplit("-", 1)[1]
    unit = PAGE if "page_table" in {spec.name for spec in program.inputs} else 1
    calls: dict[str, list[tuple[str, list[int], list[int], int, tuple[int, int]]]] = {
        "short": [
            ("ragged", [0, 5, 30, 60], [2, 0, 1, 2], 67, (8, 2)),
            ("full", [126], [2], 128, (2, 2)),
            ("first", [0], [1], 1, (1, 1)),
        ],
        "decode": [
            ("ragged", [0, 255, 63], [1, 1, 0], 256, (2, 1)),
            ("runs", [190], [3], 193, (6, 1)),
            ("first", [0], [1], 1, (2, 2)),
        ],
        "chunk": [("one", [499], [11], 512, (3, 1)), ("first", [0], [1], 1, (1, 1))],
        "prefill": [
            ("empty", [0, 0], [44, 9], 45, (4, 2)),
            ("chunked", [91, 30], [15, 17], 131, (4, 1)),
            ("first", [0], [1], 1, (1, 1)),
        ],
    }
    for index, (name, past, lengths, capacity, heads) in enumerate(calls[regime]):
        garbage = 3.0 if index % 2 else np.nan
        inputs = make_inputs(
            program,
            rng,
            past,
            lengths,
            max(lengths),
            -(-capacity // unit) * unit,
            heads,
            garbage,
            heads[1] if index % 2 else 1,
        )
        yield case(program, name, inputs, heads)


def case(program: Program, name: str, inputs: Mapping[str, np.ndarray], heads: tuple[int, int]) -> Case:
    """One call. The cache is compared only where all of it is finite."""

    def expected() -> dict[str, np.ndarray]:
        outputs = fused_attention(inputs, *heads)
        return {key: value for key, value in outputs.items() if np.isfinite(value).all()}

    return Case(
        name,
        program,
        inputs,
        {"num_heads": heads[0], "kv_num_heads": heads[1]},
        expected,
        TOLERANCES[program.tensor("query").dtype],
    )


def _per_head(scale: np.ndarray, kv_heads: int) -> np.ndarray:
    return np.repeat(scale, kv_heads // len(scale))


def _write(
    cache: np.ndarray,
    new: np.ndarray,
    past_length: np.ndarray,
    query_length: np.ndarray,
    table: np.ndarray | None,
) -> None:
    for entry, (past, length) in enumerate(zip(past_length, query_length, strict=True)):
        for t, slot in enumerate(range(past, past + length)):
            if table is None:
                cache[entry, :, slot] = new[entry, t]
            else:
                cache[table[entry, slot // PAGE], :, slot % PAGE] = new[entry, t]


def _gathered(pages: np.ndarray, table: np.ndarray) -> np.ndarray:
    batch = len(table)
    # [batch, kv_heads, capacity, dim]
    return pages[table].swapaxes(1, 2).reshape(batch, pages.shape[1], -1, pages.shape[-1])
