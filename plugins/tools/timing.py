"""Timings of ops on this machine's GPU, compared with PyTorch and with the limits of the GPU."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ...runtime.kernels.contract import Program
from ...runtime.kernels.device_array import DeviceArray
from ...runtime.kernels.driver import Launcher
from ...runtime.kernels.invoke import select
from ..registry import FOLDERS
from .benchmark import Benchmark

if TYPE_CHECKING:
    import torch

LAYERS = 8
"""The least number of input sets per timing, like the layers of a model: the L2 cache holds the weights of
one, not all."""
MOST_SETS = 64
SHORT = 50e-6
"""In seconds.

Calls with a lower bound are captured in several rounds, so that the start of the graph does not count.
"""
ROUNDS = 8


@dataclass(frozen=True)
class Spread:
    """Seconds per call, over many passes through the input sets."""

    median: float
    low: float
    """The 10th percentile."""
    high: float
    """The 90th percentile."""
    graph: bool
    """True if the passes ran as a CUDA graph; else launches ran one by one, and the host's time counts where
    it is slower."""


@dataclass(frozen=True)
class Ceilings:
    """The measured limits of the GPU, from the same run."""

    bandwidth: float
    """Bytes per second, read and written, of a copy of 1 GiB in GPU memory."""
    operations: float
    """Multiplications and additions per second of a bfloat16 matrix product of size 8192."""
    cache: int
    """Bytes of the L2 cache, from the driver."""


@dataclass(frozen=True)
class Timing:
    """One benchmark on the device. Times are seconds."""

    op: str
    benchmark: str
    program: str
    ours: Spread | None
    eager: Spread | None
    compiled: Spread | None
    reference: Spread | None
    """A public kernel of the same op, if one is installed."""
    bytes_bound: float
    """Seconds to move the necessary bytes at the measured bandwidth."""
    operations_bound: float
    """Seconds for the necessary operations at the measured peak."""
    sets: int
    rotated_bytes: int
    """Bytes of all input sets; if they fit in the L2 cache, bytes_bound is not a bound."""
    difference: float | None
    """Largest |ours - eager| of the first output, divided by its largest value.

    Both round, so only a large one is an error.
    """
    aim: str
    notes: tuple[str, ...]

    @property
    def bound(self) -> float:
        return max(self.bytes_bound, self.operations_bound)

    @property
    def fraction(self) -> float | None:
        """bound / our time; 1 is the limit of the GPU."""
        return self.bound / self.ours.median if self.ours else None

    def to_plain(self) -> dict[str, Any]:
        """JSON-ready fields; a difference that is not finite becomes null."""
        difference = (
            self.difference if self.difference is not None and math.isfinite(self.difference) else None
        )
        return dataclasses.asdict(self) | {
            "bound": self.bound,
            "fraction": self.fraction,
            "difference": difference,
        }


class Timer(Protocol):
    """The functions of PyTorch that timings use."""

    def generator(self) -> torch.Generator: ...

    def ceilings(self) -> Ceilings: ...

    def free_bytes(self) -> int: ...

    def stream(self) -> int:
        """The driver's handle of the stream for the next calls."""

    def array(self, tensor: torch.Tensor) -> DeviceArray: ...

    def compiled(self, function: Callable[..., Any], *arguments: Any) -> Callable[..., Any]:
        """`function` by torch.compile, after a first call.

        Raises AntiphonError when the time for compiling is used up.
        """

    def measure(self, calls: Sequence[Callable[[], Any]], rounds: int) -> Spread:
        """Time passes through all `calls`, `rounds` times each, as a CUDA graph if they can be captured."""


def time_benchmarks(
    launcher: Launcher,
    ops: Sequence[str],
    timer: Timer,
    ceilings: Ceilings,
    on_progress: Callable[..., None] | None = None,
) -> list[Timing]:
    """Time every benchmark of `ops` that has compiled kernels.

    Notes of a Timing tell what could not be timed.
    """
    benchmarks = [benchmark for op in ops for benchmark in op_benchmarks(op)]
    timings, began = [], time.monotonic()
    for done, benchmark in enumerate(benchmarks):
        if on_progress:
            left = (time.monotonic() - began) * (len(benchmarks) - done) / done if done else None
            on_progress(f"{benchmark.op} {benchmark.name}", done, len(benchmarks), left)
        try:
            timings.append(time_benchmark(launcher, benchmark, timer, ceilings))
        # Too little memory or a GPU broken by a kernel must not lose earlier timings.
        except Exception as error:
            timings.append(_untimed(benchmark, ceilings, _line(error)))
    if on_progress:
        on_progress("timed", len(benchmarks), len(benchmarks), 0.0)
    return timings


def op_benchmarks(op: str) -> list[Benchmark]:
    """The benchmarks of plugins/FOLDER/benchmarks.py; none if there is no such file."""
    return list(_benchmarks_module(op).benchmarks()) if _has_benchmarks(op) else []


