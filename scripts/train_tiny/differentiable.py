"""The ops of the stage modules in differentiable PyTorch, for whole sequences that start with empty states.

Autograd cannot see into the registered ops, and they work token by token. Inside `differentiable()` the
layers use these functions instead; a test shows that they are equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from ...graphs.layers import decoder as layers
from ...graphs.stages.codec_encoder import layers as codec_encoder_layers
from ...plugins.gated_delta_rule.reference import EPSILON

CHUNK = 32
SHORT = 32


@contextmanager
def differentiable(router_losses: list[Tensor] | None = None) -> Iterator[None]:
    """Context in which stage modules can be trained.

    `router_losses` collects a load-balancing term per MoE layer run.
    """

    def experts(
        x: Tensor, router_logits: Tensor, gate_up: Tensor, down: Tensor, top_k: int, normalize: bool
    ) -> Tensor:
        return moe(x, router_logits, gate_up, down, top_k, normalize, router_losses)

    ops = {
        "attention": attention,
        "causal_conv_state": causal_conv_state,
        "gated_delta_rule": gated_delta_rule,
        "moe": experts,
        "rotate": rotate,
    }
    modules = [(layers, name, op) for name, op in ops.items()] + [
        (codec_encoder_layers, "rotate", rotate),
        (layers.RootMeanSquareNorm, "forward", norm),
    ]
    before = [getattr(module, name) for module, name, _ in modules]
    for module, name, op in modules:
        setattr(module, name, op)
    try:
        yield
    finally:
        for (module, name, _), op in zip(modules, before, strict=True):
            setattr(module, name, op)


def norm(self: layers.RootMeanSquareNorm, x: Tensor) -> Tensor:
    """graphs.layers.decoder.RootMeanSquareNorm in float32, even under autocast: PyTorch fuses no mixture of
    dtypes."""
    return F.rms_norm(x.float(), (x.shape[-1],), self.weight, self.epsilon)


def rotate(x: Tensor, rotary: tuple[Tensor, Tensor], heads: int) -> Tensor:
    """graphs.layers.decoder.rotate."""
    cosine, sine = (table[:, :, None] for table in rotary)  # [batch, tokens, 1, n / 2]
    half = cosine.shape[-1]
    split = x.reshape(*x.shape[:2], heads, -1)
    first, second, rest = split[..., :half], split[..., half : 2 * half], split[..., 2 * half :]
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine, rest), dim=-1).reshape(
        x.shape
    )


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    past_key: Tensor,
    past_value: Tensor,
    past_length: Tensor,
    query_length: Tensor,
    num_heads: int,
    kv_num_heads: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """plugins.attention over the call's own tokens; results of rows at or beyond query_length are
    undefined."""
    query, key, value = (
        rows.reshape(*rows.shape[:2], heads, -1).transpose(1, 2)
        for rows, heads in ((query, num_heads), (key, kv_num_heads), (value, kv_num_heads))
    )
    tokens = query.shape[2]
    # For many short rows (a frame's codes) two batched products are faster than the fused kernel.
    if tokens <= SHORT:
        key, value = (rows.repeat_interleave(num_heads // kv_num_heads, dim=1) for rows in (key, value))
        hidden = torch.ones(tokens, tokens, dtype=torch.bool, device=query.device).triu(1)
        scores = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).masked_fill(hidden, -torch.inf)
        y = scores.softmax(-1) @ value
    else:
        y = F.scaled_dot_product_attention(
            query, key, value, is_causal=True, enable_gqa=num_heads != kv_num_heads
        )
    return y.transpose(1, 2).flatten(2), past_key, past_value


def causal_conv_state(x: Tensor, weight: Tensor, past: Tensor, query_length: Tensor) -> tuple[Tensor, Tensor]:
    """plugins.causal_conv_state; results of rows at or beyond query_length are undefined."""
    taps = weight.shape[2]
    padded = F.pad(x, (0, 0, taps - 1, 0))
    y = sum((padded[:, tap : tap + x.shape[1]] * weight[:, 0, tap] for tap in range(taps)), torch.zeros(()))
    return F.silu(y), past


def gated_delta_rule(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    a: Tensor,
    b: Tensor,
    dt_bias: Tensor,
    decay_scale: Tensor,
    past: Tensor,
    query_length: Tensor,
    key_heads: int,
    value_heads: int,
) -> tuple[Tensor, Tensor]:
    """plugins.gated_delta_rule with past zero, in chunk-parallel form (Yang et al. 2024, arXiv 2412.06464,
    section 3.3)."""
    batch, tokens, _ = value.shape
    chunks = -(-tokens // CHUNK)
    space = chunks * CHUNK - tokens

    def heads(rows: Tensor, count: int) -> Tensor:  # -> [batch, value_heads, chunks, CHUNK, dim]
        rows = F.pad(rows, (0, 0, 0, space)).reshape(batch, chunks, CHUNK, count, -1).permute(0, 3, 1, 2, 4)
        return rows.repeat_interleave(value_heads // count, dim=1)

    query_rows, key_rows = (heads(rows, key_heads) for rows in (query, key))
    query_rows, key_rows = (
        rows * torch.rsqrt(rows.square().sum(-1, keepdim=True) + EPSILON) for rows in (query_rows, key_rows)
    )
    query_rows = query_rows * query_rows.shape[-1] ** -0.5
    value_rows = heads(value, value_heads)
    rate = heads(torch.sigmoid(b), value_heads)  # [..., CHUNK, 1]
    # [..., CHUNK], sums of logarithms
    decay = heads(decay_scale * F.softplus(a + dt_bias), value_heads)[..., 0].cumsum(-1)
    lower = torch.ones(CHUNK, CHUNK, dtype=torch.bool, device=value.device).tril()
    fading = torch.exp((decay[..., :, None] - decay[..., None, :]).masked_fill(~lower, -torch.inf))
    mixing = (key_rows * rate) @ key_rows.transpose(-1, -2) * fading
    mixing = mixing.tril(-1) + torch.eye(CHUNK, device=value.device)
    grown = decay.exp()[..., None]
    solved = torch.linalg.solve_triangular(
        mixing, torch.cat((value_rows, key_rows * grown), dim=-1) * rate, upper=False, unitriangular=True
    )
    new_value, old_key = solved.split((value_rows.shape[-1], key_rows.shape[-1]), dim=-1)
    inside = query_rows @ key_rows.transpose(-1, -2) * fading
    query_rows = query_rows * grown
    leaving = key_rows * torch.exp(decay[..., -1:] - decay)[..., None]
    state = torch.zeros(batch, value_heads, key_rows.shape[-1], value_rows.shape[-1], device=value.device)
    outputs = []
    for chunk in range(chunks):
        written = new_value[:, :, chunk] - old_key[:, :, chunk] @ state
        outputs.append(query_rows[:, :, chunk] @ state + inside[:, :, chunk] @ written)
        state = state * grown[:, :, chunk, -1:] + leaving[:, :, chunk].transpose(-1, -2) @ written
    y = torch.stack(outputs, dim=2).reshape(batch, value_heads, chunks * CHUNK, -1)[:, :, :tokens]
    return y.transpose(1, 2).flatten(2), past


def moe(
    x: Tensor,
    router_logits: Tensor,
    gate_up: Tensor,
    down: Tensor,
    top_k: int,
    normalize: bool,
    router_losses: list[Tensor] | None = None,
) -> Tensor:
    """plugins.moe: every expert on the rows that chose it.

    Adds the loss of Switch Transformer (arXiv 2101.03961, section 2.2) to `router_losses`.
    """
    rows = x.reshape(-1, x.shape[-1])
    probabilities = torch.softmax(router_logits, dim=-1)
    shares, chosen = torch.topk(probabilities, top_k, dim=-1)
    if normalize:
        shares = shares / shares.sum(-1, keepdim=True)
    experts = gate_up.shape[0]
    if router_losses is not None:
        used = F.one_hot(chosen, experts).float().mean((0, 1))
        router_losses.append(experts * (used * probabilities.mean(0)).sum())
    order = chosen.flatten().argsort(stable=True)
    taken = order // top_k  # the row of each chosen slot, sorted by expert
    counts = torch.bincount(chosen.flatten(), minlength=experts).tolist()
    parts = []
    for expert, part in enumerate(rows[taken].split(counts)):
        gate, up = (part @ gate_up[expert].T).unflatten(-1, (-1, 2)).unbind(-1)
        parts.append((F.silu(gate) * up) @ down[expert].T)
    weighted = torch.cat(parts) * shares.flatten()[order, None]
    return (
        torch.zeros(rows.shape, dtype=weighted.dtype, device=rows.device)
        .index_add(0, taken, weighted)
        .reshape(x.shape)
    )
