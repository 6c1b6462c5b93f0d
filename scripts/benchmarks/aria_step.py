"""The cost of ARIA's decision on the CPU: a step of AriaStep in ONNX Runtime, and a frame of the host's loop.

    python -m antiphon.scripts.benchmarks.aria_step [--hidden 512] [--batch 1] [--steps 3000]

The step makes the Talker's next row from text that has arrived, in chunks of four. The host's loop does the
same for a Talker that takes no time.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import onnx

from ...plugins import onnx_domain
from ...plugins.registry import ARIA_STEP, DOMAIN, DOMAIN_VERSION
from ...runtime.engines.onnxruntime.library import onnxruntime
from ...runtime.engines.onnxruntime.sessions import make_session
from ...runtime.stages.aria import chunked, need_table, speak

VOCABULARY, GROUPS, CODEBOOK, FRAMES, SLOTS = 3000, 16, 2048, 4096, 100


def main() -> None:
    """Measure both and print microseconds."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3000)
    arguments = parser.parse_args()
    step, bound = time_step(arguments.hidden, arguments.batch, arguments.steps)
    print(
        f"AriaStep, hidden {arguments.hidden}, batch {arguments.batch}: {step * 1e6:.1f} us a run, "
        f"{bound * 1e6:.1f} us with bound inputs and outputs"
    )
    print(f"host loop: {time_host() * 1e6:.2f} us a frame")


def time_step(hidden: int, batch: int, steps: int) -> tuple[float, float]:
    """Median seconds of a run with arrays as inputs and outputs, and of one with tensors bound once."""
    session = make_session(_model(hidden).SerializeToString(), 1)
    feeds = {
        "need": need_table(chunked(), FRAMES),
        "text_ids": np.arange(SLOTS)[None].repeat(batch, 0),
        "text_length": np.full(batch, SLOTS),
        "text_complete": np.ones(batch, bool),
        "codes": np.ones((batch, GROUPS), np.int64),
        "counters": np.tile([[3, 0, 0, 0]], (batch, 1)),
    }
    binding = session.io_binding()
    for name, value in feeds.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(value))
    for output in session.get_outputs():
        binding.bind_output(output.name, "cpu")
    plain, bound = [], []
    for count in range(steps + 100):  # the first hundred are warm-up
        began = time.perf_counter()
        session.run(None, feeds)
        between = time.perf_counter()
        session.run_with_iobinding(binding)
        if count >= 100:
            plain.append(between - began)
            bound.append(time.perf_counter() - between)
    return statistics.median(plain), statistics.median(bound)


def _model(hidden: int) -> onnx.ModelProto:
    kinds = {
        "T": onnx.TensorProto.FLOAT,
        "tensor(int64)": onnx.TensorProto.INT64,
        "tensor(bool)": onnx.TensorProto.BOOL,
    }
    onnx_domain.schema(ARIA_STEP)
    noise = np.random.default_rng(0)
    tables = {"text_embedding": VOCABULARY, "code_embedding": GROUPS * CODEBOOK}
    weights = [
        onnx.numpy_helper.from_array(noise.standard_normal((rows, hidden), np.float32), name)
        for name, rows in tables.items()
    ]
    # The shapes that a built graph declares.
    shapes = {"codes": (None, GROUPS), "counters": (None, 4)}
    inputs, outputs = (
        [
            onnx.helper.make_tensor_value_info(name, kinds[kind], shapes.get(name))
            for name, kind in group
            if name not in tables
        ]
        for group in (ARIA_STEP.inputs, ARIA_STEP.outputs)
    )
    given, returned = [name for name, _ in ARIA_STEP.inputs], [name for name, _ in ARIA_STEP.outputs]
    node = onnx.helper.make_node(
        "AriaStep", given, returned, domain=DOMAIN, end_id=1, pad_id=2, summed=0, end_anywhere=0
    )
    graph = onnx.helper.make_graph([node], "aria_step", inputs, outputs, initializer=weights)
    opsets = [onnx.helper.make_opsetid("", 24), onnx.helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]
    return onnx.helper.make_model(
        graph, opset_imports=opsets, functions=[onnx_domain.function("AriaStep")], ir_version=10
    )


class _Free:
    """A text and a Talker that take no time: `tokens` ids, `frames` frames."""

    def __init__(self, tokens: int, frames: int) -> None:
        self.tokens, self.frames, self.codes = iter(range(tokens)), frames, np.zeros(GROUPS, np.int64)

    def next(self) -> int | None:
        return next(self.tokens, None)

    def step(self, text_ids: list[int], may_end: bool) -> np.ndarray | None:
        self.frames -= 1
        return self.codes if self.frames >= 0 else None


def time_host(frames: int = 2000) -> float:
    """Seconds per frame of `speak`, median of nine answers."""
    taken = []
    for _ in range(9):
        free = _Free(frames // 4, frames)
        began = time.perf_counter()
        for _ in speak(chunked(), free, free, -1, lambda tokens: 2 * frames):
            pass
        taken.append((time.perf_counter() - began) / frames)
    return statistics.median(taken)


if __name__ == "__main__":
    main()
