"""Times of a step, against the least possible time: the bytes it reads over the memory bandwidth.

    python -m antiphon.scripts.benchmarks.bound BUNDLE [--threads 2] [--steps 60]

The bandwidth is measured in the same process with the product of one row and a chain of matrices, 1 GiB in
all, the best case of a decode step. Bytes are those of every weight that a step's matrix products read; of
experts only the chosen ones count.
"""

from __future__ import annotations

import argparse
import collections
import json
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from ...runtime.bundle.manifest import Manifest, read_manifest
from ...runtime.bundle.specs import StageEntry
from ...runtime.engines.onnxruntime.engine import OnnxEngine
from ...runtime.engines.onnxruntime.sessions import make_session
from ...runtime.states.pool import StatePool
from ..console import print_table

CONTEXT = 256
STEPS = {
    "thinker": "one token",
    "talker": "one row",
    "predictor": "one frame",
    "code2wav": "packet of 4 frames",
}


def main() -> None:
    """Measure the bandwidth and every stage of speech, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=60)
    arguments = parser.parse_args()
    manifest = read_manifest(arguments.bundle)
    bandwidth = memory_bandwidth(arguments.threads)
    rows, shares = [], []
    for stage, unit in STEPS.items():
        entry = manifest.stages[stage]
        path = arguments.bundle / entry.artifacts[0]
        feeds = step_feeds(entry, manifest)
        seconds = _time(OnnxEngine(path, entry, arguments.threads), feeds, arguments.steps)
        read = bytes_read(path)
        rows.append(
            [
                stage,
                unit,
                f"{read / 1e6:.1f}",
                f"{read / bandwidth * 1000:.2f}",
                f"{seconds * 1000:.2f}",
                f"{read / seconds / 1e9:.1f}",
            ]
        )
        shares.append([stage, _shares(path, entry, feeds, arguments.threads)])
    print_table(
        f"{arguments.threads} threads, memory bandwidth {bandwidth / 1e9:.1f} GB/s, "
        f"{CONTEXT} tokens of context",
        ("stage", "step", "MB read", "bound ms", "measured ms", "GB/s"),
        rows,
    )
    print_table(
        "share of kernel time by operator (profiling slows small operators most)",
        ("stage", "operators"),
        shares,
    )


def memory_bandwidth(threads: int, side: int = 4096, matrices: int = 16) -> float:
    """Bytes per second at which a row passes through a chain of matrices that no cache holds;
    the best of five runs.
    """
    noise = np.random.default_rng(0)
    x = ir.Value(name="x", shape=ir.Shape([1, side]), type=ir.TensorType(ir.DataType.FLOAT))
    nodes, initializers, value = [], [], x
    # the same values every time, in memory of their own
    matrix = noise.standard_normal((side, side), np.float32) / np.float32(side**0.5)
    for number in range(matrices):
        tensor = ir.tensor(matrix, name=f"w{number}")
        weight = ir.Value(
            name=f"w{number}",
            shape=ir.Shape([side, side]),
            type=ir.TensorType(ir.DataType.FLOAT),
            const_value=tensor,
        )
        nodes.append(ir.node("MatMul", [value, weight]))
        initializers.append(weight)
        value = nodes[-1].outputs[0]
        value.name = f"y{number}"
    value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([1, side])
    graph = ir.Graph(
        [x], [value], nodes=nodes, initializers=initializers, opset_imports={"": 24}, name="chain"
    )
    session = make_session(ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString(), threads)
    feeds = {"x": np.ones((1, side), np.float32)}
    session.run(None, feeds)
    best = min(_seconds(lambda: session.run(None, feeds)) for _ in range(5))
    return matrices * side * side * 4 / best


def bytes_read(engine: Path) -> int:
    """Bytes of weights that one single-row run reads: all of every product's matrix and convolution's kernel,
    the chosen part of experts.
    """
    total: float = 0
    for node in ir.load(engine).graph:
        weights = [
            value.const_value
            for value in node.inputs
            if value is not None and value.is_initializer() and value.const_value is not None
        ]
        if node.op_type in ("MatMul", "Gemm", "Conv"):
            total += sum(weight.nbytes for weight in weights)
        elif node.op_type == "MoE":
            chosen = node.attributes["k"].as_int()
            total += sum(weight.nbytes * chosen / weight.shape.numpy()[0] for weight in weights)
    return int(total)


def step_feeds(entry: StageEntry, manifest: Manifest) -> dict[str, np.ndarray]:
    """Feeds of one step of a stage: one row at CONTEXT rows of past, greedy; four frames for Code2Wav."""
    sizes = {
        "batch": 1,
        "tokens": 1,
        "rows": 1,
        "frames": 4 if entry.name == "code2wav" else 1,
        "features": 0,
        "visuals": 0,
        "hiddens": 0,
    }
    feeds = {
        spec.name: np.zeros(
            [axis if isinstance(axis, int) else sizes[axis] for axis in spec.shape], np.dtype(spec.dtype)
        )
        for spec in entry.inputs
    }
    feeds |= {
        name: np.ones_like(feeds[name])
        for name in ("query_length", "top_p", "repetition_penalty")
        if name in feeds
    }
    if "past_length" in feeds:
        feeds["past_length"][...] = CONTEXT
    return feeds


def _time(engine: OnnxEngine, feeds: Mapping[str, np.ndarray], steps: int) -> float:
    """Median seconds of a step at a fixed context."""
    slots = [engine.new_states().allocate()] if engine.entry.states else []
    for slot in slots:
        slot.reserve(2 * CONTEXT)
        slot.advance(CONTEXT)
    wanted = [spec.name for spec in engine.entry.outputs if spec.name != "logits"]
    for _ in range(5):
        engine.run(feeds, slots, wanted)
    return statistics.median(_seconds(lambda: engine.run(feeds, slots, wanted)) for _ in range(steps))


def _seconds(work: Any) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _shares(
    path: Path, entry: StageEntry, feeds: Mapping[str, np.ndarray], threads: int, runs: int = 10
) -> str:
    with tempfile.TemporaryDirectory() as folder:
        session = make_session(path, threads, profile=Path(folder) / "profile")
        states = StatePool(entry.states).allocate()
        states.reserve(2 * CONTEXT)
        given = dict(feeds) | {f"past.{state.name}": states.past(state.name) for state in entry.states}
        for _ in range(runs):
            session.run(None, given)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    spent: collections.Counter[str] = collections.Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"]
    return ", ".join(f"{name} {taken / spent.total():.0%}" for name, taken in spent.most_common(6))


if __name__ == "__main__":
    main()
