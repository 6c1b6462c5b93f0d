"""Parts of every Talker stage: the sum that makes an input row, the decoder, and the tensors of the stage."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ...plugins.sample_token.torch_op import sample_token
from ...runtime.bundle.specs import TensorSpec
from ..config import DecoderConfig
from ..layers.decoder import Projection, RootMeanSquareNorm, rotary_tables, run_layers
from ..layers.decoder_specs import greedy_sampling, sampling_inputs


class TalkerDecoder(nn.Module):
    """The decoder of a Talker: input rows to the first code of a frame. A subclass makes the rows."""

    def __init__(self, text: DecoderConfig, layers: nn.ModuleList) -> None:
        super().__init__()
        self.text = text
        self.codec_embedding = nn.Parameter(torch.empty(text.vocab_size, text.hidden_size))
        self.layers = layers
        self.norm = RootMeanSquareNorm(text.hidden_size, text.rms_norm_eps)
        self.head = Projection(text.hidden_size, text.vocab_size)

    def joined(
        self,
        text_ids: Tensor,
        text_rows: Tensor,
        hidden_rows: Tensor,
        hidden_index: Tensor,
        codec_ids: Tensor,
        frame_rows: Tensor,
        frame_index: Tensor,
    ) -> Tensor:
        """The input rows [batch, tokens, hidden]: the sum of text, Thinker, codec and frame rows.

        text_rows [batch, tokens, hidden] belong to text_ids [batch, tokens]; where an id is -1, its row is
        ignored. A codec id of -1 adds nothing. hidden_rows and frame_rows [n, hidden] are added to the flat
        rows (b * tokens + t) of hidden_index and frame_index [n].
        """
        batch, tokens = text_ids.shape
        text = text_rows * (text_ids >= 0)[..., None]
        codec = self.codec_embedding[codec_ids.clamp(min=0)] * (codec_ids >= 0)[..., None]
        flat = (text + codec).reshape(batch * tokens, self.text.hidden_size)
        flat = flat.index_put((hidden_index,), hidden_rows, accumulate=True)
        flat = flat.index_put((frame_index,), frame_rows, accumulate=True)
        return flat.reshape(batch, tokens, self.text.hidden_size)

    def decode(
        self,
        x: Tensor,
        positions: Tensor,
        query_length: Tensor,
        past_length: Tensor,
        output_index: Tensor,
        rest: tuple[Tensor, ...],
    ) -> tuple[Tensor, ...]:
        """Run the layers over x [batch, tokens, hidden]. Returns token, logits, hidden, present states.

        `rest` are the sampling inputs and the past states.
        """
        noise, temperature, top_k, top_p, repetition_penalty, penalised, suppressed, *past = rest
        rotary = rotary_tables(positions, self.text.rope, self.text.head_dim)
        x, present = run_layers(self.layers, x, rotary, query_length, past_length, past)
        wanted = self.norm(x).reshape(-1, self.text.hidden_size)[output_index]
        logits = self.head(wanted)
        token = sample_token(
            logits, noise, temperature, top_k, top_p, repetition_penalty, penalised, suppressed
        )
        return token, logits, wanted, *present


def talker_inputs(text: DecoderConfig, thinker_hidden: int, frames: TensorSpec) -> tuple[TensorSpec, ...]:
    """The inputs of a Talker stage; `frames` [frames, size] is the family's input of whole frames."""
    return (
        TensorSpec("text_ids", "int64", ("batch", "tokens")),
        TensorSpec("hidden", "float32", ("hiddens", thinker_hidden)),
        TensorSpec("hidden_index", "int64", ("hiddens",)),
        TensorSpec("codec_ids", "int64", ("batch", "tokens")),
        frames,
        TensorSpec("frame_index", "int64", ("frames",)),
        TensorSpec("positions", "float32", (3, "batch", "tokens")),
        TensorSpec("query_length", "int64", ("batch",)),
        TensorSpec("past_length", "int64", ("batch",)),
        TensorSpec("output_index", "int64", ("rows",)),
        *sampling_inputs(text.vocab_size),
    )


def talker_outputs(text: DecoderConfig) -> tuple[TensorSpec, ...]:
    """The outputs of a Talker stage."""
    return (
        TensorSpec("token", "int64", ("rows",)),
        TensorSpec("logits", "float32", ("rows", text.vocab_size)),
        TensorSpec("output_hidden", "float32", ("rows", text.hidden_size)),
    )


def talker_example(text: DecoderConfig, thinker_hidden: int, frames: TensorSpec) -> dict[str, np.ndarray]:
    """Values of `talker_inputs` in which no two named axes have the same size."""
    batch, tokens, hiddens, count, rows = 2, 5, 3, 4, 6
    feeds: dict[str, np.ndarray] = {
        "text_ids": np.zeros((batch, tokens), np.int64),
        "hidden": np.zeros((hiddens, thinker_hidden), np.float32),
        "hidden_index": np.arange(hiddens, dtype=np.int64),
        "codec_ids": np.zeros((batch, tokens), np.int64),
        frames.name: np.zeros((count, int(frames.shape[1])), np.dtype(frames.dtype)),
        "frame_index": np.arange(count, dtype=np.int64),
        "positions": np.broadcast_to(np.arange(tokens, dtype=np.float32), (3, batch, tokens)).copy(),
        "query_length": np.full(batch, tokens, np.int64),
        "past_length": np.zeros(batch, np.int64),
        "output_index": np.arange(rows, dtype=np.int64),
    }
    return feeds | greedy_sampling(rows, text.vocab_size)
