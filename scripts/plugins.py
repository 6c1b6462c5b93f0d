"""antiphon plugins: the ops of ai.antiphon as GPU kernels; what there is, compiled ahead of time, and checked on the GPU at hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from ..plugins.registry import FOLDERS
from ..runtime.errors import AntiphonError, missing_extra
from ..runtime.kernels.contract import TARGETS, image_key
from ..runtime.kernels.library import KernelLibrary, default_library
from .console import print_json, print_table, progress_bar, size

Library = Annotated[
    Path | None, typer.Option("--library", metavar="DIR", help="Folder of compiled kernels [default: ANTIPHON_KERNELS, else kernels in the cache].")
]
Ops = Annotated[list[str] | None, typer.Option("--op", metavar="OP", help=f"Only this op ({', '.join(FOLDERS)}); may be given again.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]
ALL_TARGETS = ",".join(TARGETS)
Target = Annotated[str, typer.Option("--target", metavar="TARGETS", help="GPU architectures, separated by commas.")]


def list_plugins(
    library: Library = None, op: Ops = None, kernels: Annotated[bool, typer.Option("--kernels", help="One line a compiled kernel.")] = False, json: Json = False
) -> None:
    """Show the ops, what dtypes and programs they have, and what is compiled in the library for which targets."""
    from ..plugins.status import op_status

    folder = library or default_library()
    statuses = [op_status(folder, name) for name in _ops(op)]
    if kernels:
        _print_kernels(folder, statuses, json)
        return
    if json:
        print_json({"library": str(folder), "ops": [dataclasses.asdict(status) for status in statuses]})
        return
    rows = [
        [one.op, ", ".join(one.dtypes), one.programs, one.kernels, ", ".join(one.compiled) or "-", size(one.bytes) if one.compiled else "-", one.state]
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
    try:
        from ..plugins.compile import compile_library
    except ModuleNotFoundError as error:
        raise missing_extra(error.name or "triton", "kernels", "antiphon plugins compile") from None
    folder = library or default_library()
    with progress_bar() as report:
        built = compile_library(folder, _targets(target), _ops(op), again=again, on_progress=report)
    if json:
        print_json({"library": str(folder), "built": [dataclasses.asdict(one) for one in built]})
        return
    rows = [[one.target, one.op, one.programs, one.images, size(one.bytes), "cached" if one.cached else "built"] for one in built]
    print_table(f"{folder}", ("target", "op", "programs", "kernels", "size", "outcome"), rows)


def _print_kernels(folder: Path, statuses: list[Any], json: bool) -> None:
    """Registers, shared memory and spills of every compiled kernel, per target."""
    rows = []
    for target in TARGETS:
        wanted = {status.op for status in statuses if target in status.compiled}
        if not wanted:
            continue
        found = KernelLibrary.open(folder, target)
        for program in found.programs:
            if program.op in wanted:
                for step in program.launches:
                    image = found.images[image_key(program, step)]
                    rows.append(
                        (target, program.op, program.name, step.kernel.split(".")[1], image.warps, image.registers, image.shared_bytes, image.spill_bytes)
                    )
    columns = ("target", "op", "program", "kernel", "warps", "registers", "shared", "spilled")
    if json:
        print_json({"library": str(folder), "kernels": [dict(zip(columns, row, strict=True)) for row in rows]})
    else:
        print_table(f"{folder}", columns, rows)


def _ops(chosen: list[str] | None) -> list[str]:
    for name in chosen or ():
        if name not in FOLDERS:
            raise AntiphonError(f"There is no op {name!r}; the ops are {', '.join(FOLDERS)}.")
    return chosen or list(FOLDERS)


def _targets(text: str) -> list[str]:
    chosen = [name.strip() for name in text.split(",") if name.strip()]
    for name in chosen:
        if name not in TARGETS:
            raise AntiphonError(f"There is no target {name!r}; kernels are compiled for {', '.join(TARGETS)}.")
    if not chosen:
        raise AntiphonError(f"--target names no GPU architecture; give some of {', '.join(TARGETS)}, separated by commas.")
    return chosen
