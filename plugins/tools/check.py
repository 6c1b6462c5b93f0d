"""Compiled programs on the GPU at hand, against the reference: what `antiphon plugins check` does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.bundle.errors import AntiphonError
from ...runtime.kernels.driver import Device, Launcher, open_device, target_for
from ...runtime.kernels.library import KernelLibrary
from ..registry import FOLDERS
from .cases import Case, cases, errors
from .cuda_timer import CudaTimer
from .timing import Ceilings, Timing, time_benchmarks

Progress = Callable[[str, int, int, float | None], None]
"""progress(what, done, to do, seconds to go or None)."""


@dataclass(frozen=True)
class Row:
    """One case of one program on the device."""

    op: str
    program: str
    case: str
    error: float | None
    """The worst of its outputs, as `cases.errors` measures it; None where nothing came out."""
    tolerance: float
    passed: bool
    message: str = ""
    """Why nothing came out."""


@dataclass(frozen=True)
class CheckResult:
    """What was found on one GPU."""

    device: str
    capability: str
    target: str
    versions: dict[str, str]
    rows: tuple[Row, ...]
    timings: tuple[Timing, ...]
    ceilings: Ceilings | None
    """What the GPU itself was measured to do; None where nothing was timed."""

    @property
    def passed(self) -> bool:
        return all(row.passed for row in self.rows)

    def to_plain(self) -> dict[str, Any]:
        """JSON-ready: infinities, which JSON lacks, become null."""
        plain = dataclasses.asdict(self) | {"passed": self.passed, "timings": [timing.to_plain() for timing in self.timings]}
        for row in plain["rows"]:
            row["error"] = row["error"] if row["error"] is not None and np.isfinite(row["error"]) else None
        return plain


def run_check(
    folder: str | Path,
    ops: Sequence[str] = (),
    timing: bool = True,
    on_progress: Progress | None = None,
    device: int | Device = 0,
    compile_seconds: float = 150,
) -> CheckResult:
    """Checks every compiled program of `ops` (all, where none is named) in the library at `folder`, then times the benchmarks where `timing`.

    `compile_seconds` is how long torch.compile may take over all benchmarks together. Raises AntiphonError where there is no GPU, no kernels for it, an
    unknown op, or PyTorch is missing and `timing` wanted.
    """
    wanted = list(dict.fromkeys(ops)) or list(FOLDERS)
    for op in wanted:
        if op not in FOLDERS:
            raise AntiphonError(f"There is no op {op!r}; the ops are {', '.join(FOLDERS)}.")
    progress = on_progress or (lambda what, done, total, remaining: None)
    found = open_device(device) if isinstance(device, int) else device
    library = KernelLibrary.open(folder, target_for(found))
    missing = set(wanted) - {program.op for program in library.programs}
    if missing and ops:
        raise AntiphonError(f"{folder} holds no {', '.join(sorted(missing))} for {library.target}; run: antiphon plugins compile --target {library.target}")
    with Launcher(library, found) as launcher:
        timer = CudaTimer(compile_seconds) if timing else None  # first: what is missing is said before minutes of checks
        rows = check(library, launcher, wanted, progress)
        ceilings = timer.ceilings() if timer and _answers(launcher) else None  # a GPU that a case broke is not timed, and the rows say so
        timings = time_benchmarks(launcher, wanted, timer, ceilings, progress) if timer and ceilings else []
    versions = {**library.compiler, **found.versions(), **(timer.versions() if timer else {})}
    return CheckResult(found.name, ".".join(map(str, found.capability)), library.target, versions, tuple(rows), tuple(timings), ceilings)


def check(library: KernelLibrary, launcher: Launcher, ops: Sequence[str], on_progress: Progress | None = None) -> list[Row]:
    """Every case of every program of `ops` on the launcher's device against the reference.

    A failure is a row, not an exception. Where it broke the GPU's context (an address out of bounds does), the cases behind it are rows saying so.
    """
    programs = [program for program in library.programs if program.op in ops]
    rows: list[Row] = []
    broken = ""
    for done, program in enumerate(programs):
        if on_progress:
            on_progress(f"{program.op} {program.name}", done, len(programs), None)
        reached = len(rows)
        try:
            for case in cases(program):
                rows.append(_row(case, None, f"not run: the GPU stopped at {broken}") if broken else _checked(case, launcher))
                if not broken and rows[-1].error is None and not _answers(launcher):
                    broken = f"{program.op} ({program.name}), case {case.name}"
        except Exception as error:  # a mistake in one op's cases must not keep the GPU from the other ops
            rows.append(Row(program.op, program.name, "-", None, 0.0, False, f"its cases cannot be made: {error}"))
        if len(rows) == reached:
            rows.append(Row(program.op, program.name, "-", None, 0.0, False, "no case reaches this program"))
    if on_progress:
        on_progress("checked", len(programs), len(programs), 0.0)
    return rows


def run_case(case: Case, launcher: Launcher) -> dict[str, np.ndarray]:
    """The outputs of `case` on the device, in host memory."""
    specs = {spec.name: spec for spec in case.program.inputs}
    inputs = {name: launcher.array(np.asarray(values), specs[name].dtype) for name, values in case.inputs.items()}
    outputs = launcher.run_program(case.program, inputs, case.attributes)
    return {name: launcher.numpy(array) for name, array in outputs.items()}


def _checked(case: Case, launcher: Launcher) -> Row:
    try:
        found = run_case(case, launcher)
    except Exception as error:  # the driver raises all kinds, and the next case must have its turn
        return _row(case, None, str(error).strip() or type(error).__name__)
    worst = max(errors(case, found).values(), default=0.0)
    return _row(case, worst, "" if worst <= case.tolerance else "an output is not finite, or has another shape" if np.isinf(worst) else "beyond its tolerance")


def _row(case: Case, error: float | None, message: str) -> Row:
    return Row(case.program.op, case.program.name, case.name, error, case.tolerance, error is not None and error <= case.tolerance, message)


def _answers(launcher: Launcher) -> bool:
    try:
        launcher.wait()
    except RuntimeError:
        return False
    return True
