"""Every tensor of a random checkpoint: published name, shape and distribution."""

from __future__ import annotations

from collections.abc import Iterator

from ..config import OmniConfig
from ..families.registry import family
from .decoder_tensors import decoder
from .draft_head_tensors import draft_head
from .encoder_tensors import audio, vision
from .initializers import Tensor, embedding, head


def all_tensors(config: OmniConfig, faint_tokens: tuple[int, ...] = ()) -> Iterator[Tensor]:
    """Yield all tensors of a checkpoint of `config`, in file order and in the per-expert layout.

    `faint_tokens` are text ids that the Thinker should almost never choose.
    """
    thinker = config.thinker
    yield from decoder("thinker.model", thinker.text)
    vocabulary, width = thinker.text.vocab_size, thinker.text.hidden_size
    if thinker.text.tie_word_embeddings:
        yield head(
            "thinker.model.embed_tokens.weight", vocabulary, width, faint_tokens, config.im_end_token_id
        )
    else:
        yield embedding("thinker.model.embed_tokens.weight", vocabulary, width, 1.0)
        yield head("thinker.lm_head.weight", vocabulary, width, faint_tokens, config.im_end_token_id)
    if thinker.audio is not None:
        yield from audio("thinker.audio_tower", thinker.audio)
    if thinker.vision is not None:
        yield from vision("thinker.visual", thinker.vision)
    if thinker.mtp_num_hidden_layers:
        yield from draft_head(thinker)
    if config.talker is not None:
        yield from family(config.family).random().speech(config)
