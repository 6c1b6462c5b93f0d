"""The GPU programs of Attention: write the new rows into the cache, then attend in one of four regimes.

short (few rows, a cache of at most 128): a block per run of 16 packed rows, over the whole context. decode
(few rows): blocks share the context, 16 packed rows each. chunk (too few rows to fill the GPU in prefill):
blocks share the context, 64 packed rows each. prefill: a block per run of rows, over the whole context.

| cache        | dtypes            | head sizes    | gate        | regimes                              |
|--------------|-------------------|---------------|-------------|--------------------------------------|
| contiguous   | bfloat16          | 64            | no          | decode, prefill                      |
| contiguous   | bfloat16          | 128, 256      | yes         | short, decode, chunk, prefill        |
| contiguous   | float16           | 64, 128, 256  | at 256      | decode, prefill                      |
| contiguous   | float32           | 64, 128, 256  | at 256      | prefill, for all rows                |
| pages of 64  | bfloat16, float16 | 128, 256      | bfloat16    | decode, prefill; bfloat16 also chunk |
| FP8          | bfloat16 queries  | 128, 256      | yes         | decode, chunk, prefill               |
| FP8 in pages | bfloat16 queries  | 128, 256      | yes         | decode, chunk, prefill               |

An FP8 cache adds the inputs key_scale and value_scale float32 [scales], one for all key heads or one per key
head: stored = value / scale, rounded to nearest even, at most 448. Pages add page_table int32 [batch,
pages_per_stream]: the page of past_key [pages, kv_heads, 64, dim] for each 64 rows. A gate has the shape of
query; its sigmoid scales y.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ...runtime.kernels.contract import MAX_SHARED_BYTES, Launch, Operand, Program, Scalar

PAGE = 64
"""Rows of a page."""
_BLOCKS = {"sm80": 216, "sm86": 168, "sm89": 256, "sm90": 264, "sm100": 296, "sm120": 340}
"""The target number of blocks for a split context: two per multiprocessor of the target's usual GPU."""
_SPLIT_ROWS = {"decode": 16, "chunk": 64}
_SPLITS = 128
"""Shares that the combining launch reads in one step: usually all of them."""


@dataclass(frozen=True)
class _Form:
    """The properties that the programs of one row of the table share."""

    dtype: str
    dim: int
    eight_bit: bool = False
    paged: bool = False
    gated: bool = False

    @property
    def name(self) -> str:
        parts = (
            self.dtype,
            str(self.dim),
            "eight-bit" * self.eight_bit,
            "paged" * self.paged,
            "gated" * self.gated,
        )
        return "-".join(part for part in parts if part)

    @property
    def suffix(self) -> str:
        """Suffix of the kernels that read or write the cache."""
        return "_eight_bit" * self.eight_bit + "_paged" * self.paged

    @property
    def further(self) -> tuple[str, ...]:
        """Inputs of those kernels after the lengths."""
        return ("key_scale", "value_scale") * self.eight_bit + ("page_table",) * self.paged


def programs(target: str) -> list[Program]:
    """The programs of the table above; of each form the most specific regime first."""
    return [_program(target, form, regime) for form in _forms() for regime in _regimes(form)]


def _forms() -> Iterator[_Form]:
    for gated in (False, True):
        for dim in (128, 256) if gated else (64, 128, 256):
            for dtype in ("bfloat16", "float16", "float32"):
                if dtype == "bfloat16" or not gated or dim == 256:
                    yield _Form(dtype, dim, gated=gated)
        for dim in (128, 256):
            yield _Form("bfloat16", dim, paged=True, gated=gated)
            if not gated:
                yield _Form("float16", dim, paged=True)
            yield from (
                _Form("bfloat16", dim, eight_bit=True, paged=paged, gated=gated) for paged in (False, True)
            )


def _regimes(form: _Form) -> tuple[str, ...]:
    if form.dtype == "float32":
        return ("prefill",)
    if form.dtype == "float16" or form.dim == 64:
        return ("decode", "prefill")
    return (
        ("decode", "chunk", "prefill")
        if form.eight_bit or form.paged
        else ("short", "decode", "chunk", "prefill")
    )


