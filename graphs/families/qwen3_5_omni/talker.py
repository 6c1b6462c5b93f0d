"""Talker of Qwen3.5-Omni: text, Thinker rows and whole frames to the first code of every frame.

Rows are interleaved: every row is text, a Thinker row, a codec id or a frame (docs/stages.md). The layers are
those of HF Qwen3_5MoeTextModel and Qwen3_5TextModel. No public class computes the rows.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ....runtime.bundle.specs import TensorSpec
from ...config import OmniConfig, TalkerConfig
from ...layers.decoder import Projection, decoder_layers
from ...layers.decoder_specs import decoder_states, layer_weights
from ...layers.decoder_weights import norm
from ...stage import Stage, TensorSource, WeightSource, plain, transposed
from ...stages.talker import TalkerDecoder, talker_example, talker_inputs, talker_outputs

NAME = "talker"


class Talker(TalkerDecoder):
    """One forward pass over new rows, made from ids, Thinker rows and the codes of frames."""

    def __init__(self, talker: TalkerConfig) -> None:
        text = talker.text
        super().__init__(text, decoder_layers(text))
        self.groups, self.codebook = talker.num_code_groups, talker.predictor.vocab_size
        self.text_embedding = nn.Parameter(torch.empty(talker.text_vocab_size, text.hidden_size))
        self.hidden_projection = Projection(talker.thinker_hidden_size, text.hidden_size, bias=True)
        # The tables of the code predictor, one after another, for all codes of a frame except the first.
        self.residual_embedding = nn.Parameter(
            torch.empty((self.groups - 1) * self.codebook, text.hidden_size)
        )

    def frame_rows(self, frame_codes: Tensor) -> Tensor:
        """frame_codes [frames, groups] -> rows [frames, hidden]: the sum of the embeddings of all codes."""
        index = frame_codes[:, 1:] + torch.arange(self.groups - 1) * self.codebook
        return self.codec_embedding[frame_codes[:, 0]] + self.residual_embedding[index].sum(1)

    def rows(
        self,
        text_ids: Tensor,
        hidden: Tensor,
        hidden_index: Tensor,
        codec_ids: Tensor,
        frame_codes: Tensor,
        frame_index: Tensor,
    ) -> Tensor:
        """The input rows [batch, tokens, hidden]; see TalkerDecoder.joined."""
        text = self.text_embedding[text_ids.clamp(min=0)]
        return self.joined(
            text_ids,
            text,
            self.hidden_projection(hidden),
            hidden_index,
            codec_ids,
            self.frame_rows(frame_codes),
            frame_index,
        )

    def forward(
        self,
        text_ids: Tensor,
        hidden: Tensor,
        hidden_index: Tensor,
        codec_ids: Tensor,
        frame_codes: Tensor,
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
        x = self.rows(text_ids, hidden, hidden_index, codec_ids, frame_codes, frame_index)
        return self.decode(x, positions, query_length, past_length, output_index, rest)


def talker_stage(config: OmniConfig) -> Stage:
    """The Talker stage of `config`; tensors as in docs/stages.md."""
    assert config.talker is not None
    talker, text = config.talker, config.talker.text
    frames = TensorSpec("frame_codes", "int64", ("frames", talker.num_code_groups))
    return Stage(
        NAME,
        lambda: Talker(talker),
        inputs=talker_inputs(text, talker.thinker_hidden_size, frames),
        outputs=talker_outputs(text),
        states=decoder_states(text),
        example=lambda: talker_example(text, talker.thinker_hidden_size, frames),
        weights=lambda checkpoint: _weights(talker, checkpoint),
        constants={
            "hidden_size": text.hidden_size,
            "vocab_size": text.vocab_size,
            "context": text.max_position_embeddings,
            "thinker_hidden_size": talker.thinker_hidden_size,
            "text_vocab_size": talker.text_vocab_size,
            "codebook_size": talker.predictor.vocab_size,
            "code_groups": talker.num_code_groups,
        },
        configuration=(config.thinker.text, text, talker.predictor, talker.num_code_groups),
    )


def _weights(talker: TalkerConfig, checkpoint: TensorSource) -> dict[str, WeightSource]:
    tables = tuple(
        f"talker.code_predictor.model.codec_embedding.{group}.weight"
        for group in range(talker.num_code_groups - 1)
    )
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
        weights |= layer_weights(
            checkpoint, talker.text, layer, f"talker.model.layers.{layer}", f"layers.{layer}"
        )
    return weights
