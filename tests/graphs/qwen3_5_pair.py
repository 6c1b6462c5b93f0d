"""Random tensors of Qwen3.5-Omni decoders seen twice:
as our stage modules, and as the HF text models of Qwen3.5.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Qwen3_5ForCausalLM, Qwen3_5MoeForCausalLM, Qwen3_5MoeTextConfig, Qwen3_5TextConfig

from antiphon.graphs.config import (
    AudioConfig,
    DecoderConfig,
    LinearAttentionConfig,
    OmniConfig,
    RopeConfig,
    TalkerConfig,
    ThinkerConfig,
    VisionConfig,
)
from antiphon.graphs.families.qwen3_5_omni.config import talker_contract
from antiphon.runtime.bundle.errors import AntiphonError

LINEAR, FULL = "linear_attention", "full_attention"
TEXT_VOCAB, CODEC_VOCAB, CODEBOOK, GROUPS = 70, 40, 24, 4
EXPERTS: dict[str, Any] = {
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 12,
    "shared_expert_intermediate_size": 20,
}


def decoder(
    layers: tuple[str, ...], linear: tuple[int, int, int, int, int] = (2, 4, 8, 6, 4), **given: Any
) -> DecoderConfig:
    """A tiny decoder of the family; `linear`: key heads, value heads, key dim, value dim, kernel."""
    sizes: dict[str, Any] = {
        "vocab_size": TEXT_VOCAB,
        "hidden_size": 28,
        "intermediate_size": 36,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "rms_norm_eps": 1e-6,
        "rope": RopeConfig(10000.0, (2, 1, 1), 0.25),
        "max_position_embeddings": 256,
        "gated_attention": True,
        "zero_centred_norms": True,
    }
    config = LinearAttentionConfig(*linear) if LINEAR in layers else None
    return DecoderConfig(
        **(sizes | {"num_hidden_layers": len(layers), "layer_types": layers, "linear": config} | given)
    )


VARIANTS: dict[str, DecoderConfig] = {
    "experts, published pattern": decoder((LINEAR, LINEAR, LINEAR, FULL), **EXPERTS),
    "dense, other pattern, bias, equal heads, kernel 3, half rotary": decoder(
        (LINEAR, FULL, FULL, LINEAR),
        (3, 3, 4, 12, 3),
        attention_bias=True,
        rope=RopeConfig(1e6, (3, 3, 2), 0.5),
        tie_word_embeddings=True,
    ),
    "experts, full attention first, three values a key, one cache head, kernel 2, one axis": decoder(
        (FULL, LINEAR),
        (2, 6, 16, 4, 2),
        num_key_value_heads=1,
        rope=RopeConfig(10000.0, (), 0.25),
        **EXPERTS | {"num_experts_per_tok": 5},
    ),
    "dense, linear layers only": decoder((LINEAR, LINEAR), (1, 2, 4, 8, 5)),
    "experts, full attention only": decoder((FULL, FULL), **EXPERTS),
}


class Tensors:
    """Tensors in memory that answer as a Checkpoint does."""

    path = Path("tensors")

    def __init__(self, tensors: Mapping[str, Any]) -> None:
        self.tensors = {name: np.asarray(tensor) for name, tensor in tensors.items()}

    def read(self, name: str) -> np.ndarray:
        return self.tensors[name]

    def has(self, name: str) -> bool:
        return name in self.tensors

    def shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name].shape

    def expect_shape(self, name: str, shape: tuple[int, ...]) -> None:
        if self.shape(name) != shape:
            raise AntiphonError(
                f"tensor {name} has shape {self.shape(name)}, expected {shape}; use other tensors."
            )


@dataclass(frozen=True)
class Qwen35Pair:
    """A decoder's configuration and HF's model of it, in float32 with eager attention."""

    config: DecoderConfig
    model: Any = field(repr=False)

    def tensors(self, prefix: str) -> dict[str, np.ndarray]:
        """The model's tensors under the names of a checkpoint, in the layouts of HF:
        split Gated DeltaNet projections, fused experts.
        """
        stored = {prefix + name: tensor.numpy() for name, tensor in self.model.state_dict().items()}
        if self.config.tie_word_embeddings:
            del stored[f"{prefix}lm_head.weight"]
        return stored


def make_qwen3_5_pair(config: DecoderConfig, seed: int = 0) -> Qwen35Pair:
    rope = {
        "rope_type": "default",
        "rope_theta": config.rope.theta,
        "partial_rotary_factor": config.rope.partial_rotary_factor,
        "mrope_section": list(config.rope.mrope_section or (config.rope.dim(config.head_dim) // 2, 0, 0)),
        "mrope_interleaved": True,
    }
    shared = (
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "rms_norm_eps",
    )
    names = (
        *shared,
        "max_position_embeddings",
        "attention_bias",
        "tie_word_embeddings",
        *(EXPERTS if config.num_experts else ("intermediate_size",)),
    )
    given = {name: getattr(config, name) for name in names} | (
        dataclasses.asdict(config.linear) if config.linear else {}
    )
    given |= {"layer_types": list(config.layer_types), "rope_parameters": rope}
    model: Any = (
        Qwen3_5MoeForCausalLM(Qwen3_5MoeTextConfig(**given))
        if config.num_experts
        else Qwen3_5ForCausalLM(Qwen3_5TextConfig(**given))
    )
    model.set_attn_implementation("eager")
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        # No parameter keeps its initial value, and every layer changes what passes through it.
        scale = 0.4 if parameter.ndim == 1 else parameter.shape[-1] ** -0.5
        parameter.data = torch.randn(parameter.shape, generator=generator) * scale
    model.model.embed_tokens.weight.data *= config.hidden_size**0.5
    return Qwen35Pair(config, model.eval().requires_grad_(False))


def omni_config(
    text: DecoderConfig, talker: DecoderConfig | None = None, accept_hidden_layer: int = 1, **given: Any
) -> OmniConfig:
    """A configuration around the decoders of Thinker and Talker; `given` are fields of TalkerConfig."""
    audio = AudioConfig(8, 1, 1, 8, 8, 4, text.hidden_size, 50, 400, 100, convolutions=4)
    vision = VisionConfig(1, 8, 8, 1, 3, 4, 2, 2, 16, text.hidden_size)
    thinker = ThinkerConfig(text, audio, vision, 1, 2, 3, 4, 5, 13, mtp_num_hidden_layers=1)
    talker = talker or dataclasses.replace(text, vocab_size=CODEC_VOCAB, tie_word_embeddings=False)
    predictor = dataclasses.replace(
        talker,
        vocab_size=CODEBOOK,
        num_hidden_layers=2,
        layer_types=(),
        linear=None,
        num_experts=0,
        intermediate_size=30,
        tie_word_embeddings=False,
    )
    fields: dict[str, Any] = {
        "text": talker,
        "predictor": predictor,
        "num_code_groups": GROUPS,
        "thinker_hidden_size": text.hidden_size,
        "accept_hidden_layer": accept_hidden_layer,
        "codec_eos_token_id": 30,
        "codec_nothink_id": 31,
        "codec_think_bos_id": 32,
        "codec_think_eos_id": 33,
        "codec_pad_id": 34,
        "codec_bos_id": 35,
        "speaker_id": {"a": 0},
        "position_id_per_seconds": 13,
        "spatial_merge_size": 2,
        "text_vocab_size": TEXT_VOCAB,
        "predictor_projection": True,
        "contract": talker_contract(16, False),
    }
    return OmniConfig(
        "qwen3_5_omni", thinker, TalkerConfig(**(fields | given)), None, 0, 1, 2, 3, 4, {}, 5, 6, 7
    )


def fused_layout(tensors: Mapping[str, np.ndarray], config: DecoderConfig) -> dict[str, np.ndarray]:
    """The same tensors with the Gated DeltaNet projections of Qwen3-Next, written head by head."""
    linear = config.linear
    assert linear is not None
    group, dim, width = (
        linear.linear_num_value_heads // linear.linear_num_key_heads,
        linear.linear_key_head_dim,
        linear.linear_value_head_dim,
    )
    stored = {name: value for name, value in tensors.items() if ".in_proj_" not in name}
    for prefix in {name.split("in_proj_")[0] for name in tensors if ".in_proj_qkv." in name}:
        qkv, z, b, a = (tensors[f"{prefix}in_proj_{part}.weight"] for part in ("qkv", "z", "b", "a"))
        value = qkv[2 * linear.key_size :]
        rows, gates = [], []
        for head in range(linear.linear_num_key_heads):
            rows += [
                qkv[head * dim : (head + 1) * dim],
                qkv[linear.key_size + head * dim : linear.key_size + (head + 1) * dim],
            ]
            rows += [part[head * group * width : (head + 1) * group * width] for part in (value, z)]
            gates += [part[head * group : (head + 1) * group] for part in (b, a)]
        stored |= {
            f"{prefix}in_proj_qkvz.weight": np.concatenate(rows),
            f"{prefix}in_proj_ba.weight": np.concatenate(gates),
        }
    return stored


def fused_projections(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same tensors with queries, keys and values, and gates and ups,
    of one input stored as one Linear layer.
    """
    stored = dict(tensors)
    for parts, fused in (("qkv", "qkv_proj"), (("gate", "up"), "gate_up_proj")):
        for kind in ("weight", "bias"):
            ending = f"{parts[0]}_proj.{kind}"
            for name in [name for name in tensors if name.endswith(f".{ending}") and ".experts." not in name]:
                prefix = name.removesuffix(ending)
                stored[f"{prefix}{fused}.{kind}"] = np.concatenate(
                    [stored.pop(f"{prefix}{part}_proj.{kind}") for part in parts]
                )
    return stored


def one_tensor_an_expert(tensors: Mapping[str, np.ndarray], config: DecoderConfig) -> dict[str, np.ndarray]:
    """The same tensors with experts stored one by one."""
    stored = {name: value for name, value in tensors.items() if ".mlp.experts." not in name}
    for name, value in tensors.items():
        if name.endswith(".mlp.experts.gate_up_proj"):
            prefix, inter = name.removesuffix(".gate_up_proj"), config.moe_intermediate_size
            for expert in range(config.num_experts):
                stored |= {
                    f"{prefix}.{expert}.gate_proj.weight": value[expert, :inter],
                    f"{prefix}.{expert}.up_proj.weight": value[expert, inter:],
                }
                stored[f"{prefix}.{expert}.down_proj.weight"] = tensors[f"{prefix}.down_proj"][expert]
    return stored
