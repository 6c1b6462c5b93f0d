"""Forks of a process that runs engines.

A fork copies all memory and one thread. In the copy the thread pools of engines and the workers
of replies have no threads, so a bundle that was loaded before the fork is refused; a bundle that
is loaded after it works.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import Any

from ..bundle.errors import Closed

_native: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


def check_process(process: int, what: str) -> None:
    """Raise AntiphonError unless this process is `process`, in which `what` was made."""
    if os.getpid() != process:
        raise Closed(
            f"{what} belongs to process {process}, and this is a fork of it, which has none of its threads; "
            'load the bundle in this process, or start processes with multiprocessing.get_context("spawn").'
        )


def never_free_in_forks(owner: Any) -> None:
    """Never free `owner` in later forks of this process:
    its destructor waits for threads or takes locks of ONNX Runtime.
    """
    _native[id(owner)] = owner


def _after_fork_in_child() -> None:
    for reference in _native.valuerefs():
        owner = reference()
        if owner is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(owner))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
