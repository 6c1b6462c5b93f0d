"""Programs in a process of their own, for what may never end:
a hang becomes a failure that shows where every thread stands.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import antiphon

PREAMBLE = """\
import asyncio, contextlib, faulthandler, gc, os, random, signal, sys, threading, time
if {watched}:
    faulthandler.dump_traceback_later({seconds}, exit=True)
sys.path.insert(0, {folder!r})
from conftest import make_fakes
import antiphon
QUESTION = [{{"role": "user", "content": "hello"}}]
fakes = contextlib.ExitStack().enter_context(make_fakes())
"""


def run_child(
    program: str, *arguments: object, seconds: int = 40, watched: bool = True, ignored: str = "(?!)"
) -> list[str]:
    """The lines that `program` prints.

    It may use `fakes`, `QUESTION` and the modules of PREAMBLE, and must end by itself,
    quietly and with status 0.

    `ignored`: a pattern of what it may say on standard error. `watched`: the process itself tells where it
    hangs; not for programs that fork, since the watcher's thread is missing in the copy.
    """
    code = PREAMBLE.format(
        watched=watched, seconds=seconds, folder=str(Path(__file__).parent)
    ) + textwrap.dedent(program)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(antiphon.__file__).parent.parent), *sys.path])
    }
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=seconds + 20)
    assert done.returncode == 0 and not re.sub(ignored, "", done.stderr), (
        f"status {done.returncode}, printed\n{done.stdout}{done.stderr}"
    )
    return done.stdout.splitlines()
