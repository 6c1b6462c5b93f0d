"""The processes that compile kernels for the tests: each imports Triton and PyTorch,
so they are started once.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest


@pytest.fixture(scope="session")
def compiler() -> Iterator[ProcessPoolExecutor]:
    """Processes that compile kernels and do not interpret them.

    Where several workers run tests, each has one.
    """
    pytest.importorskip("triton")
    from antiphon.plugins.tools.compile_worker import prepare

    processes = 1 if "PYTEST_XDIST_WORKER" in os.environ else 2
    with ProcessPoolExecutor(
        processes, mp_context=multiprocessing.get_context("spawn"), initializer=prepare
    ) as pool:
        yield pool