def _program(target: str, form: _Form, regime: str) -> Program:
    dtype, dim = form.dtype, str(form.dim)
    cache = "float8_e4m3fn" if form.eight_bit else dtype
    cache_shape = (
        ("pages", "kv_num_heads", str(PAGE), dim)
        if form.paged
        else ("batch", "kv_num_heads", "capacity", dim)
    )
    wide, narrow = ("batch", "tokens", f"num_heads * {dim}"), ("batch", "tokens", f"kv_num_heads * {dim}")
    further = {
        "key_scale": Operand("key_scale", "float32", ("scales",)),
        "value_scale": Operand("value_scale", "float32", ("scales",)),
        "page_table": Operand("page_table", "int32", ("batch", "pages_per_stream")),
    }
    launches, scratch = (
        _split(target, form, regime) if regime in _SPLIT_ROWS else _whole(target, form, regime)
    )
    fits = [
        "num_heads % kv_num_heads == 0",
        *(["kv_num_heads % scales == 0"] if form.eight_bit else []),
        *_when(target, regime),
    ]
    return Program(
        op="Attention",
        name=f"{form.name}-{regime}",
        inputs=(
            Operand("query", dtype, wide),
            Operand("key", dtype, narrow),
            Operand("value", dtype, narrow),
            Operand("past_key", cache, cache_shape),
            Operand("past_value", cache, cache_shape),
            Operand("past_length", "int64", ("batch",)),
            Operand("query_length", "int64", ("batch",)),
            *(further[name] for name in form.further),
            *((Operand("gate", dtype, wide),) * form.gated),
        ),
        outputs=(
            Operand("y", dtype, wide),
            Operand("present_key", cache, cache_shape, alias="past_key"),
            Operand("present_value", cache, cache_shape, alias="past_value"),
        ),
        launches=(_write(form), *launches),
        attributes=("num_heads", "kv_num_heads"),
        symbols={
            "group": "num_heads // kv_num_heads",
            "rows": "tokens * group",
            **({"capacity": f"pages_per_stream * {PAGE}"} if form.paged else {}),
        }
        | ({"splits": _splits(target, regime)} if regime in _SPLIT_ROWS else {}),
        scratch=scratch,
        when=" and ".join(fits),
    )


def _when(target: str, regime: str) -> list[str]:
    """The conditions of a regime; a call that fails them falls through to the later, more general regimes."""
    return {
        "short": ["rows <= 32", "capacity <= 128"],
        "decode": ["rows <= 32"],
        "chunk": [f"ceil_div(rows, 64) * kv_num_heads * batch <= {_BLOCKS[target] // 4}", "capacity >= 512"],
        "prefill": [],
    }[regime]


def _splits(target: str, regime: str) -> str:
    """The number of splits: two blocks per multiprocessor, and at least 128 rows of a full cache per share.

    Smaller shares cost more than their rows. A call may be empty.
    """
    return (
        f"min(ceil_div(capacity, 128), ceil_div({_BLOCKS[target]}, max(1, "
        f"ceil_div(rows, {_SPLIT_ROWS[regime]}) * kv_num_heads * batch)))"
    )


def _scalars(form: _Form, *names: str) -> tuple[Scalar, ...]:
    values = {"kv_heads": "kv_num_heads", "pages": "pages_per_stream"}
    last = ("scales",) * form.eight_bit + ("pages" if form.paged else "capacity",)
    return tuple(Scalar(name, values.get(name, name)) for name in (*names, *last))


def _write(form: _Form) -> Launch:
    return Launch(
        kernel=f"attention.write{form.suffix}",
        inputs=("past_key", "past_value", "key", "value", "past_length", "query_length", *form.further),
        scalars=_scalars(form, "tokens", "kv_heads"),
        outputs=("present_key", "present_value"),
        grid=("ceil_div(tokens * kv_num_heads, 8)", "batch", "1"),
        constants={"DIM": form.dim, "ROWS": 8} | ({"PAGE": PAGE} if form.paged else {}),
        stages=1,
    )


