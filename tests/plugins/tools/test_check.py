"""antiphon plugins check on a device whose launches the Triton interpreter runs:
what passes, what fails, and what timings hold.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from antiphon.plugins.causal_conv_state.reference import causal_conv_state
from antiphon.plugins.registry import FOLDERS
from antiphon.plugins.tools import check as check_module
from antiphon.plugins.tools import timing
from antiphon.plugins.tools.benchmark import Benchmark
from antiphon.plugins.tools.case import Case
from antiphon.plugins.tools.cases import cases, errors
from antiphon.plugins.tools.check import check, run_case, run_check
from antiphon.plugins.tools.cuda_timer import CudaTimer
from antiphon.plugins.tools.programs import programs
from antiphon.plugins.tools.timing import Ceilings, Spread, Timing, sets_to_rotate, time_benchmark
from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.kernels.contract import Program
from antiphon.runtime.kernels.device_array import DeviceArray
from antiphon.runtime.kernels.driver import Launcher
from antiphon.runtime.kernels.invoke import select

from ...runtime.kernels.host_device import HostDevice, write_library

OP = "CausalConvState"
CEILINGS = Ceilings(bandwidth=1e12, operations=1e14, cache=50_000_000)


def conv_cases(program: Program, factor: float = 1.0) -> Iterator[Case]:
    """One case of the program, whose expected output is `factor` times the reference."""
    rng = np.random.default_rng(0)
    tokens = 1 if program.name.endswith("decode") else 5
    shapes = {"x": (2, tokens, 16), "weight": (16, 1, 4), "past": (2, 3, 16)}
    inputs = {name: np.round(rng.standard_normal(shape) * 4) / 4 for name, shape in shapes.items()} | {
        "query_length": np.array([tokens, 0])
    }

    def expected() -> dict[str, np.ndarray]:
        y, present = causal_conv_state(**inputs)
        return {"y": y * factor, "present": present}

    yield Case("small", program, inputs, {}, expected, 1e-2)


@pytest.fixture
def known() -> list[Program]:
    return programs("sm80", [OP])


@pytest.fixture
def library(tmp_path: Path, known: list[Program]) -> Path:
    return write_library(tmp_path / "kernels", "sm80", known)


def test_every_program_is_held_to_the_reference(
    library: Path, known: list[Program], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_module, "cases", conv_cases)
    told: list[tuple[str, int, int]] = []
    found = run_check(
        library,
        [OP],
        timing=False,
        on_progress=lambda what, done, total, left: told.append((what, done, total)),
        device=HostDevice(known),
    )
    assert found.passed and [row.program for row in found.rows] == [program.name for program in known]
    assert all(row.error is not None and row.error <= 1e-2 and row.message == "" for row in found.rows)
    assert (found.target, found.capability, found.device, found.versions) == (
        "sm80",
        "8.0",
        "the host",
        {"none": "0", "driver": "none"},
    )
    assert told[0] == (f"{OP} {known[0].name}", 0, len(known)) and told[-1] == (
        "checked",
        len(known),
        len(known),
    )
    assert json.loads(json.dumps(found.to_plain(), allow_nan=False))["passed"] is True


def test_a_wrong_result_is_a_failed_row(
    library: Path, known: list[Program], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_module, "cases", lambda program: conv_cases(program, 1.5))
    found = run_check(library, [OP], timing=False, device=HostDevice(known))
    assert not found.passed
    assert all(not row.passed and row.message == "beyond its tolerance" for row in found.rows)


def test_a_result_that_is_not_finite_is_null_in_json(
    library: Path, known: list[Program], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_module, "cases", conv_cases)
    monkeypatch.setattr(
        check_module,
        "run_case",
        lambda case, launcher: {name: np.full_like(value, np.nan) for name, value in case.expected().items()},
    )
    found = run_check(library, [OP], timing=False, device=HostDevice(known))
    assert {row.message for row in found.rows} == {"an output is not finite, or has another shape"}
    assert json.loads(json.dumps(found.to_plain(), allow_nan=False))["rows"][0]["error"] is None


class Breaking(HostDevice):
    """Refuses its second launch; `dead` says whether it answers after that."""

    dead = False

    def launch(self, *given: Any) -> None:
        if len(self.launched) == 1:
            self.launched.append(given)  # type: ignore[arg-type]
            raise RuntimeError("The CUDA driver says CUDA_ERROR_ILLEGAL_ADDRESS.")
        super().launch(*given)

    def wait(self, stream: int) -> None:
        if self.dead and len(self.launched) > 1:
            raise RuntimeError("The CUDA driver says CUDA_ERROR_ILLEGAL_ADDRESS.")


@pytest.mark.parametrize("dead", [False, True])
def test_a_kernel_that_breaks_does_not_hide_the_others(
    library: Path, known: list[Program], monkeypatch: pytest.MonkeyPatch, dead: bool
) -> None:
    monkeypatch.setattr(check_module, "cases", conv_cases)
    device = Breaking(known)
    device.dead = dead
    rows = run_check(library, [OP], timing=False, device=device).rows
    assert rows[0].passed and not rows[1].passed and "ILLEGAL_ADDRESS" in rows[1].message
    if dead:
        assert {row.message for row in rows[2:]} == {
            f"not run: the GPU stopped at {OP} ({known[1].name}), case small"
        }
    else:
        assert all(row.passed for row in rows[2:])


def test_a_program_without_cases_does_not_pass(
    library: Path, known: list[Program], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_module, "cases", lambda program: iter(()))
    with Launcher.open(library, HostDevice(known)) as launcher:
        assert {(row.passed, row.message) for row in check(launcher.library, launcher, [OP])} == {
            (False, "no case reaches this program")
        }


def test_cases_that_cannot_be_made_fail_their_program_alone(
    library: Path, known: list[Program], monkeypatch: pytest.MonkeyPatch
) -> None:
    def some_cases(program: Program) -> Iterator[Case]:
        assert program is not known[0] and program != known[0], "no numbers"
        return conv_cases(program)

    monkeypatch.setattr(check_module, "cases", some_cases)
    rows = run_check(library, [OP], timing=False, device=HostDevice(known)).rows
    assert rows[0].message.startswith("its cases cannot be made: no numbers") and all(
        row.passed for row in rows[1:]
    )


@pytest.mark.parametrize("op", FOLDERS)
def test_every_op_runs_by_the_launcher_from_its_contract_alone(op: str, tmp_path: Path) -> None:
    known = programs("sm80", [op])
    with Launcher.open(write_library(tmp_path, "sm80", known), HostDevice(known)) as launcher:
        for program in {one.name: one for one in (known[0], known[len(known) // 2], known[-1])}.values():
            case = next(iter(cases(program)))
            worst = max(errors(case, run_case(case, launcher)).values())
            assert worst <= case.tolerance, (program.name, case.name, worst)


@pytest.mark.parametrize("op", FOLDERS)
def test_every_benchmark_has_a_program_and_bounds(op: str) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    for benchmark in timing.op_benchmarks(op):
        with FakeTensorMode():  # shapes without memory
            made = benchmark.make(torch.Generator())
        inputs = {
            name: (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
            for name, tensor in made.items()
        }
        assert select(programs("sm90", [op]), op, inputs, benchmark.attributes).op == benchmark.op == op
        assert all(tensor.is_contiguous() for tensor in made.values()), benchmark.name
        assert benchmark.bytes_moved > 0 and benchmark.operations > 0


def test_what_cannot_be_checked_is_one_sentence(
    library: Path, known: list[Program], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AntiphonError, match="There is no op 'Conv'"):
        run_check(library, ["Conv"], timing=False, device=HostDevice(known))
    with pytest.raises(AntiphonError, match="holds no MoE for sm80"):
        run_check(library, ["MoE"], timing=False, device=HostDevice(known))
    if not torch.cuda.is_available():
        with pytest.raises(AntiphonError, match="give --no-timing"):
            run_check(library, [OP], device=HostDevice(known))
        with pytest.raises(AntiphonError, match="NVIDIA"):
            run_check(library, [OP])
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(AntiphonError, match=r"antiphon\[build\]"):
        CudaTimer()


class HostTimer:
    """A Timer that calls everything once and takes a millisecond for it."""

    def __init__(self, device: HostDevice, can_compile: bool = True) -> None:
        self.device, self.can_compile, self.passes = device, can_compile, []  # type: ignore[var-annotated]

    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(0)

    def ceilings(self) -> Ceilings:
        return CEILINGS

    def free_bytes(self) -> int:
        return 10**9

    def stream(self) -> int:
        return 9

    def array(self, tensor: torch.Tensor) -> DeviceArray:
        return DeviceArray.from_numpy(tensor.numpy(), self.device)

    def compiled(self, function: Callable[..., Any], *arguments: Any) -> Callable[..., Any]:
        if not self.can_compile:
            raise AntiphonError("The time is spent.")
        return function

    def measure(self, calls: Sequence[Callable[[], Any]], rounds: int) -> Spread:
        for call in calls:
            call()
        self.passes.append((len(calls), rounds))
        return Spread(1e-3, 0.9e-3, 1.1e-3, True)


def conv_benchmark(moved: int = 2 * 10**7) -> Benchmark:
    def make(generator: torch.Generator) -> dict[str, torch.Tensor]:
        shapes = {"x": (1, 1, 16), "weight": (16, 1, 4), "past": (1, 3, 16)}
        return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()} | {
            "query_length": torch.ones(1, dtype=torch.int64)
        }

    def eager(inputs: Any, attributes: Any) -> tuple[torch.Tensor, torch.Tensor]:
        rows = torch.cat([inputs["past"], inputs["x"]], dim=1)
        return torch.nn.functional.silu((rows * inputs["weight"][:, 0].T).sum(1, keepdim=True)), rows[:, 1:]

    return Benchmark("decode", OP, {}, make, eager, moved, 10**6, "fast")


def test_a_timing_stands_beside_pytorch_and_the_bounds(library: Path, known: list[Program]) -> None:
    device = HostDevice(known)
    timer = HostTimer(device)
    with Launcher.open(library, device) as launcher:
        found = time_benchmark(launcher, conv_benchmark(), timer, CEILINGS)
    assert (found.op, found.benchmark, found.program, found.aim) == (
        OP,
        "decode",
        "float32-float32-state-decode",
        "fast",
    )
    assert (
        found.ours == found.eager == found.compiled == Spread(1e-3, 0.9e-3, 1.1e-3, True)
        and found.reference is None
    )
    assert (found.bytes_bound, found.operations_bound, found.bound, found.fraction) == (
        2e-5,
        1e-8,
        2e-5,
        pytest.approx(0.02),
    )
    assert found.difference is not None and found.difference < 1e-5
    assert timer.passes == [(8, timing.ROUNDS)] * 3
    assert {stream for *_, stream in device.launched} == {0, 9} and len(
        {arguments[0] for _, _, arguments, _ in device.launched}
    ) == 8
    assert found.notes == ("all input sets fit into the L2 cache",)
    assert found.to_plain()["fraction"] == found.fraction


def test_what_cannot_be_timed_is_noted_beside_what_can(library: Path, known: list[Program]) -> None:
    device = HostDevice(known)
    with Launcher.open(library, device) as launcher:
        found = time_benchmark(launcher, conv_benchmark(), HostTimer(device, can_compile=False), CEILINGS)
        other = dataclasses.replace(conv_benchmark(), op="MoE")
        without = time_benchmark(launcher, other, HostTimer(device), CEILINGS)
    assert (
        found.compiled is None and found.eager is not None and "compiled: The time is spent." in found.notes
    )
    assert (
        without.ours is None
        and without.fraction is None
        and without.program == "-"
        and any(note.startswith("ours: No kernels of MoE") for note in without.notes)
    )


@pytest.mark.parametrize(
    ("moved", "size", "free", "sets"),
    [
        (10**9, 10**9, 80 * 10**9, 8),
        (5 * 10**6, 5 * 10**6, 80 * 10**9, 30),
        (1000, 1000, 80 * 10**9, 64),
        (10**9, 10**10, 80 * 10**9, 4),
        (10**9, 10**12, 1, 1),
    ],
)
def test_inputs_rotate_through_at_least_eight_layers_where_memory_holds_them(
    moved: int, size: int, free: int, sets: int
) -> None:
    assert sets_to_rotate(moved, size, CEILINGS.cache, free) == sets


def test_a_public_kernel_is_timed_where_the_op_knows_one(
    library: Path, known: list[Program], monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark = conv_benchmark()
    module = SimpleNamespace(benchmarks=lambda: [benchmark], reference_kernel=lambda: benchmark.eager)
    monkeypatch.setattr(timing, "_has_benchmarks", lambda op: True)
    monkeypatch.setattr(timing, "_benchmarks_module", lambda op: module)
    device = HostDevice(known)
    with Launcher.open(library, device) as launcher:
        [found] = timing.time_benchmarks(launcher, [OP], HostTimer(device), CEILINGS)
    assert isinstance(found, Timing) and found.reference is not None


def test_a_benchmark_that_breaks_does_not_take_what_was_timed_before(
    library: Path, known: list[Program], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(generator: torch.Generator) -> dict[str, torch.Tensor]:
        raise RuntimeError("CUDA out of memory.\nTried to allocate")

    device = HostDevice(known)
    monkeypatch.setattr(
        timing,
        "op_benchmarks",
        lambda op: [conv_benchmark(), dataclasses.replace(conv_benchmark(), name="huge", make=refuse)],
    )
    with Launcher.open(library, device) as launcher:
        first, second = timing.time_benchmarks(launcher, [OP], HostTimer(device), CEILINGS)
    assert first.ours is not None and (second.benchmark, second.ours, second.notes) == (
        "huge",
        None,
        ("CUDA out of memory.",),
    )
    assert second.bytes_bound == first.bytes_bound and json.dumps(second.to_plain(), allow_nan=False)


def test_what_stays_in_the_cache_is_noted(library: Path, known: list[Program]) -> None:
    device = HostDevice(known)
    # all sets are larger, what is read of them is not
    big = Ceilings(bandwidth=1e12, operations=1e14, cache=2000)
    with Launcher.open(library, device) as launcher:
        found = time_benchmark(launcher, conv_benchmark(moved=20), HostTimer(device), big)
    assert found.notes == ("what the calls read of all input sets fits into the L2 cache",)


def test_a_gpu_that_a_case_broke_is_not_timed_and_the_rows_are_kept(
    library: Path, known: list[Program], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock:
        def __init__(self, compile_seconds: float) -> None: ...

        def versions(self) -> dict[str, str]:
            return {}

        def ceilings(self) -> Ceilings:
            raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(check_module, "cases", conv_cases)
    monkeypatch.setattr(check_module, "CudaTimer", Clock)
    device = Breaking(known)
    device.dead = True
    found = run_check(library, [OP], device=device)
    assert not found.passed and found.rows[0].passed and found.timings == () and found.ceilings is None
