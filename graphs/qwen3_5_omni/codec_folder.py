"""The codec in a folder of its own, as Qwen3.5-Omni ships it: `config.yaml` and `model_weights.pt`."""

from __future__ import annotations

from pathlib import Path

from ..config import Code2WavConfig

FOLDERS = ("codec_decode_online", "code2wav")


def find_codec_folder(checkpoint: Path) -> Path | None:
    """The folder of the codec inside the folder `checkpoint`, or None where config.json holds it all."""
    return next((checkpoint / name for name in FOLDERS if (checkpoint / name / "config.yaml").is_file()), None)


def read_code2wav_config(folder: Path) -> Code2WavConfig:
    """Written by the codec's owner."""
    raise NotImplementedError(folder)
