"""The stages of every family, in the order they are built."""

from __future__ import annotations

from ..config import OmniConfig
from ..stage import Stage


def stages(config: OmniConfig) -> tuple[Stage, ...]:
    """All stages of the checkpoint that `config` describes; those of parts that it lacks (an encoder, speech) are left out."""
    from ..stages.audio_encoder import audio_encoder_stage
    from ..stages.thinker import thinker_stage
    from ..stages.vision_encoder import vision_encoder_stage

    made = [audio_encoder_stage(config)] if config.thinker.audio else []
    made += [vision_encoder_stage(config)] if config.thinker.vision else []
    made.append(thinker_stage(config))
    if config.thinker.mtp_num_hidden_layers:
        from ..stages.mtp import mtp_stage

        made.append(mtp_stage(config))
    if config.talker is not None:
        made += _qwen3_5_speech(config) if config.family == "qwen3_5_omni" else _qwen3_speech(config)
    return tuple(made)


def _qwen3_speech(config: OmniConfig) -> list[Stage]:
    from ..stages.code2wav.stage import code2wav_stage
    from ..stages.predictor import predictor_stage
    from .qwen3_omni_moe.talker import talker_stage

    return [talker_stage(config), predictor_stage(config), code2wav_stage(config)]


def _qwen3_5_speech(config: OmniConfig) -> list[Stage]:
    from ..stages.code2wav.stage import code2wav_stage
    from ..stages.predictor import predictor_stage
    from .qwen3_5_omni.talker import talker_stage

    made = [talker_stage(config), predictor_stage(config), code2wav_stage(config)]
    if config.codec_encoder is not None:
        from ..stages.codec_encoder.stage import codec_encoder_stage

        made.append(codec_encoder_stage(config))
    return made
