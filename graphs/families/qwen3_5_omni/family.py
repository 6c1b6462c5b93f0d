"""The record of Qwen3.5-Omni: Gated DeltaNet layers, a Talker with its own text embedding, a codec folder."""

from __future__ import annotations

from pathlib import Path

from ....runtime.bundle.sampling import SamplingParameters
from ...config import Code2WavConfig, OmniConfig
from ...stage import Stage
from ..base import HEARING_ALONE, SEEING_ALONE, TEXT_ALONE, CodecFiles, Family, RandomCheckpoint
from .codec_folder import CONFIG_NAME, FOLDERS, WEIGHTS_NAME, codec_yaml, find_codec_folder
from .config import read_qwen3_5_omni


def _stages(config: OmniConfig) -> tuple[Stage, ...]:
    from ...stages.omni_stages import omni_stages
    from .talker import talker_stage

    return omni_stages(config, talker_stage)


def _find_codec(checkpoint: Path) -> CodecFiles | None:
    folder = find_codec_folder(checkpoint)
    return None if folder is None else CodecFiles(folder / CONFIG_NAME, folder / WEIGHTS_NAME)


def _new_codec(checkpoint: Path, config: Code2WavConfig) -> CodecFiles:
    folder = checkpoint / FOLDERS[0]
    folder.mkdir()
    (folder / CONFIG_NAME).write_text(codec_yaml(config), encoding="utf-8")
    return CodecFiles(folder / CONFIG_NAME, folder / WEIGHTS_NAME)


def _random() -> RandomCheckpoint:
    from .random_sizes import SIZES, qwen3_5_configuration
    from .random_tensors import speech_tensors

    return RandomCheckpoint(
        sizes=tuple(SIZES),
        configuration=lambda size, tokens, dtype: qwen3_5_configuration(SIZES[size], tokens, dtype),
        speech=speech_tensors,
        model_max_length=262144,
        new_codec=_new_codec,
    )


FAMILY = Family(
    name="qwen3_5_omni",
    read_config=read_qwen3_5_omni,
    stages=_stages,
    predictor=SamplingParameters(temperature=0.9, top_k=50, top_p=1.0),  # TensorRT-Edge-LLM 0.11
    random=_random,
    aliases=("qwen3_omni_next",),
    thinkers={
        "qwen3_omni_next_thinker": HEARING_ALONE,
        "qwen3_5_moe": SEEING_ALONE,
        "qwen3_5": SEEING_ALONE,
        "qwen3_5_moe_text": TEXT_ALONE,
        "qwen3_5_text": TEXT_ALONE,
    },
    find_codec=_find_codec,
)
