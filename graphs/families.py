"""The stages of every family, in the order they are built."""

from __future__ import annotations

from .config import OmniConfig
from .stage import Stage


def stages(config: OmniConfig) -> tuple[Stage, ...]:
    """All stages of the checkpoint that `config` describes; without audio output the three stages of speech are left out."""
    from .qwen3_omni_moe.audio_encoder import audio_encoder_stage
    from .qwen3_omni_moe.code2wav import code2wav_stage
    from .qwen3_omni_moe.predictor import predictor_stage
    from .qwen3_omni_moe.talker import talker_stage
    from .qwen3_omni_moe.thinker import thinker_stage
    from .qwen3_omni_moe.vision_encoder import vision_encoder_stage

    made = [audio_encoder_stage(config), vision_encoder_stage(config), thinker_stage(config)]
    if config.talker is not None:
        made += [talker_stage(config), predictor_stage(config), code2wav_stage(config)]
    return tuple(made)
