"""antiphon build: compile a checkpoint into a bundle, or show the plan."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ..runtime.bundle.errors import AntiphonError, require_extra
from . import interrupts
from .console import count, print_json, print_table, progress_bar, seconds, size


def build(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="Checkpoint folder in the published format.")
    ],
    bundle: Annotated[
        Path | None,
        typer.Argument(metavar="BUNDLE", help="Folder to make or replace; not needed with --plan."),
    ] = None,
    target: Annotated[str, typer.Option(help="Where the bundle will run: cpu.")] = "cpu",
    engine: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND|STAGE=KIND",
            help="Engine kind of all stages, or of one; may be repeated. Known: onnxruntime (the default).",
        ),
    ] = None,
    precision: Annotated[str, typer.Option(help="Precision of weights and arithmetic: fp32.")] = "fp32",
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say what the build makes and needs; config.json is enough.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Neither read nor fill the cache of built stages.")
    ] = False,
) -> None:
    """Compile CHECKPOINT into BUNDLE;
    a stage that was built before from the same things comes from the cache.
    """
    if plan:
        _plan(checkpoint, target, engine or [], precision, json)
        return
    if bundle is None:
        raise AntiphonError(
            "antiphon build needs a BUNDLE folder to write; "
            "give one, or --plan to only see what the build needs."
        )
    require_extra("build", "antiphon build")
    with interrupts.ending_at_once():
        from ..export.build import build as compile_bundle
        from ..export.choice import parse_engines
    with progress_bar() as report:
        manifest = compile_bundle(
            checkpoint,
            bundle,
            target=target,
            engine=parse_engines(engine or []),
            precision=precision,
            cache=not no_cache,
            on_progress=lambda at: report(f"{at.stage}: {at.step}", at.done, at.total, at.remaining),
        )
    if json:
        print_json({"bundle": str(bundle), **manifest.build})
        return
    rows = []
    for name, stage in manifest.stages.items():
        record = manifest.build["stages"][name]
        outcome = "cached" if record["cached"] else "built"
        rows.append(
            [
                name,
                count(stage.parameters),
                size(stage.bytes),
                seconds(record["seconds"]),
                outcome,
                record["reason"],
            ]
        )
    print_table("", ("stage", "parameters", "size", "time", "outcome", "why"), rows)
    _print_left_out(manifest.build["left_out"])
    print(
        f"{bundle}: {manifest.family} for {manifest.target}, {precision}, "
        f"in {seconds(manifest.build['seconds'])}"
    )


def _plan(checkpoint: Path, target: str, engine: Sequence[str], precision: str, json: bool) -> None:
    require_extra("build", "antiphon build --plan")
    with interrupts.ending_at_once():
        from ..export.choice import parse_engines
        from ..export.plan import plan
    planned = plan(checkpoint, precision, parse_engines(engine), target)
    if json:
        print_json({**dataclasses.asdict(planned), "total": dataclasses.asdict(planned.total)})
        return
    rows = [
        [
            row.stage,
            row.engine,
            count(row.parameters),
            size(row.engine_bytes),
            size(row.state_bytes),
            size(row.state_bytes_per_1000_tokens),
            size(row.build_memory_bytes),
            size(row.disk_bytes),
        ]
        for row in (*planned.rows, planned.total)
    ]
    columns = (
        "stage",
        "engine",
        "parameters",
        "size",
        "state per stream",
        "per 1,000 tokens",
        "build memory",
        "build disk",
    )
    print_table(f"{planned.family}, {precision}", columns, rows, last_is_total=True)
    _print_left_out(planned.left_out)


def _print_left_out(parts: Sequence[str]) -> None:
    for part in parts:
        print(f"without {part}")
