"""Code2Wav of Qwen3.5-Omni: strictly causal, from the codec folder or from the checkpoint's own tensors."""

from __future__ import annotations

from ..code2wav.stage import make_code2wav_stage
from ..code2wav.tensors import tensor_shapes
from ..config import OmniConfig
from ..stage import Stage

__all__ = ["code2wav_stage", "tensor_shapes"]


def code2wav_stage(config: OmniConfig) -> Stage:
    """The Code2Wav stage of `config`, as `make_code2wav_stage` says; with the right-only trim of this family `lead_samples` is 0.

    Source: TensorRT-Edge-LLM 0.11 (qwen3_omni_next Code2Wav) and the 12 Hz decoder of qwen-tts 0.1.1.
    """
    return make_code2wav_stage(config)
