"""Random checkpoints in the published format, for tests and timings without a published model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...runtime.bundle.errors import AntiphonError
from ..checkpoints.read_config import read_config
from ..config import OmniConfig
from ..families.base import RandomCheckpoint
from ..families.registry import DEFAULT
from ..families.registry import family as find_family
from . import frontend, tokenizer, writer
from .atomic_folder import whole_checkpoint
from .configuration import configuration
from .tensors import all_tensors
from .weight_layouts import EXPERTS, LINEAR, arrange


def new_checkpoint(
    path: str | Path,
    family: str = DEFAULT,
    size: str = "tiny",
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
    *,
    dtype: str = "bfloat16",
    layout: str = "per_expert",
    linear_layout: str = "fused",
    overrides: dict[str, Any] | None = None,
) -> Path:
    """Write a random checkpoint to the new folder `path` and return `path`.

    The same arguments give the same bytes.
    `family`: a name in graphs.families.registry.
    `size`: "tiny", "small" or "medium".
    `dtype`: bfloat16, float16 or float32.
    `layout`: stored layout of the experts, per_expert (as published) or fused.
    `linear_layout`: stored layout of Gated DeltaNet's input projections, fused (as published) or split.
    `overrides`: dotted path in config.json -> value, applied before the codec's part moves to its own folder.
    `on_progress`: called with (bytes written, total bytes).
    The folder is written beside `path` and renamed at the end.
    Raises AntiphonError for unknown names, a contradictory configuration or a target in use.
    """
    recipe = find_family(family).random()
    layouts = ("layout", layout, EXPERTS), ("linear_layout", linear_layout, LINEAR)
    for name, value, known in (("dtype", dtype, tuple(writer.CODES)), *layouts):
        if value not in known:
            raise AntiphonError(f"Unknown {name} {value!r}; expected one of {', '.join(known)}.")
    target = Path(path).absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise AntiphonError(
            f"{target} exists and is not an empty folder; give a new folder or remove it first."
        )
    with whole_checkpoint(target) as beside:
        trained = tokenizer.train()
        tokens = tokenizer.token_ids(trained)
        frontend.save(
            beside, configuration(size, tokens, dtype, overrides, family), tokens, recipe.processor_class
        )
        tokenizer.save(trained, beside, recipe.model_max_length, recipe.processor_class)
        config = read_config(beside)
        entries = arrange(all_tensors(config, _faint(config, tokens)), dtype, layout, linear_layout)
        _write(beside, config, recipe, entries, seed, on_progress)
    return target


def _write(
    folder: Path,
    config: OmniConfig,
    recipe: RandomCheckpoint,
    entries: list[writer.Entry],
    seed: int,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    """Write the weights. If the family's codec has its own folder, its weights and configuration go there."""
    progress = writer.Progress(entries, on_progress)
    codec = (
        [entry for entry in entries if entry.name.startswith("code2wav.")]
        if recipe.new_codec is not None
        else []
    )
    writer.write(folder, [entry for entry in entries if entry not in codec], seed, progress)
    if recipe.new_codec is not None and config.code2wav is not None:
        writer.write_codec(recipe.new_codec(folder, config.code2wav).weights, codec, seed, progress)
        raw = {name: section for name, section in config.raw.items() if name != "code2wav_config"}
        (folder / "config.json").write_text(
            json.dumps(raw, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )


def _faint(config: OmniConfig, tokens: tokenizer.TokenIds) -> tuple[int, ...]:
    """Text ids that a random Thinker should rarely choose: all except readable text and the end of a turn."""
    wanted = {*tokens.readable, config.im_end_token_id}
    return tuple(token for token in range(config.thinker.text.vocab_size) if token not in wanted)