def time_benchmark(launcher: Launcher, benchmark: Benchmark, timer: Timer, ceilings: Ceilings) -> Timing:
    """Time our program, PyTorch eager, torch.compile and the public kernel if there is one, on the same
    rotating inputs."""
    bytes_bound, operations_bound = (
        benchmark.bytes_moved / ceilings.bandwidth,
        benchmark.operations / ceilings.operations,
    )
    rounds = ROUNDS if max(bytes_bound, operations_bound) < SHORT else 1
    generator, attributes = timer.generator(), dict(benchmark.attributes)
    notes: list[str] = []
    sets = [dict(benchmark.make(generator))]
    size = sum(tensor.nbytes for tensor in sets[0].values())
    count = sets_to_rotate(benchmark.bytes_moved, size, ceilings.cache, timer.free_bytes())
    sets += [dict(benchmark.make(generator)) for _ in range(count - 1)]
    if count < LAYERS:
        notes.append(f"only {count} input sets fit into memory")
    if count * size <= ceilings.cache:
        notes.append("all input sets fit into the L2 cache")
    elif count * benchmark.bytes_moved <= ceilings.cache:
        notes.append("what the calls read of all input sets fits into the L2 cache")
    found: dict[str, Spread | None] = {}
    chosen: list[Program] = []
    outputs: list[dict[str, DeviceArray]] = []

    def noted(name: str, work: Callable[[], Any]) -> Any:
        """The result of `work`, or None and a note, so that one failure does not stop the other timings."""
        try:
            return work()
        except Exception as error:
            notes.append(f"{name}: {_line(error)}")
            return None

    def called(function: Callable[..., Any]) -> Callable[[], Spread]:
        return lambda: timer.measure([partial(function, inputs, attributes) for inputs in sets], rounds)

    def ours() -> Spread:
        arrays = [{name: timer.array(tensor) for name, tensor in inputs.items()} for inputs in sets]
        chosen.append(_program(launcher, benchmark, arrays[0]))
        outputs.extend(launcher.run_program(chosen[0], inputs, attributes) for inputs in arrays)

        def run(inputs: Mapping[str, DeviceArray], given: Mapping[str, DeviceArray]) -> None:
            launcher.run_program(chosen[0], inputs, attributes, given, timer.stream())

        launcher.wait()
        return timer.measure(
            [partial(run, inputs, given) for inputs, given in zip(arrays, outputs, strict=True)], rounds
        )

    found["ours"] = noted("ours", ours)
    found["eager"] = noted("eager", called(benchmark.eager))
    found["compiled"] = noted(
        "compiled", lambda: called(timer.compiled(benchmark.eager, sets[0], attributes))()
    )
    difference = None
    if found["ours"] and found["eager"]:
        difference = noted(
            "difference",
            lambda: _difference(
                launcher.numpy(next(iter(outputs[0].values()))), benchmark.eager(sets[0], attributes)
            ),
        )
    kernel = _reference_kernel(benchmark.op)
    if kernel is not None:
        found["reference"] = noted("reference", called(kernel))
    return Timing(
        op=benchmark.op,
        benchmark=benchmark.name,
        program=chosen[0].name if chosen else "-",
        ours=found["ours"],
        eager=found["eager"],
        compiled=found["compiled"],
        reference=found.get("reference"),
        bytes_bound=bytes_bound,
        operations_bound=operations_bound,
        sets=count,
        rotated_bytes=count * size,
        difference=difference,
        aim=benchmark.aim,
        notes=tuple(notes),
    )


def _untimed(benchmark: Benchmark, ceilings: Ceilings, note: str) -> Timing:
    bounds = benchmark.bytes_moved / ceilings.bandwidth, benchmark.operations / ceilings.operations
    return Timing(
        benchmark.op, benchmark.name, "-", None, None, None, None, *bounds, 0, 0, None, benchmark.aim, (note,)
    )


def sets_to_rotate(bytes_moved: int, size: int, cache: int, free: int) -> int:
    """The number of input sets of a timing: 8, more if they would fit in the cache, fewer if memory is
    short."""
    wanted = max(LAYERS, math.ceil(3 * cache / max(bytes_moved, 1)))
    return max(1, min(wanted, MOST_SETS, int(0.6 * free) // max(size, 1)))


def _program(launcher: Launcher, benchmark: Benchmark, inputs: Mapping[str, DeviceArray]) -> Program:
    return select(
        launcher.library.programs,
        benchmark.op,
        {name: (array.dtype, array.shape) for name, array in inputs.items()},
        benchmark.attributes,
    )


def _difference(found: np.ndarray, eager: Any) -> float | None:
    """The difference of our first output from PyTorch's; None if PyTorch's has another shape."""
    first = (
        eager[0]
        if isinstance(eager, tuple | list)
        else next(iter(eager.values()))
        if isinstance(eager, Mapping)
        else eager
    )
    expected = first.detach().double().cpu().numpy()
    if expected.shape != found.shape:
        return None
    return float(
        np.abs(found.astype(np.float64) - expected).max(initial=0.0)
        / max(np.abs(expected).max(initial=0.0), 1e-30)
    )


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _has_benchmarks(op: str) -> bool:
    return find_spec(f"..{FOLDERS[op]}.benchmarks", __package__) is not None


def _benchmarks_module(op: str) -> Any:
    return import_module(f"..{FOLDERS[op]}.benchmarks", __package__)


def _reference_kernel(op: str) -> Callable[..., Any] | None:
    """A public kernel for `op`, called like Benchmark.eager, if benchmarks.py names one and it is
    installed."""
    maker = getattr(_benchmarks_module(op), "reference_kernel", None) if _has_benchmarks(op) else None
    return maker() if maker else None
