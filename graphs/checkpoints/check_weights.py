"""Compares the names of a checkpoint's tensors with its configuration, before any weight is read."""

from __future__ import annotations

import re
from pathlib import Path

from ...runtime.bundle.errors import AntiphonError
from ..config import OmniConfig
from .quantized_checkpoint import refuse_quantized_tensors
from .safetensors_folder import TensorList, find_tensors, has_weights
from .stored_parts import canonical_name

STACK_LAYER = re.compile(
    r"(thinker\.model|talker\.model|talker\.code_predictor\.model|thinker\.audio_tower"
    r"|thinker\.visual)\.(?:layers|blocks)\.(\d{1,9})\."
)


def check_folder(folder: str | Path, config: OmniConfig) -> None:
    """Call `check_weights` for the checkpoint in `folder`. A folder without weights passes."""
    if has_weights(Path(folder)):
        check_weights(find_tensors(Path(folder)), config)


def check_weights(listing: TensorList, config: OmniConfig) -> None:
    """Raise AntiphonError if the checkpoint is quantised or its number of layers differs from `config`."""
    refuse_quantized_tensors(listing.folder, listing.shards)
    stored: dict[str, int] = {}
    for name in listing.shards:
        if match := STACK_LAYER.match(canonical_name(name, config.rename)):
            stored[match[1]] = max(stored.get(match[1], 0), int(match[2]) + 1)
    stated = _stated(config) if stored else {}
    for stack, (field, layers) in stated.items():
        if stack in stored and stored[stack] != layers:
            raise AntiphonError(
                f"{listing.folder} is at odds with itself: its weights hold {stored[stack]} layers of "
                f"{stack}, expected {layers} by {field} in config.json; use the config.json of these weights."
            )


def _stated(config: OmniConfig) -> dict[str, tuple[str, int]]:
    """Stack of layers -> (field of config.json with its number of layers, number of layers)."""
    thinker, talker = config.thinker, config.talker
    stated = {
        "thinker.model": ("thinker_config.text_config.num_hidden_layers", thinker.text.num_hidden_layers),
    }
    if thinker.audio is not None:
        stated["thinker.audio_tower"] = (
            "thinker_config.audio_config.encoder_layers",
            thinker.audio.encoder_layers,
        )
    if thinker.vision is not None:
        stated["thinker.visual"] = ("thinker_config.vision_config.depth", thinker.vision.depth)
    if talker is not None:
        stated["talker.model"] = (
            "talker_config.text_config.num_hidden_layers",
            talker.text.num_hidden_layers,
        )
        stated["talker.code_predictor.model"] = (
            "talker_config.code_predictor_config.num_hidden_layers",
            talker.predictor.num_hidden_layers,
        )
    return stated
