"""Makes the golden files of the strictly causal codec decoder with the decoder class of the package qwen-tts.

Newer versions of transformers cannot run that class, so it needs an environment of its own. From the root of
the repository:

    python -m venv golden && golden/bin/pip install torch transformers==4.57.3
    golden/bin/pip install --no-deps qwen-tts==0.1.1
    golden/bin/python -P scripts/goldens/codec.py tests/data/codec_golden

-P keeps this folder off the import path. Each case is a
small random decoder: NAME.npz holds its weights, codes and waveform, NAME.json its configuration, the seed
and the versions.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

SEED = 20
LOUDNESS = 0.05
"""Root mean square of the waveform, low enough that nothing is clipped."""
SMALL: dict[str, Any] = {
    "codebook_size": 16,
    "codebook_dim": 12,
    "num_quantizers": 4,
    "latent_dim": 16,
    "hidden_size": 12,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "sliding_window": 5,
    "rope_theta": 10_000.0,
    "rms_norm_eps": 1e-5,
    "upsampling_ratios": [2, 2],
    "upsample_rates": [8, 5, 4, 3],
    "decoder_dim": 16,
}
CASES: dict[str, tuple[dict[str, Any], int, int]] = {
    "published_rates": (SMALL, 2, 9),
    "long_stream": (
        SMALL
        | {
            "upsampling_ratios": [3],
            "upsample_rates": [3, 2],
            "num_key_value_heads": 1,
            "latent_dim": 12,
            "sliding_window": 7,
        },
        1,
        90,
    ),
}
"""Configuration of the decoder class, rows and frames.

The second outlasts its window many times and has projections of equal widths.
"""
PACKAGES = ("qwen-tts", "transformers", "torch", "numpy")


def main() -> None:
    """Write every case into the folder given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    modeling = _modeling()
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    for name, (config, rows, frames) in CASES.items():
        model = _decoder(modeling, config)
        codes = np.random.default_rng(SEED).integers(
            0, config["codebook_size"], (rows, frames, config["num_quantizers"])
        )
        with torch.inference_mode():
            last, loudness = model.decoder[-1].conv, _waveform(model, codes).std()
            for parameter in (last.weight, last.bias):
                parameter.mul_(LOUDNESS / loudness)
            waveform = _waveform(model, codes)
        weights = {f"weights/{tensor}": value.numpy() for tensor, value in model.state_dict().items()}
        np.savez_compressed(folder / f"{name}.npz", codes=codes, waveform=waveform.numpy(), **weights)
        described = {"class": type(model).__name__, "config": config, "seed": SEED, "versions": versions}
        (folder / f"{name}.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
        print(
            f"{name}: {tuple(waveform.shape)} samples, RMS {waveform.std():.3f}, "
            f"peak {waveform.abs().max():.3f}"
        )


def _modeling() -> Any:
    """The module of the decoder alone: its package imports recording and download libraries that the decoder
    does not need."""
    spec = importlib.util.find_spec("qwen_tts")
    if spec is None or not spec.submodule_search_locations:
        sys.exit(
            "The package qwen-tts is not installed; "
            "make the environment that the head of this file describes."
        )
    sys.path.insert(0, str(Path(next(iter(spec.submodule_search_locations))) / "core"))
    return importlib.import_module("tokenizer_12hz.modeling_qwen3_tts_tokenizer_v2")


def _decoder(modeling: Any, config: dict[str, Any]) -> Any:
    """A decoder with random weights: every bias, scale, usage and exponent differs from its initial value."""
    model = (
        modeling.Qwen3TTSTokenizerV2Decoder(modeling.Qwen3TTSTokenizerV2DecoderConfig(**config))
        .eval()
        .requires_grad_(False)
    )
    generator = torch.Generator().manual_seed(SEED)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("cluster_usage"):
            values = noise.exp() * (noise > -1.5)  # some entries were never used
        elif name.endswith(("scale", "gamma")):
            values = 0.5 + 0.1 * noise
        elif "norm" in name and name.endswith("weight"):
            values = 1 + 0.1 * noise
        elif name.endswith(("alpha", "beta", "bias")):
            values = 0.2 * noise
        else:
            values = noise if name.endswith("embedding_sum") else 0.6 * noise / parameter[0].numel() ** 0.5
        parameter.data = values
    for name, parameter in model.named_parameters():
        if name.endswith("embedding_sum"):  # rarely used entries have small sums
            usage = model.get_parameter(name.replace("embedding_sum", "cluster_usage"))
            parameter.mul_(usage.clamp(min=1e-5)[:, None])
    return model


def _waveform(model: Any, codes: np.ndarray) -> torch.Tensor:
    """codes [rows, frames, codebooks] -> waveform [rows, samples]."""
    waveform: torch.Tensor = model(torch.from_numpy(codes).transpose(1, 2))[:, 0]
    return waveform


if __name__ == "__main__":
    main()
