"""States, sampling inputs and weight sources of all decoder stages."""

from __future__ import annotations

import numpy as np

from ...runtime.bundle.specs import StateSpec, TensorSpec
from ..config import DecoderConfig
from ..stage import TensorSource, WeightSource, columns, plain, transposed
from .decoder_weights import attention_input, attention_input_bias, gated_delta_weights, norm
from .weights import experts_down, experts_gate_up, layers_of_one_input


def decoder_states(config: DecoderConfig) -> tuple[StateSpec, ...]:
    """Two states per layer, in the order of the layers. Each name ends in the layer's number.

    Full attention: caches of keys and values, both [batch, kv_heads, capacity, head_dim].
    Gated DeltaNet: the last inputs of the convolution [batch, kernel - 1, channels] and the recurrent
    matrices [batch, value_heads, key_dim, value_dim].
    """
    cache = ("batch", config.num_key_value_heads, "capacity", config.head_dim)
    states: list[StateSpec] = []
    for layer in range(config.num_hidden_layers):
        if not config.is_linear(layer):
            states += [StateSpec(f"{name}.{layer}", "kv", "float32", cache) for name in ("key", "value")]
            continue
        linear = config.linear
        assert linear is not None, "a configuration with linear layers states their sizes"
        matrices = (
            "batch",
            linear.linear_num_value_heads,
            linear.linear_key_head_dim,
            linear.linear_value_head_dim,
        )
        states += [
            StateSpec(
                f"conv.{layer}",
                "conv",
                "float32",
                ("batch", linear.linear_conv_kernel_dim - 1, linear.conv_size),
            ),
            StateSpec(f"recurrent.{layer}", "recurrent", "float32", matrices),
        ]
    return tuple(states)


def sampling_inputs(vocab: int, rows: str = "rows") -> tuple[TensorSpec, ...]:
    """The inputs of the op SampleToken except the logits."""
    return (
        TensorSpec("noise", "float32", (rows,)),
        TensorSpec("temperature", "float32", (rows,)),
        TensorSpec("top_k", "int64", (rows,)),
        TensorSpec("top_p", "float32", (rows,)),
        TensorSpec("repetition_penalty", "float32", (rows,)),
        TensorSpec("penalised", "bool", (rows, vocab)),
        TensorSpec("suppressed", "bool", (rows, vocab)),
    )


def greedy_sampling(rows: int, vocab: int) -> dict[str, np.ndarray]:
    """Values of `sampling_inputs` for greedy sampling without penalty or suppressed ids."""
    return {
        "noise": np.zeros(rows, np.float32),
        "temperature": np.zeros(rows, np.float32),
        "top_k": np.zeros(rows, np.int64),
        "top_p": np.ones(rows, np.float32),
        "repetition_penalty": np.ones(rows, np.float32),
        "penalised": np.zeros((rows, vocab), bool),
        "suppressed": np.zeros((rows, vocab), bool),
    }


def layer_weights(
    checkpoint: TensorSource, config: DecoderConfig, layer: int, source: str, target: str
) -> dict[str, WeightSource]:
    """Weight sources of one `DecoderLayer`.

    `source` is the prefix of the checkpoint's tensors, `target` that of the module's parameters.
    """
    experts = f"{source}.mlp"
    weights = {
        f"{target}.input_norm.weight": norm(config, f"{source}.input_layernorm.weight"),
        f"{target}.feed_forward_norm.weight": norm(config, f"{source}.post_attention_layernorm.weight"),
    }
    if config.is_linear(layer):
        weights |= gated_delta_weights(checkpoint, config, f"{source}.linear_attn", f"{target}.attention")
    else:
        weights |= _attention(checkpoint, config, f"{source}.self_attn", f"{target}.attention")
    if not config.is_sparse(layer):
        return weights | _gated(checkpoint, f"{source}.mlp", f"{target}.feed_forward")
    weights |= {
        f"{target}.feed_forward.router.weight": transposed(f"{experts}.gate.weight"),
        f"{target}.feed_forward.gate_up": experts_gate_up(
            checkpoint, f"{experts}.experts", config.num_experts
        ),
        f"{target}.feed_forward.down": experts_down(checkpoint, f"{experts}.experts", config.num_experts),
    }
    if config.shared_expert_intermediate_size:
        weights |= _gated(checkpoint, f"{experts}.shared_expert", f"{target}.feed_forward.shared_expert")
        weights[f"{target}.feed_forward.shared_expert_gate.weight"] = transposed(
            f"{experts}.shared_expert_gate.weight"
        )
    return weights


def _attention(
    checkpoint: TensorSource, config: DecoderConfig, source: str, target: str
) -> dict[str, WeightSource]:
    weights = {
        f"{target}.query_norm.weight": norm(config, f"{source}.q_norm.weight"),
        f"{target}.key_norm.weight": norm(config, f"{source}.k_norm.weight"),
        f"{target}.qkv.weight": attention_input(checkpoint, config, source),
        f"{target}.output.weight": transposed(f"{source}.o_proj.weight"),
    }
    if config.attention_bias:
        weights |= {
            f"{target}.qkv.bias": attention_input_bias(checkpoint, config, source),
            f"{target}.output.bias": plain(f"{source}.o_proj.bias"),
        }
    return weights


def _gated(checkpoint: TensorSource, source: str, target: str) -> dict[str, WeightSource]:
    layers = layers_of_one_input(checkpoint, source, ("gate_proj", "up_proj"), "gate_up_proj")
    return {
        f"{target}.gate_up.weight": columns(*(f"{layer}.weight" for layer in layers)),
        f"{target}.down.weight": transposed(f"{source}.down_proj.weight"),
    }
