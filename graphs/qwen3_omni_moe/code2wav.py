"""Code2Wav of Qwen3-Omni: codes averaged in one table, and a symmetric trim that makes the stream run 555 samples late."""

from __future__ import annotations

from ..code2wav.stage import make_code2wav_stage
from ..config import OmniConfig
from ..stage import Stage


def code2wav_stage(config: OmniConfig) -> Stage:
    """The Code2Wav stage of `config`, as `make_code2wav_stage` says. Source: Qwen3OmniMoeCode2Wav."""
    return make_code2wav_stage(config)
