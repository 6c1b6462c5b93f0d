"""Checks and times every op on a borrowed GPU, tests TensorRT-RTX, and writes one JSON document.

    packages=$(mktemp -d) && ln -s "$PWD" "$packages/antiphon"
    PYTHONPATH="$packages" python3 -m antiphon.scripts.benchmarks.device_check --output "$OUT/device.json" \\
        --seconds 560 [--tensorrt-rtx FOLDER] [--library DIR]

Run it in the root of the repository on the machine with the GPU. That machine needs Python 3.11 or newer with
numpy, ml_dtypes, typer, rich, cuda-core, cuda-bindings 13 and Triton 3.6 (unless --library holds kernels that
are compiled for that GPU). The timings also need a PyTorch built for CUDA. Nothing is downloaded.

Only the questions about TensorRT-RTX need a prepared folder: two unpacked wheels for that machine's Python,
and engines that are built here:

    pip install --no-deps --python-version 3.12 --only-binary=:all: --target rtx \\
        tensorrt-rtx-cu13-bindings tensorrt-rtx-cu13-libs
    python -m antiphon.scripts.benchmarks.device_tensorrt_rtx prepare FOLDER
        (here, with wheels for this Python; then copy FOLDER/*.engine to rtx/)
    xz --x86 --lzma2=preset=9e rtx/tensorrt_rtx_libs/*.so.1

These are 61 MiB in all; the script unpacks the libraries. The most important steps come first, and the
document is written again after each, so a time limit cuts off the last steps only. Checks come first, then
timings op by op, each in its own process, so that a kernel that breaks the GPU's context affects no other.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...plugins.registry import FOLDERS
from ...runtime.bundle.errors import AntiphonError
from ...runtime.kernels.driver import open_device, target_for

LAST_WORDS = 3000
MOST_COMPILING = 150
"""Seconds of torch.compile for the benchmarks of one op, at most."""


def main() -> None:
    """Run all steps within the given time; exit code 1 if a check failed or did not run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="Where the JSON document goes.")
    parser.add_argument("--library", type=Path, help="Compiled kernels; without it, they are compiled here.")
    parser.add_argument("--tensorrt-rtx", type=Path, help="Folder with TensorRT-RTX.")
    parser.add_argument("--op", action="append", help="Only this op; may be given again.")
    parser.add_argument("--seconds", type=float, default=560, help="Time for everything.")
    arguments = parser.parse_args()
    try:
        target = target_for(open_device())
    except AntiphonError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    ops, deadline = arguments.op or list(FOLDERS), time.monotonic() + arguments.seconds
    record: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "target": target,
        "gpu": gpu(),
        "python": sys.version,
        "steps": {},
    }
    arguments.output.resolve().parent.mkdir(parents=True, exist_ok=True)

    def step(name: str, command: list[str], most: float) -> dict[str, Any]:
        left = deadline - time.monotonic()
        record["steps"][name] = (
            run_step(command, min(most, left))
            if left > 5
            else {"code": None, "seconds": 0, "words": "no time left"}
        )
        arguments.output.write_text(json.dumps(record, indent=1) + "\n")
        print(
            name,
            {key: value for key, value in record["steps"][name].items() if key in ("code", "seconds")},
            flush=True,
        )
        return record["steps"][name]

    with tempfile.TemporaryDirectory() as folder:
        library = str(arguments.library or Path(folder) / "kernels")
        if not arguments.library:
            step(
                "compile",
                ["plugins", "compile", "--target", target, "--library", library, "--json", *chosen(ops)],
                240,
            )
        checked = [
            step(
                f"check {op}",
                ["plugins", "check", "--library", library, "--no-timing", "--json", *chosen([op])],
                120,
            )
            for op in ops
        ]
        if arguments.tensorrt_rtx:
            step(
                "tensorrt-rtx",
                ["-m", "antiphon.scripts.benchmarks.device_tensorrt_rtx", "run", str(arguments.tensorrt_rtx)],
                240,
            )
        for place, op in enumerate(ops):
            # torch.compile must not use up the time of the later ops.
            share = max(0.0, deadline - time.monotonic()) / (len(ops) - place)
            compiling = str(int(min(MOST_COMPILING, share / 2)))
            step(
                f"time {op}",
                [
                    "plugins",
                    "check",
                    "--library",
                    library,
                    "--json",
                    "--compile-seconds",
                    compiling,
                    *chosen([op]),
                ],
                240,
            )
    print(summary(record))
    raise SystemExit(any(result["code"] != 0 for result in checked))


