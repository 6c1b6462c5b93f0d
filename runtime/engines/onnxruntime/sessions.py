"""The one place that makes ONNX Runtime sessions.

A session's threads spin after a run and then slow every other session several times, so here they stop with
the run. Runs take turns (`turns`), so each session may have as many threads as there are cores. A
process-wide pool would serve as well and is not used: it would forbid a host program its own plain sessions.
"""

from __future__ import annotations

import os
from pathlib import Path

from ...bundle.errors import BrokenBundle
from ...bundle.numeric import whole
from ...bundle.said import reason, short_path
from ...scheduling.forks import never_free_in_forks
from ..checks import MOST_THREADS
from .library import onnxruntime


def default_threads() -> int:
    """ANTIPHON_THREADS if set, else the cores this process may use.

    Raises AntiphonError when the variable is no positive integer.
    """
    value = os.environ.get("ANTIPHON_THREADS")
    if value is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return whole(
        int(value) if value.isascii() and value.isdigit() and len(value) <= 9 else value,
        "ANTIPHON_THREADS",
        1,
        MOST_THREADS,
    )


def make_session(
    model: Path | bytes,
    threads: int | None = None,
    weights_folder: Path | None = None,
    profile: Path | None = None,
) -> onnxruntime.InferenceSession:
    """Load an ONNX file for the CPU, or a serialized model whose external weights lie in `weights_folder`.

    `threads` work on one run (default: `default_threads`). `profile` is the beginning of the name of the file
    that `end_profiling` writes. Raises AntiphonError in one sentence when ONNX Runtime cannot take the model.
    """
    if threads is not None:
        threads = whole(threads, "threads", 1, MOST_THREADS)
    options = onnxruntime.SessionOptions()
    # nothing but fatal errors on the terminal; failures reach the caller as exceptions
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # shapes change with every prompt, and each one would keep a plan of its own
    options.enable_mem_pattern = False
    options.intra_op_num_threads, options.inter_op_num_threads = threads or default_threads(), 1
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    if weights_folder is not None:
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(weights_folder)
        )
    try:
        session = onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        place = short_path(weights_folder if isinstance(model, bytes) else model)
        raise BrokenBundle(
            f"ONNX Runtime {onnxruntime.__version__} cannot load {place}: {reason(error)}; "
            "build the bundle again."
        ) from error
    never_free_in_forks(session)
    return session
