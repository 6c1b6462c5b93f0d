"""Memory of this process as the measurements see it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from antiphon.scripts import memory
from antiphon.scripts.memory import Peak

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
SIZE = 64 * 2**20

TAKEN_AND_GIVEN_BACK = """
with Peak() as peak:
    first = peak.growth
    taken = np.ones(SIZE, np.uint8)
    del taken
    print(first, peak.growth)
"""
SEEN_BY_LOOKING = """
memory.high_water_mark = lambda: 2**40  # a mark that never rises, as where loading took more
with Peak() as peak:
    first = peak.growth
    taken = np.ones(SIZE, np.uint8)
    time.sleep(0.3)
    del taken
    print(first, peak.growth)
"""


@pytest.mark.parametrize(
    "work", [TAKEN_AND_GIVEN_BACK, SEEN_BY_LOOKING], ids=["taken and given back", "seen by looking"]
)
def test_growth_holds_what_was_taken_for_a_moment(work: str) -> None:
    """In a process of its own: one that ran many tests takes memory it already has."""
    beginning = (
        "import time\nimport numpy as np\nfrom antiphon.scripts import memory\n"
        f"from antiphon.scripts.memory import Peak\nSIZE = {SIZE}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", beginning + work], capture_output=True, text=True, check=True, timeout=60
    )
    first, growth = map(int, done.stdout.split())
    assert first < SIZE // 2 and SIZE * 0.95 < growth < SIZE * 1.5


def test_figures_are_nought_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        memory.Path, "read_text", lambda *arguments, **options: (_ for _ in ()).throw(FileNotFoundError())
    )
    with Peak() as peak:
        assert peak.growth == peak.before == 0
