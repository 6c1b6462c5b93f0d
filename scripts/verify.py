"""antiphon verify: compare every engine of a bundle with the checkpoint."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..runtime.bundle.errors import require_extra
from . import interrupts
from .console import print_json, print_table, progress_bar

if TYPE_CHECKING:
    from ..export.verify.verify import Row


def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder made by antiphon build.")],
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="The checkpoint it was built from.")
    ],
    layers: Annotated[
        bool, typer.Option("--layers", help="Compare layer by layer and name the first that diverges.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False,
) -> None:
    """Compare every stage's engine with its reference on the same inputs;
    exit code 1 when an output is out of tolerance.
    """
    require_extra("build", "antiphon verify")
    with interrupts.ending_at_once():
        from ..export.verify.verify import verify as compare
    began = time.monotonic()
    with progress_bar() as report:

        def on_progress(stage: str, number: int, stages: int) -> None:
            gone = time.monotonic() - began
            report(stage, number, stages, gone * (stages - number) / number if number else None)

        result = compare(bundle, checkpoint, layers=layers, on_progress=on_progress)
    if json:
        print_json({"passed": result.passed, **dataclasses.asdict(result)})
    else:
        columns = ["stage", "output", "worst", "mean", "cosine", "tolerance", "result"] + (
            ["first diverging layer"] if layers else []
        )
        print_table("", columns, [_cells(row, layers) for row in result.rows])
    if not result.passed:
        raise typer.Exit(1)


def _cells(row: Row, layers: bool) -> list[object]:
    cells: list[object] = [
        row.stage,
        row.output,
        f"{row.worst:.2e}",
        f"{row.mean:.2e}",
        f"{row.cosine:.7f}",
        f"{row.tolerance:.0e}",
    ]
    cells.append("within" if row.passed else "OUT OF TOLERANCE")
    return [*cells, row.first_diverging_layer or "-"] if layers else cells
