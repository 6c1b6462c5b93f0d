"""Code predictor: the 15 residual codes of a frame, one per step (HF Qwen3OmniMoeTalkerCodePredictor...).

The portable graph is one step with its own key-value cache. ONNX Runtime's lowering unrolls all steps of a
frame into one graph (export/engines/onnxruntime/passes/unroll_loop.py). Step 0 reads two rows: the Talker's
hidden row and the embedding of code 0. Each later step reads one row: the embedding of the previous code.
Qwen3.5-Omni projects Talker rows to the predictor's width and has gated attention.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ...plugins.sample_token.torch_op import sample_token
from ...runtime.bundle.errors import AntiphonError
from ...runtime.bundle.specs import TensorSpec
from ..config import OmniConfig, TalkerConfig
from ..layers.decoder import DecoderLayer, Projection, RootMeanSquareNorm, rotary_tables, run_layers
from ..layers.decoder_specs import decoder_states, greedy_sampling, layer_weights, sampling_inputs
from ..layers.decoder_weights import norm
from ..stage import Stage, StageLoop, TensorSource, WeightSource, plain, transposed

NAME = "predictor"


class PredictorStep(nn.Module):
    """Step s of a frame: code s to code s + 1."""

    def __init__(self, talker: TalkerConfig) -> None:
        super().__init__()
        config, groups = talker.predictor, talker.num_code_groups
        self.config = config
        # Table 0 is the Talker's codec embedding without its special ids, which no frame contains.
        self.code_embedding = nn.Parameter(torch.empty(groups * config.vocab_size, talker.text.hidden_size))
        self.projection = (
            Projection(talker.text.hidden_size, config.hidden_size, bias=True)
            if talker.predictor_projection
            else None
        )
        self.layers = nn.ModuleList(
            DecoderLayer(config, sparse=False) for _ in range(config.num_hidden_layers)
        )
        self.norm = RootMeanSquareNorm(config.hidden_size, config.rms_norm_eps)
        self.heads = nn.Parameter(torch.empty(groups - 1, config.hidden_size, config.vocab_size))

    def forward(
        self, hidden: Tensor, code: Tensor, step: Tensor, past_length: Tensor, *rest: Tensor
    ) -> tuple[Tensor, ...]:
        """hidden [batch, 1 at step 0 else 0, talker hidden]; code int64 [batch]; step int64 [1]; past_length
        int64 [batch].

        `rest` are the sampling inputs and the past states. Returns token int64 [batch], logits [batch,
        codebook], code_row [batch, talker hidden] (the embedding of `code`) and the present states.
        """
        noise, temperature, top_k, top_p, repetition_penalty, penalised, suppressed, *past = rest
        code_row = self.code_embedding[code + step * self.config.vocab_size]
        x = torch.cat([hidden, code_row[:, None]], dim=1)
        tokens = x.shape[1]
        if self.projection is not None:
            x = self.projection(x)
        positions = (past_length[:, None] + torch.arange(tokens)).float()
        rotary = rotary_tables(positions[None], self.config.rope, self.config.head_dim)
        query_length = torch.zeros_like(past_length) + tokens
        x, present = run_layers(self.layers, x, rotary, query_length, past_length, past)
        last = self.norm(x[:, -1])
        logits = last @ torch.index_select(self.heads, 0, step)[0]
        token = sample_token(
            logits, noise, temperature, top_k, top_p, repetition_penalty, penalised, suppressed
        )
        return token, logits, code_row, *present


def predictor_stage(config: OmniConfig) -> Stage:
    """The code predictor stage of `config`: one step and its loop, whose tensors are in docs/stages.md."""
    assert config.talker is not None
    talker, text = config.talker, config.talker.predictor
    row_size = talker.text.hidden_size
    return Stage(
        NAME,
        lambda: PredictorStep(talker),
        inputs=(
            TensorSpec("hidden", "float32", ("batch", "hiddens", row_size)),
            TensorSpec("code", "int64", ("batch",)),
            TensorSpec("step", "int64", (1,)),
            TensorSpec("past_length", "int64", ("batch",)),
            *sampling_inputs(text.vocab_size, "batch"),
        ),
        outputs=(
            TensorSpec("token", "int64", ("batch",)),
            TensorSpec("logits", "float32", ("batch", text.vocab_size)),
            TensorSpec("code_row", "float32", ("batch", row_size)),
        ),
        states=decoder_states(text),
        example=lambda: _example(talker),
        weights=lambda checkpoint: _weights(talker, checkpoint),
        constants={
            "hidden_size": row_size,
            "codebook_size": text.vocab_size,
            "code_groups": talker.num_code_groups,
        },
        configuration=(row_size, text, talker.num_code_groups, talker.predictor_projection),
        loop=frame_loop(row_size, text.vocab_size, talker.num_code_groups),
    )


def frame_loop(row_size: int, codebook: int, groups: int) -> StageLoop:
    """The loop over a frame: a Talker row [row_size] and code 0 to `groups` codes and the frame's row."""
    return StageLoop(
        steps=groups - 1,
        inputs=(
            TensorSpec("hidden", "float32", ("batch", row_size)),
            TensorSpec("code0", "int64", ("batch",)),
            TensorSpec("noise", "float32", ("batch", groups - 1)),
            TensorSpec("temperature", "float32", ("batch",)),
            TensorSpec("top_k", "int64", ("batch",)),
            TensorSpec("top_p", "float32", ("batch",)),
        ),
        outputs=(
            TensorSpec("codes", "int64", ("batch", groups)),
            TensorSpec("frame_row", "float32", ("batch", row_size)),
            TensorSpec("logits", "float32", ("batch", groups - 1, codebook)),
        ),
        counter="step",
        first_rows="hidden",
        carried=("code0", "code", "token"),
        columns=("noise",),
        shared=("temperature", "top_k", "top_p"),
        fixed={"repetition_penalty": 1.0, "penalised": 0.0, "suppressed": 0.0},
        gathered="codes",
        stacked={"logits": "logits"},
        summed=("frame_row", "code_row", "code_embedding"),
        indexed=("heads",),
    )