def chosen(ops: list[str]) -> list[str]:
    """The command-line options that select these ops."""
    return [word for op in ops for word in ("--op", op)]


def run_step(command: list[str], seconds: float) -> dict[str, Any]:
    """Run one command of Antiphon, or of Python if it begins with -m.

    Returns exit code, seconds, its JSON as `result`, and its last output if it failed.
    """
    began = time.monotonic()
    python = [sys.executable, *([] if command[0] == "-m" else ["-m", "antiphon"])]
    with subprocess.Popen(
        [*python, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as run:
        try:
            output, words = run.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            _end(run)
            return {
                "code": None,
                "seconds": round(time.monotonic() - began, 1),
                "words": f"no end after {seconds:.0f} s; {run.communicate()[1][-LAST_WORDS:]}",
            }
        except BaseException:
            _end(run)
            raise
    found: dict[str, Any] = {"code": run.returncode, "seconds": round(time.monotonic() - began, 1)}
    try:
        found["result"] = json.loads(output)
    except ValueError:
        found["words"] = output[-LAST_WORDS:]
    return found | ({"words": words[-LAST_WORDS:]} if run.returncode else {})


def _end(run: subprocess.Popen[str]) -> None:
    """End a step and the processes that it started: one left on the GPU would slow the next timings."""
    with suppress(ProcessLookupError):
        os.killpg(run.pid, signal.SIGKILL)


def gpu() -> str:
    """The GPU's name, driver and memory from nvidia-smi."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return "nvidia-smi does not run here"


def summary(record: dict[str, Any]) -> str:
    """A short text: the failures, and every timing with its bound."""
    lines = [f"{record['gpu']}; target {record['target']}"]
    for name, result in record["steps"].items():
        found = result.get("result") or {}
        if result["code"] != 0:
            lines.append(f"{name}: code {result['code']}: {result.get('words', '').strip()[-300:]}")
        if name.startswith("check ") and found:
            failed = [row for row in found["rows"] if not row["passed"]]
            lines.append(f"{name}: {len(found['rows']) - len(failed)} of {len(found['rows'])} cases passed")
            lines += [
                (
                    f"  {row['program']}, {row['case']}: "
                    f"error {row['error']} of {row['tolerance']} {row['message'][:160]}"
                )
                for row in failed[:12]
            ]
        if name.startswith("time ") and found:
            ceilings = found["ceilings"] or {"bandwidth": 0, "operations": 0}
            lines.append(
                f"{name}: copy {ceilings['bandwidth'] / 1e12:.2f} TB/s, "
                f"bfloat16 {ceilings['operations'] / 1e12:.0f} T/s"
            )
            lines += [f"  {timing_line(timing)}" for timing in found["timings"]]
        if name == "tensorrt-rtx" and found:
            lines += [
                f"{name} {question}: {answer.get('answer') or answer}" for question, answer in found.items()
            ]
    return "\n".join(lines)


def timing_line(timing: dict[str, Any]) -> str:
    """One benchmark in microseconds: ours, PyTorch's, the bounds, and the share of the larger bound."""
    times = ", ".join(
        f"{name} {timing[name]['median'] * 1e6:.1f}"
        for name in ("ours", "eager", "compiled", "reference")
        if timing[name]
    )
    share = f"{timing['fraction']:.0%} of bound" if timing["fraction"] else "not timed"
    bounds = f"bytes {timing['bytes_bound'] * 1e6:.1f}, operations {timing['operations_bound'] * 1e6:.1f}"
    notes = f" ({'; '.join(timing['notes'])[:200]})" if timing["notes"] else ""
    return f"{timing['benchmark']}: {times} us; {bounds}; {share}{notes}"


if __name__ == "__main__":
    main()
