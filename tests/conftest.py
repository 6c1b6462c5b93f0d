"""What all tests share: tiny checkpoints and the bundles built from them,
made once for all workers of a run when first asked for.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import antiphon
from antiphon.graphs.random.new_checkpoint import new_checkpoint

from .made_once import made_once, run_folder
from .peak_memory import peak_memory

PRETRAINED = Path(__file__).resolve().parents[1] / "graphs" / "pretrained" / "tiny"
Shared = Callable[[str, Callable[[Path], object]], Path]

# Also where a library that a test uses imports ONNX Runtime by itself, and in the processes that tests start.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# A second thread of ONNX Runtime only spins in graphs as small as these. Tests of threads ask for them.
os.environ.setdefault("ANTIPHON_THREADS", "1")

# Triton kernels decide when they are imported: in the tests' own process they are interpreted, in the
# compiler's processes compiled.
os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's cache of built stages out of the tests, and the tests out of it.

    A cache named in the environment is used: it saves minutes.
    """
    if "ANTIPHON_CACHE" in os.environ:
        yield
        return
    os.environ["ANTIPHON_CACHE"] = str(run_folder(tmp_path_factory) / "cache")
    yield
    del os.environ["ANTIPHON_CACHE"]


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread() -> Iterator[None]:
    """The tensors of the tests are tiny: a second thread of PyTorch only waits,
    and very long beside other work.
    """
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
    """A shell starts background jobs with interrupts ignored, and their children inherit that;
    the tests of Ctrl-C need commands that heed it.
    """
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
    while left := [
        thread.name
        for thread in threading.enumerate()
        if thread not in before and thread.name.startswith("antiphon")
    ]:
        assert time.monotonic() < deadline, f"threads left behind: {left}"
        time.sleep(0.01)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """shared(name, make): the folder `name`, which `make(folder)` fills once for all workers. Read only."""
    return lambda name, make: made_once(run_folder(tmp_path_factory) / name, make)


@pytest.fixture(scope="session")
def tiny_checkpoint(shared: Shared) -> Path:
    """A checkpoint of size tiny, seed 0. Read only."""
    return shared("tiny", lambda folder: new_checkpoint(folder / "checkpoint")) / "checkpoint"


@pytest.fixture(scope="session")
def tiny_bundle(tiny_checkpoint: Path, shared: Shared) -> Path:
    """The bundle of tiny_checkpoint for ONNX Runtime. Read only: all tests of the run share it.

    A process of its own builds it, whose most resident memory in bytes is in the file `peak` beside it.
    """
    pytest.importorskip("torch")

    def make(folder: Path) -> None:
        code = "from antiphon.export.build import build\nbuild(sys.argv[1], sys.argv[2])"
        (folder / "peak").write_text(str(peak_memory(code, tiny_checkpoint, folder / "bundle")))

    return shared("tiny_bundle", make) / "bundle"


@pytest.fixture(scope="session")
def hybrid_checkpoint(shared: Shared) -> Path:
    """A checkpoint of Qwen3.5-Omni, size tiny, seed 0. Read only."""
    return (
        shared("hybrid", lambda folder: new_checkpoint(folder / "checkpoint", family="qwen3_5_omni"))
        / "checkpoint"
    )


@pytest.fixture(scope="session")
def hybrid_bundle(hybrid_checkpoint: Path, shared: Shared) -> Path:
    """The bundle of hybrid_checkpoint for ONNX Runtime. Read only: all tests of the run share it."""
    pytest.importorskip("torch")
    return (
        shared("hybrid_bundle", lambda folder: antiphon.build(hybrid_checkpoint, folder / "bundle"))
        / "bundle"
    )


@pytest.fixture(scope="session")
def pretrained_bundle(shared: Shared) -> Path:
    """The bundle of the trained checkpoint in the repository. Read only: all tests of the run share it."""
    pytest.importorskip("torch")
    return (
        shared("pretrained_bundle", lambda folder: antiphon.build(PRETRAINED, folder / "bundle")) / "bundle"
    )
