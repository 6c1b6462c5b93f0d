"""`antiphon plugins check`: run compiled programs on this machine's GPU and compare them with the
reference."""

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
"""progress(what, number done, total, seconds left or None)."""


@dataclass(frozen=True)
class Row:
    """One case of one program on the device."""

    op: str
    program: str
    case: str
    error: float | None
    """The worst error of the outputs (see `cases.errors`); None if there is no output."""
    tolerance: float
    passed: bool
    message: str = ""
    """The reason why there is no output."""


@dataclass(frozen=True)
class CheckResult:
    """The results of one GPU."""

    device: str
    capability: str
    target: str
    versions: dict[str, str]
    rows: tuple[Row, ...]
    timings: tuple[Timing, ...]
    ceilings: Ceilings | None
    """The measured limits of the GPU; None if nothing was timed."""

    @property
    def passed(self) -> bool:
        return all(row.passed for row in self.rows)

    def to_plain(self) -> dict[str, Any]:
        """JSON-ready fields; infinities, which JSON lacks, become null."""
        plain = dataclasses.asdict(self) | {
            "passed": self.passed,
            "timings": [timing.to_plain() for timing in self.timings],
        }
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
    """Check every compiled program of `ops` (default: all) in the library at `folder`; with `timing`, run the
    benchmarks too.

    `compile_seconds` limits the time of torch.compile over all benchmarks. Raises AntiphonError if there is
    no GPU, no kernels for it, an unknown op, or no PyTorch when `timing` needs it.
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
        raise AntiphonError(
            f"{folder} holds no {', '.join(sorted(missing))} for {library.target}; run: "
            f"antiphon plugins compile --target {library.target}"
        )
    with Launcher(library, found) as launcher:
        # First, so that a missing package is reported before minutes of checks.
        timer = CudaTimer(compile_seconds) if timing else None
        rows = check(library, launcher, wanted, progress)
        # A GPU that a case broke is not timed; the rows tell of it.
        ceilings = timer.ceilings() if timer and _answers(launcher) else None
        timings = time_benchmarks(launcher, wanted, timer, ceilings, progress) if timer and ceilings else []
    versions = {**library.compiler, **found.versions(), **(timer.versions() if timer else {})}
    return CheckResult(
        found.name,
        ".".join(map(str, found.capability)),
        library.target,
        versions,
        tuple(rows),
        tuple(timings),
        ceilings,
    )


def check(
    library: KernelLibrary, launcher: Launcher, ops: Sequence[str], on_progress: Progress | None = None
) -> list[Row]:
    """Compare every case of every program of `ops` on the launcher's device with the reference.

    A failure is a row, not an exception. If a case breaks the GPU's context (for example by an address out of
    bounds), the rows of all later cases report it.
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
                rows.append(
                    _row(case, None, f"not run: the GPU stopped at {broken}")
                    if broken
                    else _checked(case, launcher)
                )
                if not broken and rows[-1].error is None and not _answers(launcher):
                    broken = f"{program.op} ({program.name}), case {case.name}"
        except Exception as error:  # one op's broken cases must not stop the checks of other ops
            rows.append(
                Row(program.op, program.name, "-", None, 0.0, False, f"its cases cannot be made: {error}")
            )
        if len(rows) == reached:
            rows.append(Row(program.op, program.name, "-", None, 0.0, False, "no case reaches this program"))
    if on_progress:
        on_progress("checked", len(programs), len(programs), 0.0)
    return rows


def run_case(case: Case, launcher: Launcher) -> dict[str, np.ndarray]:
    """The outputs of `case` on the device, copied to host memory."""
    specs = {spec.name: spec for spec in case.program.inputs}
    inputs = {
        name: launcher.array(np.asarray(values), specs[name].dtype) for name, values in case.inputs.items()
    }
    outputs = launcher.run_program(case.program, inputs, case.attributes)
    return {name: launcher.numpy(array) for name, array in outputs.items()}


def _checked(case: Case, launcher: Launcher) -> Row:
    try:
        found = run_case(case, launcher)
    except Exception as error:  # the driver raises many types, and the next case must run
        return _row(case, None, str(error).strip() or type(error).__name__)
    worst = max(errors(case, found).values(), default=0.0)
    return _row(
        case,
        worst,
        ""
        if worst <= case.tolerance
        else "an output is not finite, or has another shape"
        if np.isinf(worst)
        else "beyond its tolerance",
    )


def _row(case: Case, error: float | None, message: str) -> Row:
    return Row(
        case.program.op,
        case.program.name,
        case.name,
        error,
        case.tolerance,
        error is not None and error <= case.tolerance,
        message,
    )


def _answers(launcher: Launcher) -> bool:
    try:
        launcher.wait()
    except RuntimeError:
        return False
    return True
