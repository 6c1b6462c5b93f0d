"""Weight sources that rearrange stored tensors: zero-centred norms, gated queries, Gated DeltaNet layers.

The input projection of a Gated DeltaNet layer is published in two layouts.

Split (Qwen3.5): `in_proj_qkv` [conv, H], `in_proj_z` [value_size, H], `in_proj_b` and `in_proj_a`
[value_heads, H].

Fused (Qwen3-Next): the rows are grouped by key head. `in_proj_qkvz` holds for each key head its query, its
key, and the values and the z of its value heads. `in_proj_ba` holds for each key head the b, then the a of
its value heads.
"""

from __future__ import annotations

import numpy as np

from ...runtime.bundle.errors import AntiphonError
from ..config import DecoderConfig, LinearAttentionConfig
from ..stage import TensorSource, WeightSource, columns, plain, transposed
from .weights import QUERY_KEY_VALUE, layers_of_one_input


def norm(config: DecoderConfig, tensor: str) -> WeightSource:
    """The weight of a norm: the stored tensor, or 1 + the stored tensor with `zero_centred_norms`."""
    return WeightSource((tensor,), lambda stored: 1 + stored) if config.zero_centred_norms else plain(tensor)


def attention_input(checkpoint: TensorSource, config: DecoderConfig, source: str) -> WeightSource:
    """The input projection [H, columns] of full attention: queries, keys, values and gates (if any).

    With `gated_attention`, q_proj holds for each head its query rows, then its gate rows. Raises
    AntiphonError if q_proj has another shape.
    """
    layers = layers_of_one_input(checkpoint, source, *QUERY_KEY_VALUE)
    tensors = tuple(f"{layer}.weight" for layer in layers)
    if not config.gated_attention:
        return columns(*tensors)
    cached = config.num_key_value_heads * config.head_dim if len(layers) == 1 else 0
    checkpoint.expect_shape(
        tensors[0], (2 * (config.num_attention_heads * config.head_dim + cached), config.hidden_size)
    )
    return WeightSource(
        tensors, lambda *parts: np.ascontiguousarray(_gates_last(config, np.concatenate(parts)).T)
    )


def attention_input_bias(checkpoint: TensorSource, config: DecoderConfig, source: str) -> WeightSource:
    """The bias of `attention_input`, in the order of its columns."""
    tensors = tuple(f"{layer}.bias" for layer in layers_of_one_input(checkpoint, source, *QUERY_KEY_VALUE))
    return WeightSource(
        tensors,
        lambda *parts: (
            _gates_last(config, np.concatenate(parts)) if config.gated_attention else np.concatenate(parts)
        ),
    )


def _gates_last(config: DecoderConfig, rows: np.ndarray) -> np.ndarray:
    """Move the gate rows of q_proj behind k_proj and v_proj: queries, keys, values, gates."""
    gated, cached = np.split(rows, [2 * config.num_attention_heads * config.head_dim])
    heads = gated.reshape(config.num_attention_heads, 2, config.head_dim, *rows.shape[1:])
    return np.concatenate(
        [heads[:, 0].reshape(-1, *rows.shape[1:]), cached, heads[:, 1].reshape(-1, *rows.shape[1:])]
    )


def gated_delta_weights(
    checkpoint: TensorSource, config: DecoderConfig, source: str, target: str
) -> dict[str, WeightSource]:
    """Weight sources of one `GatedDeltaNet`, from either layout.

    Raises AntiphonError if a fused projection has another shape or the convolution has a bias.
    """
    assert config.linear is not None, "a configuration with linear layers states their sizes"
    if checkpoint.has(f"{source}.conv1d.bias"):
        raise AntiphonError(
            f"{checkpoint.path}: tensor {source}.conv1d.bias found, expected a convolution without bias; "
            "use a checkpoint of this family."
        )
    return {
        f"{target}.input.weight": _gated_delta_input(checkpoint, config, config.linear, source),
        f"{target}.conv": plain(f"{source}.conv1d.weight"),
        f"{target}.dt_bias": plain(f"{source}.dt_bias"),
        f"{target}.decay_scale": WeightSource((f"{source}.A_log",), lambda stored: -np.exp(stored)),
        f"{target}.norm.weight": plain(f"{source}.norm.weight"),  # never zero-centred
        f"{target}.output.weight": transposed(f"{source}.out_proj.weight"),
    }


def _gated_delta_input(
    checkpoint: TensorSource, config: DecoderConfig, linear: LinearAttentionConfig, source: str
) -> WeightSource:
    fused = (f"{source}.in_proj_qkvz.weight", f"{source}.in_proj_ba.weight")
    if not checkpoint.has(fused[0]):
        return columns(*(f"{source}.in_proj_{part}.weight" for part in ("qkv", "z", "b", "a")))
    heads, dim = linear.linear_num_key_heads, linear.linear_key_head_dim
    group = linear.linear_num_value_heads // heads
    values = group * linear.linear_value_head_dim
    checkpoint.expect_shape(fused[0], (heads * 2 * (dim + values), config.hidden_size))
    checkpoint.expect_shape(fused[1], (heads * 2 * group, config.hidden_size))

    def assemble(qkvz: np.ndarray, ba: np.ndarray) -> np.ndarray:
        by_head = [
            *np.split(qkvz.reshape(heads, 2 * (dim + values), -1), [dim, 2 * dim, 2 * dim + values], axis=1)
        ]
        by_head += np.split(ba.reshape(heads, 2 * group, -1), 2, axis=1)
        return np.ascontiguousarray(np.concatenate([part.reshape(-1, part.shape[-1]) for part in by_head]).T)

    return WeightSource(fused, assemble)
