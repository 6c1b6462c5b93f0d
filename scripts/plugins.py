"""antiphon plugins: list, compile and check the GPU kernels of the ops of ai.antiphon."""

from __future__ import annotations

import dataclasses
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..plugins.registry import FOLDERS
from ..runtime.bundle.errors import AntiphonError, UnsupportedTarget, require_extra
from ..runtime.kernels.contract import GPU_TARGETS, image_key
from ..runtime.kernels.library import KernelLibrary, default_library
from . import interrupts
from .console import print_json, print_table, progress_bar, seconds, size

if TYPE_CHECKING:
    from ..plugins.tools.check import CheckResult
    from ..plugins.tools.timing import Timing

Library = Annotated[
    Path | None,
    typer.Option(
        "--library",
        metavar="DIR",
        help="Folder of compiled kernels [default: ANTIPHON_KERNELS, else kernels in the cache].",
    ),
]
Ops = Annotated[
    list[str] | None,
    typer.Option("--op", metavar="OP", help=f"Only this op ({', '.join(FOLDERS)}); may be given again."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]
ALL_TARGETS = ",".join(GPU_TARGETS)
Target = Annotated[
    str, typer.Option("--target", metavar="TARGETS", help="GPU architectures, separated by commas.")
]


def list_plugins(
    library: Library = None,
    op: Ops = None,
    kernels: Annotated[
        bool,
        typer.Option("--kernels", help="What each compiled kernel needs; with --json, for every program."),
    ] = False,
    json: Json = False,
) -> None:
    """Show the ops, what dtypes and programs they have,
    and what is compiled in the library for which targets.
    """
    with interrupts.ending_at_once():
        from ..plugins.tools.status import op_status

    folder = library or default_library()
    statuses = [op_status(folder, name) for name in _ops(op)]
    if kernels:
        _print_kernels(folder, statuses, json)
        return
    if json:
        print_json({"library": str(folder), "ops": [dataclasses.asdict(status) for status in statuses]})
        return
    rows = [
        [
            one.op,
            ", ".join(one.dtypes),
            one.programs,
            one.kernels,
            ", ".join(one.compiled) or "-",
            size(one.bytes) if one.compiled else "-",
            one.state,
        ]
        for one in statuses
    ]
    print_table(f"{folder}", ("op", "dtypes", "programs", "kernels", "compiled for", "size", "status"), rows)


def compile_plugins(
    target: Target = ALL_TARGETS,
    library: Library = None,
    op: Ops = None,
    again: Annotated[bool, typer.Option("--again", help="Compile what is there and unchanged, too.")] = False,
    json: Json = False,
) -> None:
    """Compile the ops' kernels for GPUs, which need not be here: cubin, PTX and launch contract of each."""
    require_extra("kernels", "antiphon plugins compile", "triton")
    with interrupts.ending_at_once():
        from ..plugins.tools.compile import compile_library
    folder = library or default_library()
    with progress_bar() as report:
        built = compile_library(folder, _targets(target), _ops(op), again=again, on_progress=report)
    if json:
        print_json({"library": str(folder), "built": [dataclasses.asdict(one) for one in built]})
        return
    rows = [
        [one.target, one.op, one.programs, one.images, size(one.bytes), "cached" if one.cached else "built"]
        for one in built
    ]
    print_table(f"{folder}", ("target", "op", "programs", "kernels", "size", "outcome"), rows)


def check_plugins(
    library: Library = None,
    op: Ops = None,
    no_timing: Annotated[
        bool, typer.Option("--no-timing", help="Only compare with the references; needs no torch.")
    ] = False,
    compile_seconds: Annotated[
        float,
        typer.Option(
            "--compile-seconds", min=0, help="How long torch.compile may take in all; 0 leaves it out."
        ),
    ] = 150,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write the whole result as JSON, too.")
    ] = None,
    json: Json = False,
) -> None:
    """Run every compiled program on the GPU at hand against its reference, and time the ops;
    exit code 1 when a result is out of tolerance.
    """
    require_extra("kernels", "antiphon plugins check", "ml_dtypes")
    with interrupts.ending_at_once():
        from ..plugins.tools.check import run_check
    if output is not None and not output.resolve().parent.is_dir():
        raise AntiphonError(f"{output} cannot be written: there is no folder {output.parent}.")
    if output is not None and output.is_dir():
        raise AntiphonError(f"{output} cannot be written: it is a folder.")
    with progress_bar() as report:
        result = run_check(
            library or default_library(),
            _ops(op) if op else (),
            timing=not no_timing,
            on_progress=report,
            compile_seconds=compile_seconds,
        )
    if output is not None:
        output.write_text(dumps(result.to_plain(), indent=1) + "\n", encoding="utf-8")
    if json:
        print_json(result.to_plain())
    else:
        _print_check(result)
    if not result.passed:
        raise typer.Exit(1)


