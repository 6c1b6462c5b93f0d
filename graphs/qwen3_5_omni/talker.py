"""Talker of Qwen3.5-Omni: from its own text, what the Thinker heard and whole frames to the first code of every frame.

One interleaved stream: every row is text, a Thinker row, a codec id or a frame. The layers are those of HF Qwen3_5MoeTextModel and
Qwen3_5TextModel; the rows follow section 2.3 of the model's specification, which has no public reference class.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...plugins.sample_token.torch_op import sample_token
from ...runtime.bundle import TensorSpec
from ..config import OmniConfig, TalkerConfig
from ..decoder_specs import decoder_states, greedy_sampling, layer_weights, sampling_inputs
from ..hybrid_weights import norm
from ..layers import Projection, RootMeanSquareNorm, decoder_layers, rotary_tables, run_layers
from ..stage import Stage, WeightSource, plain, transposed

NAME = "talker"


class Talker(nn.Module):
    """One forward pass over new rows, which it forms itself from ids, tapped Thinker rows and the codes of frames."""

    def __init__(self, talker: TalkerConfig) -> None:
        super().__init__()
        text = talker.text
        self.text, self.groups, self.codebook = text, talker.num_code_groups, talker.predictor.vocab_size
        self.text_embedding = nn.Parameter(torch.empty(talker.text_vocab_size, text.hidden_size))
        self.hidden_projection = Projection(talker.thinker_hidden_size, text.hidden_size, bias=True)
        self.codec_embedding = nn.Parameter(torch.empty(text.vocab_size, text.hidden_size))
        # The predictor's tables, one after the other: the codes of a frame beside its first.
        self.residual_embedding = nn.Parameter(torch.empty((self.groups - 1) * self.codebook, text.hidden_size))
        self.layers = decoder_layers(text)
        self.norm = RootMeanSquareNorm(text.hidden_size, text.rms_norm_eps)
        self.head = Projection(text.hidden_size, text.vocab_size)

    def frame_rows(self, frame_codes: Tensor) -> Tensor:
        """The row [frames, hidden] of each frame [frames, groups]: the sum of its codes' embeddings."""
        index = frame_codes[:, 1:] + torch.arange(self.groups - 1) * self.codebook
        return self.codec_embedding[frame_codes[:, 0]] + self.residual_embedding[index].sum(1)

    def rows(self, text_ids: Tensor, hidden: Tensor, hidden_index: Tensor, codec_ids: Tensor, frame_codes: Tensor, frame_index: Tensor) -> Tensor:
        """The Talker's input rows [batch, tokens, hidden]: the sum of the tracks, an id of -1 or a row not indexed adding nothing."""
        batch, tokens = text_ids.shape
        text = self.text_embedding[text_ids.clamp(min=0)] * (text_ids >= 0)[..., None]
        codec = self.codec_embedding[codec_ids.clamp(min=0)] * (codec_ids >= 0)[..., None]
        flat = (text + codec).reshape(batch * tokens, self.text.hidden_size)
        flat = flat.index_put((hidden_index,), self.hidden_projection(hidden), accumulate=True)
        flat = flat.index_put((frame_index,), self.frame_rows(frame_codes), accumulate=True)
        return flat.reshape(batch, tokens, self.text.hidden_size)

    def forward(
        self, text_ids: Tensor, hidden: Tensor, hidden_index: Tensor, codec_ids: Tensor, frame_codes: Tensor, frame_index: Tensor,
        positions: Tensor, query_length: Tensor, past_length: Tensor, output_index: Tensor, *rest: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """Arguments in the order of `talker_stage(...).inputs`, then the past states. Returns token, logits, hidden, present states."""
        noise, temperature, top_k, top_p, repetition_penalty, penalised, suppressed, *past = rest
        x = self.rows(text_ids, hidden, hidden_index, codec_ids, frame_codes, frame_index)
        rotary = rotary_tables(positions, self.text.rope, self.text.head_dim)
        x, present = run_layers(self.layers, x, rotary, query_length, past_length, past)
        wanted = self.norm(x).reshape(-1, self.text.hidden_size)[output_index]
        logits = self.head(wanted)
        token = sample_token(logits, noise, temperature, top_k, top_p, repetition_penalty, penalised, suppressed)
        return token, logits, wanted, *present


def talker_stage(config: OmniConfig) -> Stage:
    """The Talker stage of `config`; tensors as in docs/stages.md."""
    assert config.talker is not None
    talker, text = config.talker, config.talker.text
    return Stage(
        NAME,
        lambda: Talker(talker),
        inputs=(
            TensorSpec("text_ids", "int64", ("batch", "tokens")),
            TensorSpec("hidden", "float32", ("hiddens", talker.thinker_hidden_size)),
            TensorSpec("hidden_index", "int64", ("hiddens",)),
            TensorSpec("codec_ids", "int64", ("batch", "tokens")),
            TensorSpec("frame_codes", "int64", ("frames", talker.num_code_groups)),
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
        example=lambda: _example(talker),
        weights=lambda checkpoint: _weights(talker, checkpoint),
        constants={
            "hidden_size": text.hidden_size, "vocab_size": text.vocab_size, "context": text.max_position_embeddings,
            "thinker_hidden_size": talker.thinker_hidden_size, "text_vocab_size": talker.text_vocab_size,
            "codebook_size": talker.predictor.vocab_size, "code_groups": talker.num_code_groups,
        },
    )  # fmt: skip


def _example(talker: TalkerConfig) -> dict[str, np.ndarray]:
    batch, tokens, hiddens, frames, rows = 2, 5, 3, 4, 6
    feeds: dict[str, np.ndarray] = {
        "text_ids": np.zeros((batch, tokens), np.int64),
        "hidden": np.zeros((hiddens, talker.thinker_hidden_size), np.float32),
        "hidden_index": np.arange(hiddens, dtype=np.int64),
        "codec_ids": np.zeros((batch, tokens), np.int64),
        "frame_codes": np.zeros((frames, talker.num_code_groups), np.int64),
        "frame_index": np.arange(frames, dtype=np.int64),
        "positions": np.broadcast_to(np.arange(tokens, dtype=np.float32), (3, batch, tokens)).copy(),
        "query_length": np.full(batch, tokens, np.int64),
        "past_length": np.zeros(batch, np.int64),
        "output_index": np.arange(rows, dtype=np.int64),
    }
    return feeds | greedy_sampling(rows, talker.text.vocab_size)


def _weights(talker: TalkerConfig, checkpoint: Any) -> dict[str, WeightSource]:
    tables = tuple(f"talker.code_predictor.model.codec_embedding.{group}.weight" for group in range(talker.num_code_groups - 1))
    weights = {
        "text_embedding": plain("talker.model.embed_tokens.weight"),
        "codec_embedding": plain("talker.model.codec_embedding.weight"),
        "residual_embedding": WeightSource(tables, lambda *parts: np.concatenate(parts)),
        "hidden_projection.weight": transposed("talker.hidden_projection.weight"),
        "hidden_projection.bias": plain("talker.hidden_projection.bias"),
        "norm.weight": norm(talker.text, "talker.model.norm.weight"),
        "head.weight": transposed("talker.codec_head.weight"),
    }
    for layer in range(talker.text.num_hidden_layers):
        weights |= layer_weights(checkpoint, talker.text, layer, f"talker.model.layers.{layer}", f"layers.{layer}")
    return weights
