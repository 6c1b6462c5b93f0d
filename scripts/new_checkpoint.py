"""antiphon new-checkpoint: a random checkpoint in the published format."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from ..graphs.families.registry import DEFAULT, names
from . import interrupts
from .console import progress_bar, size


def new_checkpoint(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="New folder for the checkpoint.")],
    family: Annotated[str, typer.Option(help=f"Model family: {' or '.join(names())}.")] = DEFAULT,
    size_name: Annotated[str, typer.Option("--size", help="tiny, small or medium.")] = "tiny",
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
) -> None:
    """Write a random checkpoint in the published format:
    it loads and runs like the real one, and it speaks noise.
    """
    with interrupts.ending_at_once():
        from ..graphs.random.new_checkpoint import new_checkpoint as make
        from ..runtime.stages.noise import check_seed

    check_seed(seed)
    began = time.monotonic()
    with progress_bar() as report:

        def on_progress(done: int, total: int) -> None:
            gone = time.monotonic() - began
            report("writing weights", done, total, gone * (total - done) / done if done else None)

        path = make(directory, family, size_name, seed, on_progress)
    files = [file for file in path.rglob("*") if file.is_file()]
    print(
        f"{path}: {family}, size {size_name}, seed {seed}, {len(files)} files, "
        f"{size(sum(file.stat().st_size for file in files))}"
    )
