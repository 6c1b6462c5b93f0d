"""Tensor and weight descriptions that the decoder stages share."""

from __future__ import annotations

import numpy as np

from ..runtime.bundle import StateSpec, TensorSpec
from .checkpoint import Checkpoint
from .config import DecoderConfig
from .stage import WeightSource, plain, transposed
from .weights import experts_down, experts_gate_up


def kv_states(config: DecoderConfig) -> tuple[StateSpec, ...]:
    """One key and one value cache per layer, [batch, kv_heads, capacity, head_dim]."""
    shape = ("batch", config.num_key_value_heads, "capacity", config.head_dim)
    return tuple(StateSpec(f"{kind}.{layer}", "kv", "float32", shape) for layer in range(config.num_hidden_layers) for kind in ("key", "value"))


def sampling_inputs(vocab: int, rows: str = "rows") -> tuple[TensorSpec, ...]:
    """The inputs of SampleToken beside the logits."""
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
    """Values for `sampling_inputs` that choose the largest logit and forbid nothing."""
    return {
        "noise": np.zeros(rows, np.float32),
        "temperature": np.zeros(rows, np.float32),
        "top_k": np.zeros(rows, np.int64),
        "top_p": np.ones(rows, np.float32),
        "repetition_penalty": np.ones(rows, np.float32),
        "penalised": np.zeros((rows, vocab), bool),
        "suppressed": np.zeros((rows, vocab), bool),
    }


def layer_weights(checkpoint: Checkpoint, config: DecoderConfig, layer: int, source: str, target: str) -> dict[str, WeightSource]:
    """Sources of one `DecoderLayer` whose parameters start with `target`, from checkpoint tensors that start with `source`."""
    attention, experts = f"{source}.self_attn", f"{source}.mlp"
    weights = {
        f"{target}.input_norm.weight": plain(f"{source}.input_layernorm.weight"),
        f"{target}.feed_forward_norm.weight": plain(f"{source}.post_attention_layernorm.weight"),
        f"{target}.attention.query_norm.weight": plain(f"{attention}.q_norm.weight"),
        f"{target}.attention.key_norm.weight": plain(f"{attention}.k_norm.weight"),
        f"{target}.attention.qkv.weight": _columns(*(f"{attention}.{part}_proj.weight" for part in "qkv")),
        f"{target}.attention.output.weight": transposed(f"{attention}.o_proj.weight"),
    }
    if config.attention_bias:
        weights[f"{target}.attention.qkv.bias"] = WeightSource(tuple(f"{attention}.{part}_proj.bias" for part in "qkv"), lambda *parts: np.concatenate(parts))
        weights[f"{target}.attention.output.bias"] = plain(f"{attention}.o_proj.bias")
    if not config.is_sparse(layer):
        return weights | _gated(f"{source}.mlp", f"{target}.feed_forward")
    weights |= {
        f"{target}.feed_forward.router.weight": transposed(f"{experts}.gate.weight"),
        f"{target}.feed_forward.gate_up": experts_gate_up(checkpoint, f"{experts}.experts", config.num_experts),
        f"{target}.feed_forward.down": experts_down(checkpoint, f"{experts}.experts", config.num_experts),
    }
    if config.shared_expert_intermediate_size:
        weights |= _gated(f"{experts}.shared_expert", f"{target}.feed_forward.shared_expert")
        weights[f"{target}.feed_forward.shared_expert_gate.weight"] = transposed(f"{experts}.shared_expert_gate.weight")
    return weights


def _gated(source: str, target: str) -> dict[str, WeightSource]:
    return {
        f"{target}.gate_up.weight": _columns(f"{source}.gate_proj.weight", f"{source}.up_proj.weight"),
        f"{target}.down.weight": transposed(f"{source}.down_proj.weight"),
    }


def _columns(*tensors: str) -> WeightSource:
    """Linear weights [out_i, in] side by side as one matrix [in, sum of out_i]."""
    return WeightSource(tensors, lambda *parts: np.ascontiguousarray(np.concatenate(parts).T))
