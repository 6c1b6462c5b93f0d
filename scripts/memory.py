"""Memory use of this process, for measurements. Only Linux reports it; elsewhere the figures are 0."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType


class Peak:
    """The peak of resident memory in a `with` block, above that at its start.

    Linux keeps a high-water mark of the whole process, which is exact once it rises. Until then, because
    loading may have needed more for a moment, a thread samples every 20 ms.
    """

    def __init__(self) -> None:
        self.before = self._most = resident_memory()
        self._mark = high_water_mark()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def growth(self) -> int:
        """Bytes of the peak so far above `before`."""
        mark = high_water_mark()
        self._most = max(self._most, resident_memory(), mark if mark > self._mark else 0)
        return self._most - self.before

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(0.02):
            self._most = max(self._most, resident_memory())


def resident_memory() -> int:
    """Bytes of this process in memory now."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf(
            "SC_PAGE_SIZE"
        )
    except OSError:
        return 0


def high_water_mark() -> int:
    """The peak of resident memory of this process; not `ru_maxrss`, which a Linux process inherits from its
    parent."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return 0
