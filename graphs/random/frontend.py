"""Configuration files of a random checkpoint: chat template, feature extraction and generation defaults."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from .tokenizer import TokenIds

PREPROCESSOR = {
    "feature_extractor_type": "WhisperFeatureExtractor",
    "feature_size": 128,
    "sampling_rate": 16000,
    "hop_length": 160,
    "n_fft": 400,
    "chunk_length": 300,
    "n_samples": 4800000,
    "nb_max_frames": 30000,
    "dither": 0.0,
    "padding_side": "right",
    "padding_value": 0.0,
    "return_attention_mask": True,
    "image_processor_type": "Qwen2VLImageProcessor",
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
}
VIDEO_PREPROCESSOR = {
    "video_processor_type": "Qwen2VLVideoProcessor",
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "do_sample_frames": False,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"shortest_edge": 128 * 32 * 32, "longest_edge": 768 * 32 * 32},
    "min_frames": 4,
    "max_frames": 768,
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
}


def save(folder: Path, config: dict[str, Any], tokens: TokenIds, processor_class: str | None = None) -> None:
    """Write the configuration, generation, chat template and preprocessor files into `folder`.

    The preprocessor files state `processor_class`.
    """
    named = {} if processor_class is None else {"processor_class": processor_class}
    generation = {
        "eos_token_id": tokens["<|im_end|>"],
        "pad_token_id": tokens["<|endoftext|>"],
        "max_new_tokens": 1024,
        "talker_do_sample": True,
        "talker_temperature": 0.9,
        "talker_top_k": 50,
        "talker_top_p": 1.0,
        "talker_repetition_penalty": 1.05,
        "talker_max_new_tokens": 4096,
    }
    files = {
        "config.json": config,
        "generation_config.json": generation,
        "preprocessor_config.json": named | PREPROCESSOR,
        "video_preprocessor_config.json": named | VIDEO_PREPROCESSOR,
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    template = resources.files(__package__).joinpath("chat_template.jinja").read_text(encoding="utf-8")
    (folder / "chat_template.jinja").write_text(template.rstrip("\n"), encoding="utf-8")
