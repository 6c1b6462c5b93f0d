"""The Thinker's draft head (multi-token prediction): a token and the hidden row before it to the next token.

x = fc(concat(norm_e(embedding[ids]), norm_h(hidden))), then one layer of full attention with its own cache,
then logits = head(norm(x)). `hidden` are the Thinker's rows after its final norm; for a second draft token,
they are this stage's `output_hidden`. Embedding and head are the Thinker's.
Source: TensorRT-Edge-LLM 0.11, modeling_qwen3_omni_next_mtp. transformers 5.23 has no class for it and skips
`mtp.*`.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor, nn

from ...runtime.bundle.specs import TensorSpec
from ..config import DecoderConfig, OmniConfig
from ..layers.decoder import Projection, RootMeanSquareNorm, decoder_layers, rotary_tables, run_layers
from ..layers.decoder_specs import decoder_states, layer_weights
from ..layers.decoder_weights import norm
from ..layers.weights import head
from ..stage import Stage, TensorSource, WeightSource, plain, transposed

NAME = "mtp"
PREFIXES = ("thinker.mtp", "mtp")
"""Prefix of the stored tensors: in a whole checkpoint, in a Thinker saved alone (as TensorRT-Edge-LLM)."""


class DraftHead(nn.Module):
    """One forward pass over new rows; each joins a token and the Thinker's row of the token before it."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        size, epsilon = config.hidden_size, config.rms_norm_eps
        self.embedding = nn.Parameter(torch.empty(config.vocab_size, size))
        self.embedding_norm = RootMeanSquareNorm(size, epsilon)
        self.hidden_norm = RootMeanSquareNorm(size, epsilon)
        self.join = Projection(2 * size, size)
        self.layers = decoder_layers(config)
        self.norm = RootMeanSquareNorm(size, epsilon)
        self.head = Projection(size, config.vocab_size)

    def forward(
        self,
        input_ids: Tensor,
        hidden: Tensor,
        positions: Tensor,
        query_length: Tensor,
        past_length: Tensor,
        output_index: Tensor,
        *past: Tensor,
    ) -> tuple[Tensor, ...]:
        """Arguments in the order of `mtp_stage(...).inputs`, then the past states.

        Returns logits, hidden before the norm, present states.
        """
        x = self.join(
            torch.cat([self.embedding_norm(self.embedding[input_ids]), self.hidden_norm(hidden)], dim=-1)
        )
        rotary = rotary_tables(positions, self.config.rope, self.config.head_dim)
        x, present = run_layers(self.layers, x, rotary, query_length, past_length, past)
        wanted = x.reshape(-1, self.config.hidden_size)[output_index]
        return self.head(self.norm(wanted)), wanted, *present


def mtp_stage(config: OmniConfig) -> Stage:
    """The draft head stage of `config`; tensors as in docs/stages.md."""
    text = _draft_config(config.thinker.text)
    return Stage(
        NAME,
        lambda: DraftHead(text),
        inputs=(
            TensorSpec("input_ids", "int64", ("batch", "tokens")),
            TensorSpec("hidden", "float32", ("batch", "tokens", text.hidden_size)),
            TensorSpec("positions", "float32", (3, "batch", "tokens")),
            TensorSpec("query_length", "int64", ("batch",)),
            TensorSpec("past_length", "int64", ("batch",)),
            TensorSpec("output_index", "int64", ("rows",)),
        ),
        outputs=(
            TensorSpec("logits", "float32", ("rows", text.vocab_size)),
            TensorSpec("output_hidden", "float32", ("rows", text.hidden_size)),
        ),
        states=decoder_states(text),
        example=lambda: _example(text),
        weights=lambda checkpoint: _weights(text, checkpoint),
        constants={
            "hidden_size": text.hidden_size,
            "vocab_size": text.vocab_size,
            "context": text.max_position_embeddings,
        },
        configuration=text,
    )


def _draft_config(text: DecoderConfig) -> DecoderConfig:
    """The decoder of the draft head: one layer of full attention, with experts if the Thinker has any."""
    return dataclasses.replace(
        text, num_hidden_layers=1, layer_types=(), linear=None, mlp_only_layers=(), decoder_sparse_step=1
    )


def _example(text: DecoderConfig) -> dict[str, np.ndarray]:
    batch, tokens, rows = 2, 5, 6
    return {
        "input_ids": np.zeros((batch, tokens), np.int64),
        "hidden": np.zeros((batch, tokens, text.hidden_size), np.float32),
        "positions": np.broadcast_to(np.arange(tokens, dtype=np.float32), (3, batch, tokens)).copy(),
        "query_length": np.full(batch, tokens, np.int64),
        "past_length": np.zeros(batch, np.int64),
        "output_index": np.arange(rows, dtype=np.int64),
    }


def _weights(text: DecoderConfig, checkpoint: TensorSource) -> dict[str, WeightSource]:
    prefix = next((prefix for prefix in PREFIXES if checkpoint.has(f"{prefix}.fc.weight")), PREFIXES[0])
    embedding, own_head = "thinker.model.embed_tokens.weight", f"{prefix}.lm_head.weight"

    def shared_head() -> WeightSource:
        return head(checkpoint, "thinker.lm_head.weight", embedding, text.tie_word_embeddings, transposed)

    return {
        "embedding": plain(embedding),
        "embedding_norm.weight": norm(text, f"{prefix}.pre_fc_norm_embedding.weight"),
        "hidden_norm.weight": norm(text, f"{prefix}.pre_fc_norm_hidden.weight"),
        "join.weight": transposed(f"{prefix}.fc.weight"),
        "norm.weight": norm(text, f"{prefix}.norm.weight"),
        "head.weight": transposed(own_head) if checkpoint.has(own_head) else shared_head(),
        **layer_weights(checkpoint, text, 0, f"{prefix}.layers.0", "layers.0"),
    }