def _example(talker: TalkerConfig) -> dict[str, np.ndarray]:
    batch, hiddens = 3, 2
    feeds: dict[str, np.ndarray] = {
        "hidden": np.zeros((batch, hiddens, talker.text.hidden_size), np.float32),
        "code": np.zeros(batch, np.int64),
        "step": np.zeros(1, np.int64),
        "past_length": np.zeros(batch, np.int64),
    }
    return feeds | greedy_sampling(batch, talker.predictor.vocab_size)


def _weights(talker: TalkerConfig, checkpoint: TensorSource) -> dict[str, WeightSource]:
    config, residuals = talker.predictor, range(talker.num_code_groups - 1)
    prefix = "talker.code_predictor"
    tables = (
        "talker.model.codec_embedding.weight",
        *(f"{prefix}.model.codec_embedding.{group}.weight" for group in residuals),
    )
    weights = {
        "code_embedding": WeightSource(
            tables, lambda *parts: np.concatenate([part[: config.vocab_size] for part in parts])
        ),
        "norm.weight": norm(config, f"{prefix}.model.norm.weight"),
        "heads": WeightSource(
            tuple(f"{prefix}.lm_head.{group}.weight" for group in residuals),
            lambda *parts: np.stack([part.T for part in parts]),
        ),
    }
    if talker.predictor_projection:
        weights |= _projection(talker, checkpoint, f"{prefix}.model.talker_projection")
    for layer in range(config.num_hidden_layers):
        weights |= layer_weights(
            checkpoint, config, layer, f"{prefix}.model.layers.{layer}", f"layers.{layer}"
        )
    return weights


def _projection(talker: TalkerConfig, checkpoint: TensorSource, prefix: str) -> dict[str, WeightSource]:
    """Weight sources of the projection of Talker rows to predictor rows.

    Without a stored projection both rows have the same size, and the projection is the identity.
    """
    rows, size = talker.text.hidden_size, talker.predictor.hidden_size
    if not checkpoint.has(f"{prefix}.weight"):
        if rows != size:
            raise AntiphonError(
                f"{checkpoint.path}: tensor {prefix}.weight is missing, expected [{size}, {rows}] "
                f"because the Talker has rows of {rows} values and the code predictor of {size}; "
                "use the complete checkpoint."
            )
        return {
            "projection.weight": WeightSource((), lambda: np.eye(rows, dtype=np.float32)),
            "projection.bias": _zeros(size),
        }
    bias = plain(f"{prefix}.bias") if checkpoint.has(f"{prefix}.bias") else _zeros(size)
    return {"projection.weight": transposed(f"{prefix}.weight"), "projection.bias": bias}


def _zeros(size: int) -> WeightSource:
    return WeightSource((), lambda: np.zeros(size, np.float32))
