"""The record of Qwen3-Omni: experts in Thinker and Talker, a Talker that reads the Thinker's embedding."""

from __future__ import annotations

from ....runtime.bundle.sampling import SamplingParameters
from ...config import OmniConfig
from ...stage import Stage
from ..base import HEARING_ALONE, Family, RandomCheckpoint
from .config import read_qwen3_omni


def _stages(config: OmniConfig) -> tuple[Stage, ...]:
    from ...stages.omni_stages import omni_stages
    from .talker import talker_stage

    return omni_stages(config, talker_stage)


def _random() -> RandomCheckpoint:
    from .random_sizes import SIZES, qwen3_configuration
    from .random_tensors import speech_tensors

    return RandomCheckpoint(
        sizes=tuple(SIZES),
        configuration=lambda size, tokens, dtype: qwen3_configuration(SIZES[size], tokens, dtype),
        speech=speech_tensors,
        model_max_length=131072,
        processor_class="Qwen3OmniMoeProcessor",
    )


FAMILY = Family(
    name="qwen3_omni_moe",
    read_config=read_qwen3_omni,
    stages=_stages,
    # Constants in HF's prepare_inputs_for_generation.
    predictor=SamplingParameters(temperature=1.0, top_k=50, top_p=0.8),
    random=_random,
    thinkers={"qwen3_omni_moe_thinker": HEARING_ALONE},
    parts_alone={
        "qwen3_omni_moe_talker": "Talker",
        "qwen3_omni_moe_talker_code_predictor": "code predictor",
        "qwen3_omni_moe_code2wav": "Code2Wav",
    },
)
