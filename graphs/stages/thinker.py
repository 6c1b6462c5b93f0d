"""Thinker: the language model that reads text, audio and vision features and writes text.

Source: HF Qwen3OmniMoeThinkerForConditionalGeneration. The Thinker of Qwen3.5-Omni differs only in its
layers, which its configuration states (HF Qwen3_5MoeForCausalLM, Qwen3_5ForCausalLM).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ...plugins.sample_token.torch_op import sample_token
from ...runtime.bundle.specs import TensorSpec
from ..config import OmniConfig
from ..layers.decoder import Projection, RootMeanSquareNorm, decoder_layers, rotary_tables
from ..layers.decoder_specs import decoder_states, greedy_sampling, layer_weights, sampling_inputs
from ..layers.decoder_weights import norm
from ..layers.weights import head
from ..stage import Stage, TensorSource, WeightSource, plain, transposed

NAME = "thinker"


class Thinker(nn.Module):
    """One forward pass over new tokens, with sampling at the rows of `output_index`."""

    def __init__(self, config: OmniConfig) -> None:
        super().__init__()
        text = config.thinker.text
        self.text = text
        self.deepstack_layers = config.thinker.deepstack_layers
        self.tapped = config.talker.accept_hidden_layer if config.talker else text.num_hidden_layers
        self.embedding = nn.Parameter(torch.empty(text.vocab_size, text.hidden_size))
        self.layers = decoder_layers(text)
        self.norm = RootMeanSquareNorm(text.hidden_size, text.rms_norm_eps)
        self.head = Projection(text.hidden_size, text.vocab_size)

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor,
        query_length: Tensor,
        past_length: Tensor,
        features: Tensor,
        feature_index: Tensor,
        *rest: Tensor,
    ) -> tuple[Tensor, ...]:
        """Arguments in the order of `thinker_stage(...).inputs`, then the past states.

        Returns token, logits, hidden, present states.
        """
        deepstack = None
        if self.deepstack_layers:
            deepstack, deepstack_index, *rest = rest  # type: ignore[assignment]
        output_index, noise, temperature, top_k, top_p, repetition_penalty, penalised, suppressed, *past = (
            rest
        )

        batch, tokens = input_ids.shape
        hidden_size = self.text.hidden_size
        embedded = self.embedding[input_ids].reshape(batch * tokens, hidden_size)
        x = embedded.index_put((feature_index,), features).reshape(batch, tokens, hidden_size)
        rotary = rotary_tables(positions, self.text.rope, self.text.head_dim)

        tapped, present = x, []
        for number, layer in enumerate(self.layers):
            x, *states = layer(x, rotary, query_length, past_length, *past[2 * number : 2 * number + 2])
            present += states
            if number + 1 == self.tapped:
                tapped = x  # before the deepstack addition, as HF records hidden_states[k]
            if deepstack is not None and number < self.deepstack_layers:
                rows = x.reshape(batch * tokens, hidden_size)
                x = rows.index_put((deepstack_index,), deepstack[number], accumulate=True).reshape(
                    batch, tokens, hidden_size
                )
        normed = self.norm(x)
        if not 0 <= self.tapped < len(self.layers):
            tapped = normed  # hidden_states[L] is after the final norm

        logits = self.head(normed.reshape(batch * tokens, hidden_size)[output_index])
        token = sample_token(
            logits, noise, temperature, top_k, top_p, repetition_penalty, penalised, suppressed
        )
        return token, logits, tapped, *present


def thinker_stage(config: OmniConfig) -> Stage:
    """The Thinker stage of `config`; tensors as in docs/stages.md."""
    text = config.thinker.text
    layers = config.thinker.deepstack_layers
    deepstack = (
        TensorSpec("deepstack", "float32", (layers, "visuals", text.hidden_size)),
        TensorSpec("deepstack_index", "int64", ("visuals",)),
    )
    return Stage(
        NAME,
        lambda: Thinker(config),
        inputs=(
            TensorSpec("input_ids", "int64", ("batch", "tokens")),
            TensorSpec("positions", "float32", (3, "batch", "tokens")),
            TensorSpec("query_length", "int64", ("batch",)),
            TensorSpec("past_length", "int64", ("batch",)),
            TensorSpec("features", "float32", ("features", text.hidden_size)),
            TensorSpec("feature_index", "int64", ("features",)),
            *(deepstack if layers else ()),
            TensorSpec("output_index", "int64", ("rows",)),
            *sampling_inputs(text.vocab_size),
        ),
        outputs=(
            TensorSpec("token", "int64", ("rows",)),
            TensorSpec("logits", "float32", ("rows", text.vocab_size)),
            TensorSpec("hidden", "float32", ("batch", "tokens", text.hidden_size)),
        ),
        states=decoder_states(text),
        example=lambda: _example(config),
        weights=lambda checkpoint: _weights(config, checkpoint),
        constants={
            "hidden_size": text.hidden_size,
            "vocab_size": text.vocab_size,
            "context": text.max_position_embeddings,
            "deepstack_layers": layers,
        },
        configuration=(text, layers, config.talker.accept_hidden_layer if config.talker else None),
    )


def _example(config: OmniConfig) -> dict[str, np.ndarray]:
    text = config.thinker.text
    batch, tokens, features, visuals, rows = 2, 5, 4, 3, 6
    layers = config.thinker.deepstack_layers
    feeds: dict[str, np.ndarray] = {
        "input_ids": np.zeros((batch, tokens), np.int64),
        "positions": np.broadcast_to(np.arange(tokens, dtype=np.float32), (3, batch, tokens)).copy(),
        "query_length": np.full(batch, tokens, np.int64),
        "past_length": np.zeros(batch, np.int64),
        "features": np.zeros((features, text.hidden_size), np.float32),
        "feature_index": np.arange(features, dtype=np.int64),
        "output_index": np.arange(rows, dtype=np.int64),
    }
    if layers:
        feeds["deepstack"] = np.zeros((layers, visuals, text.hidden_size), np.float32)
        feeds["deepstack_index"] = np.arange(visuals, dtype=np.int64)
    return feeds | greedy_sampling(rows, text.vocab_size)


def _weights(config: OmniConfig, checkpoint: TensorSource) -> dict[str, WeightSource]:
    text = config.thinker.text
    embedding = "thinker.model.embed_tokens.weight"
    weights = {
        "embedding": plain(embedding),
        "norm.weight": norm(text, "thinker.model.norm.weight"),
        "head.weight": head(
            checkpoint, "thinker.lm_head.weight", embedding, text.tie_word_embeddings, transposed
        ),
    }
    for layer in range(text.num_hidden_layers):
        weights |= layer_weights(checkpoint, text, layer, f"thinker.model.layers.{layer}", f"layers.{layer}")
    return weights
