"""All stages of a Qwen omni model, from the encoders to Code2Wav and the codec encoder."""

from __future__ import annotations

from collections.abc import Callable

from ..config import OmniConfig
from ..stage import Stage
from .audio_encoder import audio_encoder_stage
from .code2wav.stage import code2wav_stage
from .codec_encoder.stage import codec_encoder_stage
from .mtp import mtp_stage
from .predictor import predictor_stage
from .thinker import thinker_stage
from .vision_encoder import vision_encoder_stage


def omni_stages(config: OmniConfig, talker_stage: Callable[[OmniConfig], Stage]) -> tuple[Stage, ...]:
    """The stages of `config` in build order, without those of parts that the checkpoint lacks.

    `talker_stage` makes the family's Talker stage.
    """
    thinker = config.thinker
    stages = [audio_encoder_stage(config)] if thinker.audio else []
    stages += [vision_encoder_stage(config)] if thinker.vision else []
    stages.append(thinker_stage(config))
    stages += [mtp_stage(config)] if thinker.mtp_num_hidden_layers else []
    if config.talker is not None:
        stages += [talker_stage(config), predictor_stage(config), code2wav_stage(config)]
        stages += [codec_encoder_stage(config)] if config.codec_encoder is not None else []
    return tuple(stages)
