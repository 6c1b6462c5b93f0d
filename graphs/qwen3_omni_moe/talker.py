"""Talker of Qwen3-Omni: from text and what the Thinker heard to the first code of every frame (HF Qwen3OmniMoeTalkerForConditionalGeneration)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...plugins.sample_token.torch_op import sample_token
from ...runtime.bundle import TensorSpec
from ..config import OmniConfig, TalkerConfig
from ..decoder_specs import decoder_states, greedy_sampling, layer_weights, sampling_inputs
from ..layers import DecoderLayer, Projection, RootMeanSquareNorm, rotary_tables, run_layers
from ..stage import Stage, WeightSource, plain, transposed

NAME = "talker"


class RowProjection(nn.Module):
    """Thinker rows to Talker rows: Linear, SiLU, Linear (HF Qwen3OmniMoeTalkerResizeMLP)."""

    def __init__(self, thinker_hidden: int, inter: int, talker_hidden: int) -> None:
        super().__init__()
        self.first = Projection(thinker_hidden, inter, bias=True)
        self.second = Projection(inter, talker_hidden, bias=True)

    def forward(self, rows: Tensor) -> Tensor:
        return self.second(torch.nn.functional.silu(self.first(rows)))


class Talker(nn.Module):
    """One forward pass over new rows, which it forms itself from ids, tapped Thinker rows and frame rows."""

    def __init__(self, config: OmniConfig, talker: TalkerConfig) -> None:
        super().__init__()
        text, thinker = talker.text, config.thinker.text
        self.text = text
        self.text_embedding = nn.Parameter(torch.empty(thinker.vocab_size, thinker.hidden_size))
        self.text_projection = RowProjection(thinker.hidden_size, text.intermediate_size, text.hidden_size)
        self.hidden_projection = RowProjection(thinker.hidden_size, text.intermediate_size, text.hidden_size)
        self.codec_embedding = nn.Parameter(torch.empty(text.vocab_size, text.hidden_size))
        # HF builds every Talker layer sparse, whatever mlp_only_layers says.
        self.layers = nn.ModuleList(DecoderLayer(text, sparse=True) for _ in range(text.num_hidden_layers))
        self.norm = RootMeanSquareNorm(text.hidden_size, text.rms_norm_eps)
        self.head = Projection(text.hidden_size, text.vocab_size)

    def rows(self, text_ids: Tensor, hidden: Tensor, hidden_index: Tensor, codec_ids: Tensor, frame_rows: Tensor, frame_index: Tensor) -> Tensor:
        """The Talker's input rows [batch, tokens, hidden]: the sum of the tracks, an id of -1 or a row not indexed adding nothing."""
        batch, tokens = text_ids.shape
        text = self.text_projection(self.text_embedding[text_ids.clamp(min=0)]) * (text_ids >= 0)[..., None]
        codec = self.codec_embedding[codec_ids.clamp(min=0)] * (codec_ids >= 0)[..., None]
        flat = (text + codec).reshape(batch * tokens, self.text.hidden_size)
        flat = flat.index_put((hidden_index,), self.hidden_projection(hidden), accumulate=True)
        flat = flat.index_put((frame_index,), frame_rows, accumulate=True)
        return flat.reshape(batch, tokens, self.text.hidden_size)

    def forward(
        self, text_ids: Tensor, hidden: Tensor, hidden_index: Tensor, codec_ids: Tensor, frame_rows: Tensor, frame_index: Tensor,
        positions: Tensor, query_length: Tensor, past_length: Tensor, output_index: Tensor, *rest: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """Arguments in the order of `talker_stage(...).inputs`, then the past states. Returns token, logits, hidden, present states."""
        noise, temperature, top_k, top_p, repetition_penalty, penalised, suppressed, *past = rest
        x = self.rows(text_ids, hidden, hidden_index, codec_ids, frame_rows, frame_index)
        rotary = rotary_tables(positions, self.text.rope, self.text.head_dim)
        x, present = run_layers(self.layers, x, rotary, query_length, past_length, past)
        wanted = self.norm(x).reshape(-1, self.text.hidden_size)[output_index]
        logits = self.head(wanted)
        token = sample_token(logits, noise, temperature, top_k, top_p, repetition_penalty, penalised, suppressed)
        return token, logits, wanted, *present


def talker_stage(config: OmniConfig) -> Stage:
    """The Talker stage of `config`; tensors as in docs/stages.md."""
    assert config.talker is not None
    talker, text, thinker = config.talker, config.talker.text, config.thinker.text
    return Stage(
        NAME,
        lambda: Talker(config, talker),
        inputs=(
            TensorSpec("text_ids", "int64", ("batch", "tokens")),
            TensorSpec("hidden", "float32", ("hiddens", thinker.hidden_size)),
            TensorSpec("hidden_index", "int64", ("hiddens",)),
            TensorSpec("codec_ids", "int64", ("batch", "tokens")),
            TensorSpec("frame_rows", "float32", ("frames", text.hidden_size)),
            TensorSpec("frame_index", "int64", ("frames",)),
            TensorSpec("positions", "float32", (3, "batch", "tokens")),
            TensorSpec("query_length", "int64", ("batch",)),
            TensorSpec("past_length", "int64", ("batch",)),
            TensorSpec("output_index", "int64", ("rows",)),
            *sampling_inputs(text.vocab_size),
        ),
        outputs=(
            TensorSpec("token", "int64", ("rows",)),
            TensorSpec("logits", "float32", ("rows", text.vocab_size)),
            TensorSpec("output_hidden", "float32", ("rows", text.hidden_size)),
        ),
        states=decoder_states(text),
        example=lambda: _example(config, talker),
        weights=lambda checkpoint: _weights(talker, checkpoint),
        constants={
            "hidden_size": text.hidden_size, "vocab_size": text.vocab_size, "context": text.max_position_embeddings,
            "thinker_hidden_size": thinker.hidden_size,
        },
    )  # fmt: skip


def _example(config: OmniConfig, talker: TalkerConfig) -> dict[str, np.ndarray]:
    batch, tokens, hiddens, frames, rows = 2, 5, 3, 4, 6
    feeds: dict[str, np.ndarray] = {
        "text_ids": np.zeros((batch, tokens), np.int64),
        "hidden": np.zeros((hiddens, config.thinker.text.hidden_size), np.float32),
        "hidden_index": np.arange(hiddens, dtype=np.int64),
        "codec_ids": np.zeros((batch, tokens), np.int64),
        "frame_rows": np.zeros((frames, talker.text.hidden_size), np.float32),
        "frame_index": np.arange(frames, dtype=np.int64),
        "positions": np.broadcast_to(np.arange(tokens, dtype=np.float32), (3, batch, tokens)).copy(),
        "query_length": np.full(batch, tokens, np.int64),
        "past_length": np.zeros(batch, np.int64),
        "output_index": np.arange(rows, dtype=np.int64),
    }
    return feeds | greedy_sampling(rows, talker.text.vocab_size)


def _weights(talker: TalkerConfig, checkpoint: Any) -> dict[str, WeightSource]:
    weights = {
        "text_embedding": plain("thinker.model.embed_tokens.weight"),
        "codec_embedding": plain("talker.model.codec_embedding.weight"),
        "norm.weight": plain("talker.model.norm.weight"),
        "head.weight": transposed("talker.codec_head.weight"),
    }
    for name in ("text_projection", "hidden_projection"):
        for ours, theirs in (("first", "linear_fc1"), ("second", "linear_fc2")):
            weights[f"{name}.{ours}.weight"] = transposed(f"talker.{name}.{theirs}.weight")
            weights[f"{name}.{ours}.bias"] = plain(f"talker.{name}.{theirs}.bias")
    for layer in range(talker.text.num_hidden_layers):
        weights |= layer_weights(checkpoint, talker.text, layer, f"talker.model.layers.{layer}", f"layers.{layer}")
    return weights
