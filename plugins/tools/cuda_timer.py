"""A timer on PyTorch's streams, events and CUDA graphs, on this machine's GPU.

Importing it needs no PyTorch.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...runtime.bundle.errors import AntiphonError, require_extra
from ...runtime.kernels.device_array import DeviceArray
from .timing import Ceilings, Spread

if TYPE_CHECKING:
    import torch

COMPILE_SECONDS_EACH = 45
"""The time limit of torch.compile for one benchmark, in seconds."""


class CudaTimer:
    """A timing.Timer on the current GPU of PyTorch."""

    def __init__(self, compile_seconds: float = 150) -> None:
        """Raises AntiphonError if PyTorch is missing or was built without CUDA."""
        require_extra("build", "Timing beside PyTorch (left out by --no-timing)", "torch")
        import torch

        if not torch.cuda.is_available():
            raise AntiphonError(
                "The PyTorch installed here cannot use the GPU; "
                "install one built for CUDA, or give --no-timing."
            )
        self._torch = torch
        self._stream = torch.cuda.Stream()
        self._compile_seconds = compile_seconds

    def versions(self) -> dict[str, str]:
        return {"torch": self._torch.__version__, "torch CUDA": str(self._torch.version.cuda)}

    def generator(self) -> torch.Generator:
        return self._torch.Generator("cuda").manual_seed(0)

    def ceilings(self) -> Ceilings:
        torch = self._torch
        source, target = torch.randn(2**28, device="cuda"), torch.empty(2**28, device="cuda")
        copied = self.measure([lambda: target.copy_(source)], 1)
        a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
        product = torch.empty_like(a)
        multiplied = self.measure([lambda: torch.mm(a, b, out=product)], 1)
        cache = torch.cuda.get_device_properties(0).L2_cache_size
        return Ceilings(
            bandwidth=2 * source.nbytes / copied.median,
            operations=2 * 8192**3 / multiplied.median,
            cache=cache,
        )

    def free_bytes(self) -> int:
        self._torch.cuda.empty_cache()
        return int(self._torch.cuda.mem_get_info()[0])

    def stream(self) -> int:
        return int(self._torch.cuda.current_stream().cuda_stream)

    def array(self, tensor: torch.Tensor) -> DeviceArray:
        return DeviceArray.from_cuda(tensor)

    def compiled(self, function: Callable[..., Any], *arguments: Any) -> Callable[..., Any]:
        most = int(min(COMPILE_SECONDS_EACH, self._compile_seconds))
        if most <= 0:
            raise AntiphonError("The time given for torch.compile is spent.")
        self._torch._dynamo.reset()
        began = time.monotonic()
        # An unrolled loop over experts can compile for longer than the time on a borrowed GPU.
        before = signal.signal(signal.SIGALRM, _out_of_time)
        signal.alarm(most)
        try:
            made = self._torch.compile(function, dynamic=False)
            made(*arguments)
            self._torch.cuda.synchronize()
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
            self._compile_seconds -= time.monotonic() - began
        return made

    def measure(self, calls: Sequence[Callable[[], Any]], rounds: int) -> Spread:
        torch = self._torch
        self._torch.cuda.synchronize()
        with torch.cuda.stream(self._stream):
            for call in calls:
                call()
            torch.cuda.synchronize()
            can_capture = self._runs_without_waiting(calls[0])
        if can_capture:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=self._stream):
                for _ in range(rounds):
                    for call in calls:
                        call()
            return self._spread(graph.replay, rounds * len(calls), graph=True)
        return self._spread(lambda: [call() for call in calls], len(calls), graph=False)

    def _runs_without_waiting(self, call: Callable[[], Any]) -> bool:
        """Whether `call` runs without the host waiting for the GPU; a wait would break a capture, and
        PyTorch's allocator."""
        before = self._torch.cuda.get_sync_debug_mode()
        self._torch.cuda.set_sync_debug_mode("error")
        try:
            call()
        except RuntimeError:
            return False
        finally:
            self._torch.cuda.set_sync_debug_mode(before)
        self._torch.cuda.synchronize()
        return True

    def _spread(self, run: Callable[[], Any], calls: int, graph: bool) -> Spread:
        """Run at least ten passes, and more until a third of a second has passed."""
        torch = self._torch
        times: list[float] = []
        began = time.monotonic()
        with torch.cuda.stream(self._stream):
            for _ in range(3):
                run()
            while len(times) < 10 or (len(times) < 200 and time.monotonic() - began < 0.33):
                first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                first.record()
                run()
                last.record()
                last.synchronize()
                times.append(first.elapsed_time(last) / 1000 / calls)
        low, median, high = np.percentile(times, [10, 50, 90])
        return Spread(float(median), float(low), float(high), graph)


def _out_of_time(number: int, frame: object) -> None:
    raise TimeoutError("torch.compile took too long")
