"""Benchmarks of Attention on a GPU: decode at three context lengths, and prefill, for both model families."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..tools.benchmark import Benchmark

if TYPE_CHECKING:
    import torch

HEADS = {"thinker": (32, 4, 128), "gated": (16, 2, 256)}
"""Query heads, key heads and head size: Qwen3-Omni-30B's Thinker, and the gated attention of Qwen3.5."""


def benchmarks() -> list[Benchmark]:
    """Decode at 4,096, 32,768 and 262,144 rows of context, each with a bfloat16 and an FP8 cache.

    Also prefill of 4,096 tokens, and a chunk of 64 tokens after 32,704.
    """
    contexts = {"4k": 4096, "32k": 32768, "256k": 262144}
    decodes = [
        _benchmark(f"{model}-decode-{size}", model, context - 1, 1)
        for model in HEADS
        for size, context in contexts.items()
    ]
    eight_bit = [
        _benchmark(f"thinker-eight-bit-decode-{size}", "thinker", context - 1, 1, eight_bit=True)
        for size, context in contexts.items()
    ]
    prefills = [_benchmark(f"{model}-prefill-4k", model, 0, 4096) for model in HEADS]
    return [*decodes, *eight_bit, _benchmark("thinker-chunk-64-32k", "thinker", 32704, 64), *prefills]


def _benchmark(name: str, model: str, past: int, tokens: int, eight_bit: bool = False) -> Benchmark:
    heads, kv_heads, dim = HEADS[model]
    context = past + tokens
    pairs = sum(past + t + 1 for t in range(tokens))
    return Benchmark(
        name=name,
        op="Attention",
        attributes={"num_heads": heads, "kv_num_heads": kv_heads},
        make=lambda generator: _make(
            generator, heads, kv_heads, dim, past, tokens, eight_bit, gated=model == "gated"
        ),
        eager=_eager,
        # keys and values of the context, the query, y, and the gate where there is one
        bytes_moved=2 * context * kv_heads * dim * (1 if eight_bit else 2)
        + (3 if model == "gated" else 2) * tokens * heads * dim * 2,
        operations=4 * pairs * heads * dim,
        aim="80 % of the memory bandwidth" if tokens == 1 and context >= 32768 else "",
    )


def _make(
    generator: torch.Generator,
    heads: int,
    kv_heads: int,
    dim: int,
    past: int,
    tokens: int,
    eight_bit: bool,
    gated: bool,
) -> Mapping[str, torch.Tensor]:
    import torch

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=generator.device, dtype=torch.bfloat16)

    cache = (1, kv_heads, past + tokens, dim)
    made = {
        "query": normal(1, tokens, heads * dim),
        "key": normal(1, tokens, kv_heads * dim),
        "value": normal(1, tokens, kv_heads * dim),
    }
    for name in ("past_key", "past_value"):
        made[name] = (normal(*cache) * 100).to(torch.float8_e4m3fn) if eight_bit else normal(*cache)
    made |= {
        name: torch.full((1,), length, dtype=torch.int64, device=generator.device)
        for name, length in (("past_length", past), ("query_length", tokens))
    }
    if eight_bit:
        made |= {
            name: torch.full((1,), 0.01, device=generator.device) for name in ("key_scale", "value_scale")
        }
    return made | ({"gate": normal(1, tokens, heads * dim)} if gated else {})


def _eager(inputs: Mapping[str, torch.Tensor], attributes: Mapping[str, int]) -> Any:
    """Write the new rows, then run PyTorch's attention on the cache.

    An FP8 cache is first converted to bfloat16, because PyTorch cannot attend to FP8. The cache is full to
    its last row, so no length is read on the host.
    """
    import torch

    query, keys, values = inputs["query"], inputs["past_key"], inputs["past_value"]
    (batch, tokens, _), (_, kv_heads, capacity, dim) = query.shape, keys.shape
    past = capacity - tokens
    for name, cache in (("key", keys), ("value", values)):
        new = inputs[name].view(batch, tokens, kv_heads, dim).transpose(1, 2)
        scale = inputs.get(f"{name}_scale")
        cache[:, :, past:] = (new if scale is None else new / scale).to(cache.dtype)
    if "key_scale" in inputs:
        keys, values = (
            (cache.to(query.dtype) * inputs[scale].to(query.dtype))
            for cache, scale in ((keys, "key_scale"), (values, "value_scale"))
        )
    heads = query.view(batch, tokens, attributes["num_heads"], dim).transpose(1, 2)
    visible = None
    if tokens > 1 and past:
        visible = (
            torch.arange(capacity, device=query.device)
            <= past + torch.arange(tokens, device=query.device)[:, None]
        )
    y = torch.nn.functional.scaled_dot_product_attention(
        heads, keys, values, visible, is_causal=tokens > 1 and not past, enable_gqa=True
    )
    y = y.transpose(1, 2).reshape(query.shape)
    return y * torch.sigmoid(inputs["gate"]) if "gate" in inputs else y
