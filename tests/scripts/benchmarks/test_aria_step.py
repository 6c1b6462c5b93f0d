"""The benchmark of ARIA's step runs and prints figures; how fast it is here is nobody's promise."""

from __future__ import annotations

import pytest

pytest.importorskip("onnx")

from antiphon.scripts.benchmarks.aria_step import time_host, time_step


def test_both_ways_to_run_a_step_and_the_loop_are_timed() -> None:
    assert all(seconds > 0 for seconds in time_step(hidden=8, batch=2, steps=3))
    assert time_host(frames=20) > 0
