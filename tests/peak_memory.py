"""How much memory a program needs, measured in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import antiphon


def peak_memory(code: str, *arguments: Path) -> int:
    """Most resident memory in bytes of a process of its own that runs `code`:
    the peak of this one belongs to other tests too.

    Linux hands a parent's peak on to `ru_maxrss` of its children; VmHWM is a process's own.
    """
    paths = [str(Path(antiphon.__file__).parent.parent), *sys.path]
    tell = "print(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1])"
    program = f"import re, sys; sys.path[:0] = {paths!r}\n{code}\n{tell}"
    found = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    return int(found.stdout.splitlines()[-1]) * 1024
