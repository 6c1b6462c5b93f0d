"""Memory of this process as the measurements see it."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest

from antiphon.scripts import memory
from antiphon.scripts.memory import Peak

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
SIZE = 64 * 2**20


def test_growth_holds_what_was_taken_and_given_back() -> None:
    with Peak() as peak:
        assert peak.growth < SIZE // 2
        taken = np.ones(SIZE, np.uint8)
        del taken
        assert SIZE * 0.95 < peak.growth < SIZE * 1.5


def test_growth_is_seen_by_looking_where_more_was_taken_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "high_water_mark", lambda: 2**40)  # a mark that never rises
    with Peak() as peak:
        taken = np.ones(SIZE, np.uint8)
        time.sleep(0.2)
        del taken
        assert SIZE * 0.95 < peak.growth < SIZE * 1.5


def test_figures_are_nought_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.Path, "read_text", lambda *arguments, **options: (_ for _ in ()).throw(FileNotFoundError()))
    with Peak() as peak:
        assert peak.growth == peak.before == 0
