"""The speech tensors of a random Qwen3-Omni checkpoint: published name, shape and distribution.

Names: model card of Qwen3-Omni-30B-A3B and transformers 5.23 (`qwen3_omni_moe`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from ...config import OmniConfig
from ...random.code2wav_tensors import averaged_code2wav
from ...random.decoder_tensors import decoder
from ...random.initializers import GATED_POWER, Tensor, embedding, head, linear


def speech_tensors(config: OmniConfig) -> Iterator[Tensor]:
    """Yield the tensors of Talker, predictor and Code2Wav."""
    assert config.talker is not None and config.code2wav is not None
    talker, codebook = config.talker, config.code2wav.codebook_size
    hidden = talker.text.hidden_size
    yield from decoder("talker.model", talker.text)
    yield embedding("talker.model.codec_embedding.weight", talker.text.vocab_size, hidden, 0.7)
    special = tuple(
        row for row in range(codebook, talker.text.vocab_size) if row != talker.codec_eos_token_id
    )
    yield head("talker.codec_head.weight", talker.text.vocab_size, hidden, special, talker.codec_eos_token_id)
    for name in ("text_projection", "hidden_projection"):
        inner = talker.text.intermediate_size
        yield from linear(f"talker.{name}.linear_fc1", inner, talker.thinker_hidden_size, bias=True)
        yield from linear(
            f"talker.{name}.linear_fc2", hidden, inner, bias=True, gain=1 / math.sqrt(GATED_POWER)
        )
    predictor = talker.predictor
    yield from decoder("talker.code_predictor.model", predictor)
    for group in range(talker.num_code_groups - 1):
        # The sum of fifteen of these in a Talker row has about the variance of a text row.
        yield embedding(
            f"talker.code_predictor.model.codec_embedding.{group}.weight",
            predictor.vocab_size,
            predictor.hidden_size,
            0.35,
        )
    for group in range(talker.num_code_groups - 1):
        yield head(
            f"talker.code_predictor.lm_head.{group}.weight", predictor.vocab_size, predictor.hidden_size
        )
    yield from averaged_code2wav(config.code2wav)
