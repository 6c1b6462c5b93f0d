"""Benchmarks of GatedDeltaRule at the sizes of Qwen3.5's 30B-class decoders, compared with PyTorch.

16 key heads and 32 value heads of 128, in bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..tools.benchmark import Benchmark
from .programs import CHUNK, DECODE_TOKENS
from .reference import EPSILON

if TYPE_CHECKING:
    import torch

KEY_HEADS, VALUE_HEADS, DIM = 16, 32, 128
ATTRIBUTES = {"key_heads": KEY_HEADS, "value_heads": VALUE_HEADS}


def benchmarks() -> list[Benchmark]:
    """Decode of 1 and 8 streams and prefill of 4,096 tokens, each plain and with the gated norm."""
    calls = [("decode, 1 stream", 1, 1), ("decode, 8 streams", 8, 1), ("prefill, 4096 tokens", 1, 4096)]
    return [
        _benchmark(name, batch, tokens, fused) for name, batch, tokens in calls for fused in (False, True)
    ]


def reference_kernel() -> Callable[[Mapping[str, torch.Tensor], Mapping[str, int]], Any] | None:
    """The flash-linear-attention kernel of the plain op with its gates, or None if it is not installed.

    The result is a function of inputs and attributes.
    """
    if find_spec("fla") is None:
        return None
    import torch

    # optional
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule, fused_recurrent_gated_delta_rule  # type: ignore[import-not-found]

    def call(inputs: Mapping[str, torch.Tensor], attributes: Mapping[str, int]) -> Any:
        query, key = (inputs[name].unflatten(2, (attributes["key_heads"], -1)) for name in ("query", "key"))
        value = inputs["value"].unflatten(2, (attributes["value_heads"], -1))
        decay = inputs["decay_scale"].float() * torch.nn.functional.softplus(
            inputs["a"].float() + inputs["dt_bias"].float()
        )
        kernel = (
            fused_recurrent_gated_delta_rule if value.shape[1] <= DECODE_TOKENS else chunk_gated_delta_rule
        )
        return kernel(
            query,
            key,
            value,
            g=decay,
            beta=inputs["b"].float().sigmoid().to(value.dtype),
            initial_state=inputs["past"],
            output_final_state=True,
            use_qk_l2norm_in_kernel=True,
        )

    return call


def eager(
    inputs: Mapping[str, torch.Tensor], attributes: Mapping[str, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """y and present in PyTorch, computed in float32.

    Few tokens are computed one by one, more in chunks of 64 as in HF's `torch_chunk_gated_delta_rule`.
    """
    import torch

    key_heads, heads = attributes["key_heads"], attributes["value_heads"]
    tokens = inputs["value"].shape[1]

    def normalised(name: str) -> torch.Tensor:
        rows = inputs[name].float().unflatten(2, (key_heads, -1))
        rows = rows * torch.rsqrt((rows * rows).sum(-1, keepdim=True) + EPSILON)
        # [batch, heads, tokens, dim]
        return rows.repeat_interleave(heads // key_heads, dim=2).transpose(1, 2)

    query, key = normalised("query"), normalised("key")
    query = query * query.shape[-1] ** -0.5
    value = inputs["value"].float().unflatten(2, (heads, -1)).transpose(1, 2)
    is_row = torch.arange(tokens, device=value.device) < inputs["query_length"][:, None]
    decay = inputs["decay_scale"].float() * torch.nn.functional.softplus(
        inputs["a"].float() + inputs["dt_bias"].float()
    )
    decay = (decay * is_row[..., None]).transpose(1, 2)  # logarithms [batch, heads, tokens]
    rate = (torch.sigmoid(inputs["b"].float()) * is_row[..., None]).transpose(1, 2)
    y, state = (_token_by_token if tokens <= DECODE_TOKENS else _in_chunks)(
        query, key, value, decay, rate, inputs["past"]
    )
    y = y.transpose(1, 2) * is_row[:, :, None, None]  # [batch, tokens, heads, value_dim]
    y = y.to(inputs["value"].dtype)
    if "z" in inputs:
        y = torch.nn.functional.rms_norm(
            y, y.shape[-1:], inputs["norm_weight"], EPSILON
        ) * torch.nn.functional.silu(inputs["z"]).view(y.shape)
    return y.flatten(2), state


def _token_by_token(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    decay: torch.Tensor,
    rate: torch.Tensor,
    state: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    rows = []
    for t in range(value.shape[2]):
        state = state * decay[:, :, t, None, None].exp()
        change = (value[:, :, t, None] - key[:, :, t, None] @ state) * rate[:, :, t, None, None]
        state = state + key[:, :, t, :, None] * change
        rows.append(query[:, :, t, None] @ state)
    return torch.cat(rows, 2), state


def _in_chunks(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    decay: torch.Tensor,
    rate: torch.Tensor,
    state: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    tokens = value.shape[2]
    missing = -tokens % CHUNK
    query, key, value = (
        torch.nn.functional.pad(rows, (0, 0, 0, missing)).unflatten(2, (-1, CHUNK))
        for rows in (query, key, value)
    )
    decay, rate = (
        torch.nn.functional.pad(gate, (0, missing)).unflatten(2, (-1, CHUNK)) for gate in (decay, rate)
    )
    since = decay.cumsum(-1)  # [batch, heads, chunks, CHUNK]
    between = (since[..., :, None] - since[..., None, :]).tril().exp().tril()
    matrix = (key @ key.mT * between * rate[..., None]).tril(-1)
    write = torch.linalg.solve_triangular(matrix, torch.diag_embed(rate), upper=False, unitriangular=True)
    attend = query @ key.mT * between
    before, kept = since.exp()[..., None], (since[..., -1:] - since).exp()[..., None]
    rows = []
    for chunk in range(value.shape[2]):
        written = write[:, :, chunk] @ (value[:, :, chunk] - before[:, :, chunk] * (key[:, :, chunk] @ state))
        rows.append(before[:, :, chunk] * (query[:, :, chunk] @ state) + attend[:, :, chunk] @ written)
        state = state * before[:, :, chunk, -1:] + (key[:, :, chunk] * kept[:, :, chunk]).mT @ written
    return torch.cat(rows, 2)[:, :, :tokens], state


def _benchmark(name: str, batch: int, tokens: int, fused: bool) -> Benchmark:
    rows = batch * tokens
    # query, key, value, y, z; a, b
    inputs_and_y = rows * DIM * (2 * KEY_HEADS + (3 if fused else 2) * VALUE_HEADS) + 2 * rows * VALUE_HEADS
    states = 2 * batch * VALUE_HEADS * DIM * DIM
    # Per token and head: decay the state, read it by a key and by a query, write to it. In chunks one decay
    # serves 64 tokens, and the products within the chunk are added.
    in_chunks = 6 * DIM * DIM + 2 * CHUNK * (DIM + DIM)
    return Benchmark(
        name=f"{name}{' with gated norm' if fused else ''}",
        op="GatedDeltaRule",
        attributes=ATTRIBUTES,
        make=partial(_inputs, batch, tokens, fused),
        eager=eager,
        bytes_moved=2 * inputs_and_y + 4 * states,
        operations=rows * VALUE_HEADS * (7 * DIM * DIM if tokens <= DECODE_TOKENS else in_chunks),
        aim=""
        if tokens <= DECODE_TOKENS
        else "at least as fast as flash-linear-attention, within 2 times of the bytes bound",
    )


def _inputs(batch: int, tokens: int, fused: bool, generator: torch.Generator) -> dict[str, torch.Tensor]:
    import torch

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=generator.device).bfloat16()

    inputs = {"query": random(batch, tokens, KEY_HEADS * DIM), "key": random(batch, tokens, KEY_HEADS * DIM)}
    inputs |= {
        "value": random(batch, tokens, VALUE_HEADS * DIM),
        "a": random(batch, tokens, VALUE_HEADS),
        "b": random(batch, tokens, VALUE_HEADS),
    }
    inputs |= {"dt_bias": random(VALUE_HEADS), "decay_scale": -random(VALUE_HEADS).exp()}
    inputs["past"] = torch.randn(batch, VALUE_HEADS, DIM, DIM, generator=generator, device=generator.device)
    inputs["query_length"] = torch.full((batch,), tokens, device=generator.device)
    if fused:
        inputs |= {"z": random(batch, tokens, VALUE_HEADS * DIM), "norm_weight": random(DIM)}
    return inputs
