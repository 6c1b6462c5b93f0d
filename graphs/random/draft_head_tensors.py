"""Random tensors of the Thinker's draft head (stage mtp).

Names: TensorRT-Edge-LLM 0.11 (`qwen3_omni_next`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

from ..config import ThinkerConfig
from .decoder_tensors import decoder_layer, layer_norm
from .initializers import BRANCH_POWER, Tensor, linear


def draft_head(thinker: ThinkerConfig) -> Iterator[Tensor]:
    """The tensors of the draft head, which always has full attention."""
    text = dataclasses.replace(thinker.text, layer_types=(), linear=None, num_hidden_layers=1)
    prefix, hidden = "thinker.mtp", text.hidden_size
    yield from layer_norm(f"{prefix}.pre_fc_norm_embedding", text, hidden)
    yield from layer_norm(f"{prefix}.pre_fc_norm_hidden", text, hidden)
    yield from linear(f"{prefix}.fc", hidden, 2 * hidden)
    yield from decoder_layer(f"{prefix}.layers.0", text, 0, math.sqrt(BRANCH_POWER / 2))
    yield from layer_norm(f"{prefix}.norm", text, hidden)
