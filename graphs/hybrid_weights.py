"""Sources of what hybrid decoders store in another form than a graph wants it: zero-centred norms, gated queries, Gated DeltaNet layers.

The projection in front of a Gated DeltaNet layer is published in two layouts. Split (Qwen3.5): `in_proj_qkv` [conv, H], `in_proj_z`
[value_size, H], `in_proj_b` and `in_proj_a` [value_heads, H]. Fused (Qwen3-Next): `in_proj_qkvz` with, for each key head, its query, its key, the
values and the z of its value heads; `in_proj_ba` with, for each key head, the b and then the a of its value heads.
"""

from __future__ import annotations

import numpy as np

from .checkpoint import Checkpoint
from .config import DecoderConfig, LinearAttentionConfig
from .stage import WeightSource, columns, plain, transposed


def norm(config: DecoderConfig, tensor: str) -> WeightSource:
    """A norm's weight; where norms are zero-centred, 1 + the stored one."""
    return WeightSource((tensor,), lambda stored: 1 + stored) if config.zero_centred_norms else plain(tensor)


def attention_input(checkpoint: Checkpoint, config: DecoderConfig, source: str) -> WeightSource:
    """The matrix [H, columns] in front of full attention: all queries, keys, values and, with `gated_attention`, gates.

    A gated q_proj holds, for each head, its query rows and then its gate rows. Raises AntiphonError where it has another shape.
    """
    tensors = tuple(f"{source}.{part}_proj.weight" for part in "qkv")
    if not config.gated_attention:
        return columns(*tensors)
    checkpoint.expect_shape(tensors[0], (2 * config.num_attention_heads * config.head_dim, config.hidden_size))
    return WeightSource(tensors, lambda *parts: np.ascontiguousarray(_gates_last(config, *parts).T))


def attention_input_bias(config: DecoderConfig, source: str) -> WeightSource:
    """The bias of `attention_input`, in the order of its columns."""
    tensors = tuple(f"{source}.{part}_proj.bias" for part in "qkv")
    return WeightSource(tensors, lambda *parts: _gates_last(config, *parts) if config.gated_attention else np.concatenate(parts))


def _gates_last(config: DecoderConfig, query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Rows of q_proj, k_proj and v_proj as queries, keys, values, gates."""
    heads = query.reshape(config.num_attention_heads, 2, config.head_dim, *query.shape[1:])
    return np.concatenate([heads[:, 0].reshape(-1, *query.shape[1:]), key, value, heads[:, 1].reshape(-1, *query.shape[1:])])


def gated_delta_weights(checkpoint: Checkpoint, config: DecoderConfig, source: str, target: str) -> dict[str, WeightSource]:
    """Sources of one `GatedDeltaNet` in either layout. Raises AntiphonError where a fused projection has another shape."""
    assert config.linear is not None, "a configuration with linear layers states their sizes"
    return {
        f"{target}.input.weight": _gated_delta_input(checkpoint, config, config.linear, source),
        f"{target}.conv": plain(f"{source}.conv1d.weight"),
        f"{target}.dt_bias": plain(f"{source}.dt_bias"),
        f"{target}.decay_scale": WeightSource((f"{source}.A_log",), lambda stored: -np.exp(stored)),
        f"{target}.norm.weight": plain(f"{source}.norm.weight"),  # never zero-centred
        f"{target}.output.weight": transposed(f"{source}.out_proj.weight"),
    }


def _gated_delta_input(checkpoint: Checkpoint, config: DecoderConfig, linear: LinearAttentionConfig, source: str) -> WeightSource:
    fused = (f"{source}.in_proj_qkvz.weight", f"{source}.in_proj_ba.weight")
    if not checkpoint.has(fused[0]):
        return columns(*(f"{source}.in_proj_{part}.weight" for part in ("qkv", "z", "b", "a")))
    heads, dim = linear.linear_num_key_heads, linear.linear_key_head_dim
    group = linear.linear_num_value_heads // heads
    values = group * linear.linear_value_head_dim
    checkpoint.expect_shape(fused[0], (heads * 2 * (dim + values), config.hidden_size))
    checkpoint.expect_shape(fused[1], (heads * 2 * group, config.hidden_size))

    def assemble(qkvz: np.ndarray, ba: np.ndarray) -> np.ndarray:
        by_head = [*np.split(qkvz.reshape(heads, 2 * (dim + values), -1), [dim, 2 * dim, 2 * dim + values], axis=1)]
        by_head += np.split(ba.reshape(heads, 2 * group, -1), 2, axis=1)
        return np.ascontiguousarray(np.concatenate([part.reshape(-1, part.shape[-1]) for part in by_head]).T)

    return WeightSource(fused, assemble)