def _print_check(result: CheckResult) -> None:
    """Print one line per op, per failure and per timing."""
    rows = []
    for op in dict.fromkeys(row.op for row in result.rows):
        cases = [row for row in result.rows if row.op == op]
        worst = max(
            (row.error / row.tolerance for row in cases if row.error is not None and row.tolerance),
            default=0.0,
        )
        failed = sum(not row.passed for row in cases)
        rows.append([op, len({row.program for row in cases}), len(cases), f"{worst:.2f}", failed or "none"])
    print_table(
        f"{result.device}, {result.target}",
        ("op", "programs", "cases", "worst error / tolerance", "failed"),
        rows,
    )
    for row in result.rows:
        if not row.passed:
            print(f"{row.op} ({row.program}), {row.case}: {row.message}")
    if result.ceilings is not None:
        title = (
            f"measured bandwidth {result.ceilings.bandwidth / 1e9:.0f} GB/s, "
            f"bfloat16 {result.ceilings.operations / 1e12:.0f} TFLOP/s; medians"
        )
        columns = (
            "op",
            "benchmark",
            "ours",
            "bytes bound",
            "operations bound",
            "of the larger",
            "eager",
            "torch.compile",
            "public kernel",
            "aim",
        )
        print_table(title, columns, [_timing_cells(timing) for timing in result.timings])
        for timing in result.timings:
            spreads = {
                "ours": timing.ours,
                "eager": timing.eager,
                "torch.compile": timing.compiled,
                "public kernel": timing.reference,
            }
            notes = [
                *timing.notes,
                *(
                    f"{name}: launch by launch, not in a CUDA graph"
                    for name, spread in spreads.items()
                    if spread and not spread.graph
                ),
            ]
            if notes:
                print(f"{timing.op}, {timing.benchmark}: {'; '.join(notes)}")


def _timing_cells(timing: Timing) -> list[object]:
    ours, *others = [
        _short(spread.median if spread else None)
        for spread in (timing.ours, timing.eager, timing.compiled, timing.reference)
    ]
    fraction = "-" if timing.fraction is None else f"{timing.fraction:.0%}"
    return [
        timing.op,
        timing.benchmark,
        ours,
        _short(timing.bytes_bound),
        _short(timing.operations_bound),
        fraction,
        *others,
        timing.aim,
    ]


def _short(value: float | None) -> str:
    """A duration, in microseconds below one millisecond."""
    return seconds(value) if value is None or value >= 1e-3 else f"{value * 1e6:.1f} us"


def _print_kernels(folder: Path, statuses: list[Any], json: bool) -> None:
    """Print registers, shared memory and spills of every compiled kernel, per target."""
    rows = []
    for target in GPU_TARGETS:
        wanted = {status.op for status in statuses if target in status.compiled}
        if not wanted:
            continue
        found = KernelLibrary.open(folder, target)
        for program in found.programs:
            if program.op in wanted:
                for step in program.launches:
                    image = found.images[image_key(program, step)]
                    rows.append(
                        (
                            target,
                            program.op,
                            program.name,
                            step.kernel.split(".")[1],
                            image.warps,
                            image.registers,
                            image.shared_bytes,
                            image.spill_bytes,
                        )
                    )
    if not rows:
        raise AntiphonError(
            f"{folder} holds no kernels of {', '.join(status.op for status in statuses)}; run: "
            f"antiphon plugins compile --library {folder}"
        )
    columns = ("target", "op", "program", "kernel", "warps", "registers", "shared", "spilled")
    if json:
        print_json(
            {"library": str(folder), "kernels": [dict(zip(columns, row, strict=True)) for row in rows]}
        )
        return
    worst: dict[tuple[str, str, str], list[tuple[int, int, int]]] = {}
    for target, op, _, kernel, _, *numbers in rows:
        worst.setdefault((target, op, kernel), []).append((numbers[0], numbers[1], numbers[2]))
    summary = [[*names, len(found), *map(max, zip(*found, strict=True))] for names, found in worst.items()]
    print_table(
        f"{folder}: the most that any program's launch of a kernel needs",
        ("target", "op", "kernel", "launches", "registers", "shared", "spilled"),
        summary,
    )


def _ops(chosen: list[str] | None) -> list[str]:
    for name in chosen or ():
        if name not in FOLDERS:
            raise AntiphonError(f"There is no op {name!r}; the ops are {', '.join(FOLDERS)}.")
    return chosen or list(FOLDERS)


def _targets(text: str) -> list[str]:
    chosen = [name.strip() for name in text.split(",") if name.strip()]
    for name in chosen:
        if name not in GPU_TARGETS:
            raise UnsupportedTarget(
                f"There is no target {name!r}; kernels are compiled for {', '.join(GPU_TARGETS)}."
            )
    if not chosen:
        raise UnsupportedTarget(
            f"--target names no GPU architecture; give some of {', '.join(GPU_TARGETS)}, separated by commas."
        )
    return chosen
