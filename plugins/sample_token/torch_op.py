"""SampleToken inside a stage module: the PyTorch op `antiphon::sample_token`."""

from __future__ import annotations

import torch
from torch import Tensor

from .reference import sample_token as reference


@torch.library.custom_op("antiphon::sample_token", mutates_args=())
def sample_token(
    logits: Tensor,
    noise: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    repetition_penalty: Tensor,
    penalised: Tensor,
    suppressed: Tensor,
) -> Tensor:
    """See plugins.registry.SAMPLE_TOKEN. Runs the NumPy reference."""
    arguments = (logits.float(), noise, temperature, top_k, top_p, repetition_penalty, penalised, suppressed)
    return torch.from_numpy(reference(*(argument.numpy(force=True) for argument in arguments)))


@sample_token.register_fake
def _(
    logits: Tensor,
    noise: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    repetition_penalty: Tensor,
    penalised: Tensor,
    suppressed: Tensor,
) -> Tensor:
    return logits.new_empty((logits.shape[0],), dtype=torch.int64)