def _whole(target: str, form: _Form, regime: str) -> tuple[tuple[Launch, ...], tuple[Operand, ...]]:
    rows, columns, warps, stages = _whole_tile(target, form, regime)
    launch = Launch(
        kernel=f"attention.attend{form.suffix}{'_gated' * form.gated}",
        inputs=(
            "query",
            "present_key",
            "present_value",
            "past_length",
            "query_length",
            *form.further,
            *(("gate",) * form.gated),
        ),
        scalars=_scalars(form, "tokens", "kv_heads", "group"),
        outputs=("y",),
        grid=(f"ceil_div(rows, {rows})", "kv_num_heads", "batch"),
        constants={**_tile(form, rows, columns), "PRECISION": "ieee" if form.dtype == "float32" else "tf32"},
        warps=warps,
        stages=stages,
        hot=form.dtype != "float32",
    )
    return (launch,), ()


def _split(target: str, form: _Form, regime: str) -> tuple[tuple[Launch, ...], tuple[Operand, ...]]:
    rows = _SPLIT_ROWS[regime]
    columns, warps, stages = _split_tile(target, form, regime)
    share = Launch(
        kernel=f"attention.split{form.suffix}",
        inputs=("query", "present_key", "present_value", "past_length", "query_length", *form.further),
        scalars=(*_scalars(form, "tokens", "kv_heads", "group"), Scalar("splits", "splits")),
        outputs=("partial", "level"),
        grid=(f"ceil_div(rows, {rows}) * splits", "kv_num_heads", "batch"),
        constants=_tile(form, rows, columns),
        warps=warps,
        stages=stages,
    )
    # Four blocks per row at 128 and 256: one stream's rows already occupy most multiprocessors.
    lanes = max(32, form.dim // 4)
    combine = Launch(
        kernel=f"attention.combine{'_gated' * form.gated}",
        inputs=("partial", "level", *(("gate",) * form.gated)),
        scalars=tuple(
            Scalar(name, value)
            for name, value in (
                ("tokens", "tokens"),
                ("kv_heads", "kv_num_heads"),
                ("group", "group"),
                ("splits", "splits"),
            )
        ),
        outputs=("y",),
        grid=("tokens * num_heads", str(form.dim // lanes), "batch"),
        constants={"DIM": form.dim, "LANES": lanes, "SPLITS": _SPLITS},
        warps=8,
        stages=1,
    )
    shape = ("batch", "splits", "kv_num_heads", "rows")
    return (share, combine), (
        Operand("partial", "float32", (*shape, str(form.dim))),
        Operand("level", "float32", shape),
    )


def _tile(form: _Form, rows: int, columns: int) -> dict[str, int | float | bool | str]:
    scale = math.log2(math.e) / math.sqrt(form.dim)  # the softmax uses powers of two
    return {
        "DIM": form.dim,
        "ROWS": rows,
        "COLUMNS": columns,
        **({"PAGE": PAGE} if form.paged else {}),
        "SCALE": scale,
    }


def _whole_tile(target: str, form: _Form, regime: str) -> tuple[int, int, int, int]:
    """Rows, columns, warps and stages.

    Rows per warp are as many as leave registers for the accumulators; columns are as many as then fit in
    shared memory.
    """
    # Their tensor cores read both tiles from shared memory, which is large.
    warpgroups = target in ("sm90", "sm100")
    if form.dtype == "float32":
        return 16, 16, 4, 1
    if regime == "short":
        return 16, 32, 8 if form.dim == 256 else 4, 2
    if form.dim == 64:
        return 64, 64, 4, 3
    if form.dim == 128:
        return 128, 64 if warpgroups else 32, 8, 3
    if form.eight_bit and target == "sm80":  # 32 decoded columns would need too many registers here
        return 64, 16, 8, 2
    return 64, 64 if warpgroups else 32, 8, 2


def _split_tile(target: str, form: _Form, regime: str) -> tuple[int, int, int]:
    """Columns, warps and stages for two blocks per multiprocessor.

    A tile is 8 or 16 KiB; two tiles of keys and two of values are in flight.
    """
    small = MAX_SHARED_BYTES[target] < 128 * 1024
    columns = min(PAGE, (4096 if small else 8192) // form.dim)
    if regime == "decode":  # half of the stages load page table entries ahead
        return columns, 4, 5 if form.paged else 3
    return (
        max(columns, 32),
        8 if form.dim == 256 or form.eight_bit else 4,
        2 if form.dim == 256 and (small or form.paged) else 3,
    )
