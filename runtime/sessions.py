"""The one place that makes ONNX Runtime sessions.

Every session with threads of its own lets them spin after a run, which slows all other sessions several times; so all sessions
share one process-wide pool of as many threads as there are cores.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import onnxruntime

from .errors import AntiphonError

_lock = threading.Lock()
_threads: int | None = None
_pool_is_shared = False


def default_threads() -> int:
    """ANTIPHON_THREADS if set, else the cores this process may use. Raises AntiphonError when the variable is no positive integer."""
    value = os.environ.get("ANTIPHON_THREADS")
    if value is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not value.isdigit() or int(value) < 1:
        raise AntiphonError(f"ANTIPHON_THREADS is {value!r}, expected a positive number of threads.")
    return int(value)


def set_threads(threads: int | None) -> int:
    """Fix the size of the shared pool, at the first session of the process; returns the size in force.

    Raises AntiphonError when the pool exists with another size, or `threads` is not positive. None accepts whatever is in force.
    """
    global _threads, _pool_is_shared
    if threads is not None and threads < 1:
        raise AntiphonError(f"threads is {threads}, expected at least 1.")
    with _lock:
        if _threads is None:
            size = threads or default_threads()
            try:
                onnxruntime.set_global_thread_pool_sizes(size, 1)
                _pool_is_shared = True
            except Exception:  # another library has made sessions before us: the environment exists and keeps its kind
                _pool_is_shared = False
            _threads = size
        elif threads is not None and threads != _threads:
            raise AntiphonError(f"This process already runs engines on {_threads} threads and cannot change to {threads}; ask for it at the first load.")
        return _threads


def make_session(model: Path | bytes, threads: int | None = None, weights_folder: Path | None = None) -> onnxruntime.InferenceSession:
    """Load an ONNX file for the CPU, or a serialized model whose external weights lie in `weights_folder`.

    Raises AntiphonError in one sentence when ONNX Runtime cannot take it.
    """
    size = set_threads(threads)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # nothing but fatal errors on the terminal; failures reach the caller as exceptions
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.enable_mem_pattern = False  # shapes change with every prompt, and each one would keep a plan of its own
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if _pool_is_shared:
        options.use_per_session_threads = False
    else:
        options.intra_op_num_threads, options.inter_op_num_threads = size, 1
    if weights_folder is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(weights_folder))
    try:
        return onnxruntime.InferenceSession(model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        reason, place = " ".join(str(error).split())[:300], weights_folder if isinstance(model, bytes) else model
        raise AntiphonError(f"ONNX Runtime {onnxruntime.__version__} cannot load {place}: {reason}; build the bundle again.") from error
