"""How much memory this process takes, for measurements. Linux tells; elsewhere the figures are 0."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType


class Peak:
    """The most resident memory above that at the beginning, in a `with` block.

    Linux keeps a high-water mark of the whole process, which tells exactly once it rises. Until then, because loading took more for a moment,
    a thread looks every 20 ms.
    """

    def __init__(self) -> None:
        self.before = self._most = resident_memory()
        self._mark = high_water_mark()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def growth(self) -> int:
        """Bytes of the most until now above `before`."""
        mark = high_water_mark()
        self._most = max(self._most, resident_memory(), mark if mark > self._mark else 0)
        return self._most - self.before

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(0.02):
            self._most = max(self._most, resident_memory())


def resident_memory() -> int:
    """Bytes of this process that are in memory now."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def high_water_mark() -> int:
    """The most that was ever in memory. Linux hands `ru_maxrss` on to children, so it would be that of the parent."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return 0
