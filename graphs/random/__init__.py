"""Random checkpoints in the published format, for tests and timings on machines that cannot hold the published model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...runtime.bundle.errors import AntiphonError
from ..checkpoints.read_config import read_config
from ..config import FAMILIES, OmniConfig
from ..families.qwen3_5_omni.codec_folder import CONFIG_NAME, FOLDERS, WEIGHTS_NAME, codec_yaml
from . import frontend, tokenizer, writer
from .atomic_folder import whole_checkpoint
from .sizes import configuration
from .tensors import all_tensors
from .weight_layouts import EXPERTS, LINEAR, arrange


def new_checkpoint(
    path: str | Path,
    family: str = "qwen3_omni_moe",
    size: str = "tiny",
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
    *,
    dtype: str = "bfloat16",
    layout: str = "per_expert",
    linear_layout: str = "fused",
    overrides: dict[str, Any] | None = None,
) -> Path:
    """Write a random checkpoint of `family` and `size` ("tiny", "small", "medium") to the new folder `path` and return it.

    The same arguments give the same bytes. `dtype` is bfloat16, float16 or float32. `layout` of the experts is per_expert (as published) or
    fused, `linear_layout` of Gated DeltaNet's input projections fused (as published) or split: the same model either way. `overrides` maps
    dotted paths into config.json (before the codec's part moves to a folder of its own) to values. `on_progress` gets (bytes written, bytes in all).
    Written beside and renamed at the end. Raises AntiphonError for unknown names, a contradictory configuration or a target in use.
    """
    layouts = ("layout", layout, EXPERTS), ("linear_layout", linear_layout, LINEAR)
    for name, value, known in (("family", family, FAMILIES), ("dtype", dtype, tuple(writer.CODES)), *layouts):
        if value not in known:
            raise AntiphonError(f"Unknown {name} {value!r}; expected one of {', '.join(known)}.")
    target = Path(path).absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise AntiphonError(f"{target} exists and is not an empty folder; give a new folder or remove it first.")
    with whole_checkpoint(target) as beside:
        trained = tokenizer.train()
        tokens = tokenizer.token_ids(trained)
        frontend.save(beside, configuration(size, tokens, dtype, overrides, family), tokens)
        tokenizer.save(trained, beside)
        config = read_config(beside)
        entries = arrange(all_tensors(config, _faint(config, tokens)), dtype, layout, linear_layout)
        _write(beside, config, entries, seed, on_progress)
    return target


def _write(folder: Path, config: OmniConfig, entries: list[writer.Entry], seed: int, on_progress: Callable[[int, int], None] | None) -> None:
    """Write the weights; the codec of Qwen3.5-Omni goes to a folder of its own, with its part of the configuration."""
    progress = writer.Progress(entries, on_progress)
    codec = [entry for entry in entries if entry.name.startswith("code2wav.")] if config.family == "qwen3_5_omni" else []
    writer.write(folder, [entry for entry in entries if entry not in codec], seed, progress)
    if codec and config.code2wav is not None:
        beside = folder / FOLDERS[0]
        beside.mkdir()
        (beside / CONFIG_NAME).write_text(codec_yaml(config.code2wav), encoding="utf-8")
        writer.write_codec(beside / WEIGHTS_NAME, codec, seed, progress)
        raw = {name: section for name, section in config.raw.items() if name != "code2wav_config"}
        (folder / "config.json").write_text(json.dumps(raw, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _faint(config: OmniConfig, tokens: tokenizer.TokenIds) -> tuple[int, ...]:
    """Text ids that a random Thinker should hardly ever choose: all that are not readable text, but for the end of the turn."""
    wanted = {*tokens.readable, config.im_end_token_id}
    return tuple(token for token in range(config.thinker.text.vocab_size) if token not in wanted)
