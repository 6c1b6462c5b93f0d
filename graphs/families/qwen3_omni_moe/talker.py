"""Talker of Qwen3-Omni: text, Thinker rows and frame rows to the first code of every frame.

Source: HF Qwen3OmniMoeTalkerForConditionalGeneration.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ....runtime.bundle.specs import TensorSpec
from ...config import OmniConfig, TalkerConfig
from ...layers.decoder import DecoderLayer, Projection
from ...layers.decoder_specs import decoder_states, layer_weights
from ...stage import Stage, TensorSource, WeightSource, plain, transposed
from ...stages.talker import TalkerDecoder, talker_example, talker_inputs, talker_outputs

NAME = "talker"


class RowProjection(nn.Module):
    """Maps Thinker rows to Talker rows: Linear, SiLU, Linear (HF Qwen3OmniMoeTalkerResizeMLP)."""

    def __init__(self, thinker_hidden: int, inter: int, talker_hidden: int) -> None:
        super().__init__()
        self.first = Projection(thinker_hidden, inter, bias=True)
        self.second = Projection(inter, talker_hidden, bias=True)

    def forward(self, rows: Tensor) -> Tensor:
        return self.second(torch.nn.functional.silu(self.first(rows)))


class Talker(TalkerDecoder):
    """One forward pass over new rows, made from ids, Thinker rows and frame rows."""

    def __init__(self, config: OmniConfig, talker: TalkerConfig) -> None:
        text, thinker = talker.text, config.thinker.text
        # HF makes every Talker layer sparse: it ignores mlp_only_layers.
        super().__init__(
            text, nn.ModuleList(DecoderLayer(text, sparse=True) for _ in range(text.num_hidden_layers))
        )
        self.text_embedding = nn.Parameter(torch.empty(thinker.vocab_size, thinker.hidden_size))
        self.text_projection = RowProjection(thinker.hidden_size, text.intermediate_size, text.hidden_size)
        self.hidden_projection = RowProjection(thinker.hidden_size, text.intermediate_size, text.hidden_size)

    def rows(
        self,
        text_ids: Tensor,
        hidden: Tensor,
        hidden_index: Tensor,
        codec_ids: Tensor,
        frame_rows: Tensor,
        frame_index: Tensor,
    ) -> Tensor:
        """The input rows [batch, tokens, hidden]; see TalkerDecoder.joined."""
        text = self.text_projection(self.text_embedding[text_ids.clamp(min=0)])
        return self.joined(
            text_ids, text, self.hidden_projection(hidden), hidden_index, codec_ids, frame_rows, frame_index
        )

    def forward(
        self,
        text_ids: Tensor,
        hidden: Tensor,
        hidden_index: Tensor,
        codec_ids: Tensor,
        frame_rows: Tensor,
        frame_index: Tensor,
        positions: Tensor,
        query_length: Tensor,
        past_length: Tensor,
        output_index: Tensor,
        *rest: Tensor,
    ) -> tuple[Tensor, ...]:
        """Arguments in the order of `talker_stage(...).inputs`, then the past states.

        Returns token, logits, hidden, present states.
        """
        x = self.rows(text_ids, hidden, hidden_index, codec_ids, frame_rows, frame_index)
        return self.decode(x, positions, query_length, past_length, output_index, rest)


def talker_stage(config: OmniConfig) -> Stage:
    """The Talker stage of `config`; tensors as in docs/stages.md."""
    assert config.talker is not None
    talker, text, thinker_hidden = config.talker, config.talker.text, config.thinker.text.hidden_size
    frames = TensorSpec("frame_rows", "float32", ("frames", text.hidden_size))
    return Stage(
        NAME,
        lambda: Talker(config, talker),
        inputs=talker_inputs(text, thinker_hidden, frames),
        outputs=talker_outputs(text),
        states=decoder_states(text),
        example=lambda: talker_example(text, thinker_hidden, frames),
        weights=lambda checkpoint: _weights(talker, checkpoint),
        constants={
            "hidden_size": text.hidden_size,
            "vocab_size": text.vocab_size,
            "context": text.max_position_embeddings,
            "thinker_hidden_size": thinker_hidden,
        },
        configuration=(config.thinker.text, text, talker.predictor, talker.num_code_groups),
    )


def _weights(talker: TalkerConfig, checkpoint: TensorSource) -> dict[str, WeightSource]:
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
        weights |= layer_weights(
            checkpoint, talker.text, layer, f"talker.model.layers.{layer}", f"layers.{layer}"
        )
    return weights
