"""Random checkpoints in the published format, for tests and timings on machines that cannot hold the published model."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...runtime.errors import AntiphonError
from ..config import FAMILIES, OmniConfig
from ..read_config import read_config
from . import frontend, tokenizer, writer
from .sizes import configuration
from .tensors import all_tensors

LAYOUTS = {"per_expert": writer.per_expert, "fused": writer.fused}


def new_checkpoint(
    path: str | Path,
    family: str = "qwen3_omni_moe",
    size: str = "tiny",
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
    *,
    dtype: str = "bfloat16",
    layout: str = "per_expert",
    overrides: dict[str, Any] | None = None,
) -> Path:
    """Write a random checkpoint of `family` and `size` ("tiny", "small", "medium") to the new folder `path` and return it.

    The same arguments give the same bytes. `dtype` is bfloat16, float16 or float32; `layout` is per_expert (as published) or fused;
    `overrides` maps dotted paths into config.json to values. `on_progress` gets (bytes written, bytes in all).
    Written beside and renamed at the end. Raises AntiphonError for unknown names, a contradictory configuration or a target in use.
    """
    for name, value, known in (("family", family, FAMILIES), ("dtype", dtype, tuple(writer.CODES)), ("layout", layout, tuple(LAYOUTS))):
        if value not in known:
            raise AntiphonError(f"Unknown {name} {value!r}; expected one of {', '.join(known)}.")
    target = Path(path).absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise AntiphonError(f"{target} exists and is not an empty folder; give a new folder or remove it first.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}"
        beside.mkdir()
    except OSError as error:
        raise AntiphonError(f"Cannot write to {target.parent} ({error.strerror}); give a folder that can be written.") from None
    try:
        _write(beside, size, seed, dtype, layout, overrides, on_progress)
        if target.exists():
            target.rmdir()
        os.replace(beside, target)
    except OSError as error:
        raise AntiphonError(f"Cannot write the checkpoint to {target} ({error.strerror}); free space there or give another folder.") from None
    finally:
        # Gone after the rename; still there only when something failed.
        shutil.rmtree(beside, ignore_errors=True)
    return target


def _write(
    folder: Path, size: str, seed: int, dtype: str, layout: str, overrides: dict[str, Any] | None, on_progress: Callable[[int, int], None] | None
) -> None:
    trained = tokenizer.train()
    tokens = tokenizer.token_ids(trained)
    frontend.save(folder, configuration(size, tokens, dtype, overrides), tokens)
    tokenizer.save(trained, folder)
    config = read_config(folder)
    writer.write(folder, LAYOUTS[layout](all_tensors(config, _faint(config, tokens))), dtype, seed, on_progress)


def _faint(config: OmniConfig, tokens: tokenizer.TokenIds) -> tuple[int, ...]:
    """Text ids that a random Thinker should hardly ever choose: all that are not readable text, but for the end of the turn."""
    wanted = {*tokens.readable, config.im_end_token_id}
    return tuple(token for token in range(config.thinker.text.vocab_size) if token not in wanted)
