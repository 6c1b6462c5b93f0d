"""A random checkpoint seen twice: as our stage modules, and as the HF model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Qwen3OmniMoeForConditionalGeneration

from antiphon.graphs.checkpoints.checkpoint import Checkpoint
from antiphon.graphs.config import OmniConfig
from antiphon.graphs.random.new_checkpoint import new_checkpoint
from antiphon.graphs.stage import Stage

from .module_pair import load_module

THINKER, TALKER, PREDICTOR = (
    "thinker_config.text_config",
    "talker_config.text_config",
    "talker_config.code_predictor_config",
)
VARIANTS: dict[str, dict[str, Any]] = {
    "published structure": {"seed": 0},
    "dense layers, tied embeddings, shares not normalised, tap on one of two deepstack layers": {
        "seed": 1,
        "overrides": {
            f"{THINKER}.mlp_only_layers": [1],
            f"{THINKER}.norm_topk_prob": False,
            f"{TALKER}.norm_topk_prob": False,
            "thinker_config.tie_word_embeddings": True,
            "thinker_config.vision_config.deepstack_visual_indexes": [0, 1],
            "talker_config.accept_hidden_layer": 2,
        },
    },
    "attention bias, every second layer dense, tap after the last layer, fused float32": {
        "seed": 2,
        "layout": "fused",
        "dtype": "float32",
        "overrides": {
            f"{THINKER}.attention_bias": True,
            f"{TALKER}.attention_bias": True,
            f"{PREDICTOR}.attention_bias": True,
            f"{THINKER}.decoder_sparse_step": 2,
            "talker_config.accept_hidden_layer": 4,
            f"{PREDICTOR}.num_hidden_layers": 3,
        },
    },
    "no deepstack, tap on the embeddings, one or all key-value heads, all experts, fused float16": {
        "seed": 3,
        "layout": "fused",
        "dtype": "float16",
        "overrides": {
            f"{THINKER}.num_key_value_heads": 1,
            f"{TALKER}.num_key_value_heads": 4,
            f"{PREDICTOR}.num_key_value_heads": 1,
            f"{THINKER}.num_hidden_layers": 2,
            f"{THINKER}.num_experts_per_tok": 8,
            f"{TALKER}.num_experts_per_tok": 1,
            f"{THINKER}.rope_theta": 10000.0,
            "thinker_config.vision_config.deepstack_visual_indexes": [],
            "talker_config.accept_hidden_layer": 0,
        },
    },
}


@dataclass(frozen=True)
class Pair:
    """One checkpoint of ours and HF's model of it, in float32 with eager attention."""

    name: str
    checkpoint: Checkpoint
    model: Any = field(repr=False)

    @property
    def config(self) -> OmniConfig:
        return self.checkpoint.config

    def module(self, stage: Stage) -> Any:
        """The stage's module with the weights of the checkpoint."""
        return load_module(stage, self.checkpoint)


def make_pair(name: str, folder: Path) -> Pair:
    path = new_checkpoint(folder / "checkpoint", **VARIANTS[name])
    model = (
        Qwen3OmniMoeForConditionalGeneration.from_pretrained(
            path, dtype=torch.float32, attn_implementation="eager"
        )
        .eval()
        .requires_grad_(False)
    )
    return Pair(name, Checkpoint(path), model)


class Runner:
    """A stage module that keeps its states between calls."""

    def __init__(self, stage: Stage, module: Any, batch: int = 1, capacity: int = 40) -> None:
        self.stage, self.module = stage, module
        sizes = {"batch": batch, "capacity": capacity}
        self.states = [
            torch.zeros([sizes[axis] if isinstance(axis, str) else axis for axis in state.shape])
            for state in stage.states
        ]

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name.

        `feeds` needs no more than the stage's inputs; the rest of the stage's example
        are its sampling inputs.
        """
        arguments = [torch.from_numpy(np.ascontiguousarray(feeds[spec.name])) for spec in self.stage.inputs]
        results = self.module(*arguments, *self.states)
        count = len(self.stage.outputs)
        self.states = list(results[count:])
        return {
            spec.name: value.numpy() for spec, value in zip(self.stage.outputs, results[:count], strict=True)
        }
