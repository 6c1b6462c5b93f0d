"""The clock of the timings, on a PyTorch that only says what it was asked: warmed up, captured and replayed;
or launch by launch where that cannot be.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from antiphon.plugins.tools import cuda_timer
from antiphon.plugins.tools.cuda_timer import CudaTimer
from antiphon.runtime.bundle.errors import AntiphonError


class FakeTorch:
    """torch, as far as CudaTimer uses it. A replay takes 8 ms by its events."""

    def __init__(self, waits: bool = False) -> None:
        self.said: list[str] = []
        self.mode, self.waits = 0, waits
        torch = self

        class Graph:
            def replay(self) -> None:
                torch.said.append("replay")

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                torch.said.append("record")

            def synchronize(self) -> None:
                torch.said.append("synchronize event")

            def elapsed_time(self, last: Any) -> float:
                return 8.0

        def set_sync_debug_mode(mode: Any) -> None:
            torch.mode = mode

        self.cuda = SimpleNamespace(
            is_available=lambda: True,
            Stream=lambda: "side",
            CUDAGraph=Graph,
            Event=Event,
            synchronize=lambda: torch.said.append("synchronize"),
            stream=self._within("stream"),
            graph=lambda graph, stream: self._within("capture")(stream),
            get_sync_debug_mode=lambda: torch.mode,
            set_sync_debug_mode=set_sync_debug_mode,
            current_stream=lambda: SimpleNamespace(cuda_stream=77),
        )
        self._dynamo = SimpleNamespace(reset=lambda: torch.said.append("reset"))
        self.compile = lambda function, dynamic: function

    def _within(self, name: str) -> Any:
        @contextmanager
        def within(stream: str) -> Iterator[None]:
            assert stream == "side"
            self.said.append(name)
            yield
            self.said.append(f"end {name}")

        return within

    def call(self) -> None:
        self.said.append("call")
        if self.waits and self.mode == "error":
            raise RuntimeError("called a synchronizing CUDA operation")


def timer_on(torch: FakeTorch, monkeypatch: pytest.MonkeyPatch, **given: Any) -> CudaTimer:
    monkeypatch.setitem(sys.modules, "torch", torch)  # type: ignore[arg-type]
    return CudaTimer(**given)


def test_calls_are_warmed_up_captured_and_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = FakeTorch()
    timer = timer_on(torch, monkeypatch)
    # one second a look: the ten passes that are the least
    monkeypatch.setattr(cuda_timer.time, "monotonic", iter(range(10**6)).__next__)
    found = timer.measure([torch.call, torch.call], rounds=4)
    captured = torch.said[torch.said.index("capture") : torch.said.index("end capture")]
    assert captured.count("call") == 8 and torch.said[: torch.said.index("capture")].count("call") == 3
    assert torch.said.count("replay") == 13 and torch.said.count("record") == 20
    assert (found.median, found.low, found.high, found.graph) == (
        pytest.approx(1e-3),
        pytest.approx(1e-3),
        pytest.approx(1e-3),
        True,
    )
    assert torch.mode == 0


def test_calls_that_wait_for_the_gpu_are_not_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = FakeTorch(waits=True)
    found = timer_on(torch, monkeypatch).measure([torch.call, torch.call], rounds=4)
    assert "capture" not in torch.said and not found.graph and found.median == pytest.approx(4e-3)
    assert torch.mode == 0


def test_compiling_ends_when_its_time_is_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = FakeTorch()
    timer = timer_on(torch, monkeypatch, compile_seconds=1)
    with pytest.raises(TimeoutError, match="torch.compile took too long"):
        timer.compiled(lambda: time.sleep(5))
    with pytest.raises(AntiphonError, match="is spent"):
        timer.compiled(torch.call)


def test_a_compiled_function_was_called_once(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = FakeTorch()
    timer = timer_on(torch, monkeypatch)
    timer.compiled(torch.call)
    assert torch.said == ["reset", "call", "synchronize"] and timer.stream() == 77
