"""Helpers of the attention kernels: cache tiles, eight-bit numbers, online softmax over cache rows."""

import triton
import triton.language as tl


@triton.jit
def encode_e4m3(x):
    """The bits of float8_e4m3fn for float32, rounded to nearest even, saturated at 448.

    Integer arithmetic, because sm80 and sm86 have no such conversion.
    """
    bits = x.to(tl.int32, bitcast=True)
    magnitude = bits & 0x7FFFFFFF
    normal = ((magnitude + 0x7FFFF + ((magnitude >> 20) & 1)) >> 20) - ((127 - 7) << 3)
    # Numbers near 2^14 have a spacing of 2^-9, so the sum rounds to the code.
    subnormal = (tl.abs(x) + 16384.0).to(tl.int32, bitcast=True) - 0x46800000
    code = tl.where(magnitude < 0x3C800000, subnormal, tl.minimum(normal, 0x7E))
    code = tl.where(magnitude > 0x7F800000, 0x7F, code)
    return (((bits >> 24) & 0x80) | code).to(tl.uint8)


@triton.jit
def decode_e4m3(bits):
    """The number of float8_e4m3fn bits divided by 256, exact, as float16, in three integer operations.

    The caller multiplies a scale by 256.
    """
    wide = bits.to(tl.int16)
    return (((wide & 0x80) << 8) | ((wide & 0x7F) << 7)).to(tl.float16, bitcast=True)


@triton.jit
def head_rows(cache_ptr, entry, head, kv_heads, capacity, DIM: tl.constexpr, PAGE: tl.constexpr):
    """Pointer to the first row of a head, in its batch entry or in page 0."""
    if PAGE > 0:
        return cache_ptr + head.to(tl.int64) * PAGE * DIM
    else:
        return cache_ptr + (entry.to(tl.int64) * kv_heads + head) * capacity * DIM


@triton.jit
def load_tile(
    rows_ptr,
    page_table_ptr,
    kv_heads,
    start,
    valid,
    DIM: tl.constexpr,
    COLUMNS: tl.constexpr,
    PAGE: tl.constexpr,
    MASKED: tl.constexpr,
):
    """Cache rows start .. start + COLUMNS of one head as [COLUMNS, DIM].

    Rows from `valid` on may hold any bits; MASKED makes them zero. COLUMNS divides PAGE, so a tile lies in
    one page and needs one table lookup. Offsets within a head fit in 32 bits.
    """
    if PAGE > 0:
        page = tl.load(page_table_ptr + start // PAGE).to(tl.int64)
        tile_ptr = rows_ptr + (page * kv_heads * PAGE + start % PAGE) * DIM
    else:
        tile_ptr = rows_ptr + start * DIM
    place = tl.arange(0, COLUMNS)[:, None]
    pointers = tile_ptr + place * DIM + tl.arange(0, DIM)[None, :]
    if MASKED:
        tile = tl.load(pointers, mask=start + place < valid, other=0)
    else:
        tile = tl.load(pointers)
    if rows_ptr.dtype.element_ty == tl.uint8:
        return decode_e4m3(tile)
    else:
        return tile


@triton.jit
def attend_run(
    query,
    scale,
    last_visible,
    first,
    end,
    valid,
    keys_ptr,
    values_ptr,
    page_table_ptr,
    kv_heads,
    best,
    total,
    weighted,
    DIM: tl.constexpr,
    COLUMNS: tl.constexpr,
    PAGE: tl.constexpr,
    MASKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Continue the online softmax (best, total, weighted) over cache rows first .. end.

    best is the largest score so far in units of log2, total the sum of 2^(score - best), weighted the sum of
    the values with these weights. Row i sees columns up to last_visible[i]; without MASKED every row sees all
    of them.
    """
    for start in range(first, end, COLUMNS):
        keys = load_tile(keys_ptr, page_table_ptr, kv_heads, start, valid, DIM, COLUMNS, PAGE, MASKED)
        scores = tl.dot(query, tl.trans(keys), input_precision=PRECISION)
        if MASKED:
            scores = tl.where(
                start + tl.arange(0, COLUMNS)[None, :] <= last_visible[:, None], scores, float("-inf")
            )
        larger = tl.maximum(best, tl.max(scores, 1) * scale)
        weights = tl.exp2(scores * tl.expand_dims(scale, 1) - larger[:, None])
        shrink = tl.exp2(best - larger)
        total = total * shrink + tl.sum(weights, 1)
        values = load_tile(values_ptr, page_table_ptr, kv_heads, start, valid, DIM, COLUMNS, PAGE, MASKED)
        weighted = tl.dot(
            weights.to(values.dtype), values, weighted * shrink[:, None], input_precision=PRECISION
        )
        best = larger
    return best, total, weighted


@triton.jit
def load_query(
    query_ptr,
    key_scale_ptr,
    entry,
    head,
    kv_heads,
    scales,
    tokens,
    group,
    row,
    SCALE: tl.constexpr,
    DIM: tl.constexpr,
):
    """The packed query rows [rows, DIM] of one key head, and the scales of their scores [rows].

    Row = token * group + member. The scales turn scores into exponents of two. Eight-bit keys arrive as
    float16, so the query becomes float16 too: each row is divided by a power of two, so that any bfloat16
    fits.
    """
    rows_ptr = entry_rows(query_ptr, entry, tokens, kv_heads, group, DIM)
    found = tl.load(
        rows_ptr + query_places(head, kv_heads, group, row, DIM),
        mask=(row < tokens * group)[:, None],
        other=0,
    )
    if key_scale_ptr is not None:
        exact = found.to(tl.float32)
        unit = (tl.max(tl.abs(exact), 1).to(tl.int32, bitcast=True) & 0x7F800000).to(tl.float32, bitcast=True)
        unit = tl.where(unit > 0, unit, 1.0)
        query = (exact / unit[:, None]).to(tl.float16)
        scale = unit * (tl.load(key_scale_ptr + head * scales // kv_heads) * (256.0 * SCALE))
    else:
        query = found
        scale = tl.full([row.shape[0]], SCALE, tl.float32)
    return query, scale


@triton.jit
def entry_rows(tensor_ptr, entry, tokens, kv_heads, group, DIM: tl.constexpr):
    """Pointer to the first element of an entry in a tensor [batch, tokens, kv_heads * group * DIM]."""
    return tensor_ptr + entry.to(tl.int64) * tokens * kv_heads * group * DIM


@triton.jit
def query_places(head, kv_heads, group, row, DIM: tl.constexpr):
    """Offsets [rows, DIM] of packed rows from `entry_rows`.

    32 bits suffice up to 2^31 elements per entry, for example 262,144 tokens of 4,096.
    """
    line = (row // group * kv_heads + head) * group + row % group
    return line[:, None] * DIM + tl.arange(0, DIM)[None, :]
