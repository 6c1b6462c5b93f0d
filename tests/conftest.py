"""What all tests share: one tiny random checkpoint and the bundle built from it, made once a session when first asked for."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from antiphon.graphs.new_checkpoint import new_checkpoint

# Also where a library that a test uses imports ONNX Runtime by itself, and in the processes that tests start.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Triton kernels decide when they are imported: in the tests' own process they are interpreted, in the compiler's processes compiled.
os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's cache of built stages out of the tests, and the tests out of it. A cache named in the environment is used: it saves minutes."""
    if "ANTIPHON_CACHE" in os.environ:
        yield
        return
    os.environ["ANTIPHON_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    del os.environ["ANTIPHON_CACHE"]


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread() -> Iterator[None]:
    """The tensors of the tests are tiny: a second thread of PyTorch only waits, and very long beside other work."""
    try:
        import torch
    except ImportError:
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session", autouse=True)
def _heed_interrupts() -> Iterator[None]:
    """A shell starts background jobs with interrupts ignored, and their children inherit that; the tests of Ctrl-C need commands that heed it."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def no_leaked_threads() -> Iterator[None]:
    """The test ends with the threads it began with."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 5
    while left := [thread.name for thread in threading.enumerate() if thread not in before and thread.name.startswith("antiphon")]:
        assert time.monotonic() < deadline, f"threads left behind: {left}"
        time.sleep(0.01)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of size tiny, seed 0. Read only."""
    return new_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint")


@pytest.fixture(scope="session")
def tiny_bundle(tiny_checkpoint: Path) -> Path:
    """The bundle of tiny_checkpoint for ONNX Runtime. Read only: all tests of the session share it."""
    pytest.importorskip("torch")
    from antiphon.export.build import build

    folder = tiny_checkpoint.parent / "bundle"
    build(tiny_checkpoint, folder)
    return folder


@pytest.fixture(scope="session")
def hybrid_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of Qwen3.5-Omni, size tiny, seed 0. Read only."""
    return new_checkpoint(tmp_path_factory.mktemp("hybrid") / "checkpoint", family="qwen3_5_omni")


@pytest.fixture(scope="session")
def hybrid_bundle(hybrid_checkpoint: Path) -> Path:
    """The bundle of hybrid_checkpoint for ONNX Runtime. Read only: all tests of the session share it."""
    pytest.importorskip("torch")
    from antiphon.export.build import build

    folder = hybrid_checkpoint.parent / "bundle"
    build(hybrid_checkpoint, folder)
    return folder
