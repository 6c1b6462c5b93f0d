"""The speech tensors of a random Qwen3.5-Omni checkpoint: published name, shape and distribution.

Names: TensorRT-Edge-LLM 0.11 (`qwen3_omni_next`) and transformers 5.23 (`qwen3_5_moe`, `mimi`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from ...config import OmniConfig, TalkerConfig
from ...random.code2wav_tensors import split_code2wav
from ...random.codec_encoder_tensors import codec_encoder
from ...random.decoder_tensors import decoder
from ...random.initializers import BIAS, CodePrompts, Draw, Tensor, embedding, head

SPEAKER_FRAMES = (12, 20, 16)
"""Frames in the codec prompt of each speaker; repeated if there are more speakers."""


def speech_tensors(config: OmniConfig) -> Iterator[Tensor]:
    """Yield the tensors of Talker, predictor, Code2Wav and, if configured, the codec encoder."""
    talker, wave = config.talker, config.code2wav
    assert talker is not None and wave is not None
    hidden, predictor = talker.text.hidden_size, talker.predictor
    yield from decoder("talker.model", talker.text)
    yield embedding("talker.model.embed_tokens.weight", talker.text_vocab_size, hidden, 1.0)
    yield embedding("talker.model.codec_embedding.weight", talker.text.vocab_size, hidden, 0.7)
    special = tuple(
        row for row in range(wave.codebook_size, talker.text.vocab_size) if row != talker.codec_eos_token_id
    )
    yield head(
        "talker.codec_head.weight",
        talker.text.vocab_size,
        hidden,
        special,
        talker.codec_eos_token_id,
        _stop_scale(wave.codebook_size),
    )
    yield from _projection("talker.hidden_projection", hidden, talker.thinker_hidden_size)
    yield _speakers(talker, wave.codebook_size)
    yield from decoder("talker.code_predictor.model", predictor)
    if predictor.hidden_size != hidden:
        yield from _projection("talker.code_predictor.model.talker_projection", predictor.hidden_size, hidden)
    for group in range(talker.num_code_groups - 1):
        # The sum of fifteen of these in a Talker row has about the variance of a text row.
        yield embedding(
            f"talker.code_predictor.model.codec_embedding.{group}.weight", predictor.vocab_size, hidden, 0.35
        )
    for group in range(talker.num_code_groups - 1):
        yield head(
            f"talker.code_predictor.lm_head.{group}.weight", predictor.vocab_size, predictor.hidden_size
        )
    yield from split_code2wav(wave)
    if config.codec_encoder is not None:
        yield from codec_encoder(config.codec_encoder)


def _projection(prefix: str, rows: int, columns: int) -> Iterator[Tensor]:
    """The tensors of a Linear layer that the published family stores in float32."""
    yield Tensor(f"{prefix}.weight", (rows, columns), Draw(1 / math.sqrt(columns)), "float32")
    yield Tensor(f"{prefix}.bias", (rows,), Draw(BIAS), "float32")


def _speakers(talker: TalkerConfig, codebook: int) -> Tensor:
    rows = max(talker.speaker_id.values()) + 1
    frames = tuple(SPEAKER_FRAMES[row % len(SPEAKER_FRAMES)] for row in range(rows))
    return Tensor(
        "talker.speaker_codec_embeddings",
        (rows, talker.num_code_groups, max(frames)),
        CodePrompts(codebook, frames),
        "int64",
    )


def _stop_scale(codebook: int) -> float:
    """Scale of the codec head's row that ends speech. It grows with the number of codes.

    The end is chosen once in 50 to 100 frames (measured at tiny and small).
    """
    return math.log(codebook) / 4
