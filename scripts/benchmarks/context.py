"""Time and memory against the length of the context: the Thinker up to its limit, and the Talker.

    python -m antiphon.scripts.benchmarks.context BUNDLE [--lengths 16384,65536,262144]
        [--stage thinker|talker] [--threads 2] [--json FILE] [--plot FILE.svg]

Feeds random tokens through the chunked prefill of every conversation, with 20 decode steps before each
length. For each length it reports the peak memory so far above that of a context of 16 tokens, next to the
size from the manifest's states (rows times bytes per row, and the fixed part). It also reports the seconds of
prefill so far and the median time of the decode steps. For the Talker the rows are text rows, as an
interleave feeds them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.bundle.errors import AntiphonError
from ...runtime.bundle.sampling import SamplingParameters
from ...runtime.omni import Omni, load
from ..console import print_table, seconds, size
from ..inspect import state_bytes
from ..memory import Peak
from ..plot import Line, line_plot

BEFORE, STEPS = 16, 20
"""Rows fed before anything is measured, and decode steps at each length."""
ALLOWED_RATIO, ALLOWED_BYTES = 1.25, 200 * 10**6
"""Memory may be this many times the formula, and so much more."""


class ThinkerFeeder:
    """Random tokens into a conversation's Thinker."""

    def __init__(self, omni: Omni) -> None:
        self._omni, self._context = omni, omni.model.thinker.new_context()
        self._random = np.random.default_rng(0)
        self.entry = omni.engines["thinker"].entry
        self.limit = omni.model.thinker.context_limit

    @property
    def rows(self) -> int:
        """Rows in the context."""
        return self._context.states.length

    def feed(self, rows: int) -> None:
        """Prefill `rows` more tokens."""
        self._context.queue_text(self._random.integers(0, 500, rows))
        self._omni.model.thinker.prefill(self._context, lambda: None)

    def step_seconds(self) -> float:
        """Median time of a decode step; STEPS rows follow, one less where the context is then full."""
        taken: list[float] = []
        sampling = SamplingParameters(0.0, min_tokens=STEPS, max_tokens=STEPS)
        self._context.queue_text([1])
        for _ in self._omni.model.thinker.answer(self._context, sampling, 0, lambda: 0, taken.append):
            pass
        return statistics.median(taken)


class TalkerFeeder:
    """Random text rows into a Talker, in the prefill's chunks."""

    def __init__(self, omni: Omni) -> None:
        self._engine, self._chunk = omni.engines["talker"], omni.model.prefill_chunk
        self.entry = self._engine.entry
        self.limit = omni.manifest.constants.talker_context
        self._states = self._engine.new_states(1, self.limit).allocate()
        self._random = np.random.default_rng(0)
        sizes = omni.model.input_sizes("talker")
        assert omni.manifest.talker is not None
        frames = omni.manifest.talker.frame_input
        kind = np.int64 if frames == "frame_codes" else np.float32
        masks = {name: np.zeros((1, sizes[name]), bool) for name in ("penalised", "suppressed")}
        self._fixed: dict[str, np.ndarray] = {
            "hidden": np.zeros((0, sizes["hidden"]), np.float32),
            "hidden_index": np.zeros(0, np.int64),
            frames: np.zeros((0, sizes[frames]), kind),
            "frame_index": np.zeros(0, np.int64),
            "noise": np.zeros(1, np.float32),
            **SamplingParameters(0.0).feeds(1),
            **masks,
        }

    @property
    def rows(self) -> int:
        """Rows in the context."""
        return self._states.length

    def feed(self, rows: int) -> None:
        """Feed `rows` more rows."""
        while rows:
            count = min(rows, self._chunk)
            self._run(count)
            rows -= count

    def step_seconds(self) -> float:
        """Median time of a step; STEPS rows follow."""
        taken = []
        for _ in range(STEPS):
            began = time.perf_counter()
            self._run(1)
            taken.append(time.perf_counter() - began)
        return statistics.median(taken)

    def _run(self, rows: int) -> None:
        self._states.reserve(rows)
        positions = np.arange(rows, dtype=np.float32) + self._states.length
        feeds = {
            "text_ids": self._random.integers(0, 500, (1, rows)),
            "codec_ids": np.full((1, rows), -1),
            "positions": np.broadcast_to(positions, (3, 1, rows)),
            "query_length": np.array([rows]),
            "past_length": np.array([self._states.length]),
            "output_index": np.array([rows - 1]),
        }
        self._engine.run(feeds | self._fixed, (self._states,), ("token",))
        self._states.advance(rows)


def measure(feeder: ThinkerFeeder | TalkerFeeder, lengths: list[int]) -> list[dict[str, Any]]:
    """One record a length (ascending): tokens, prefill_seconds so far, step_seconds,
    memory_bytes above the start, formula_bytes, and within, whether that memory is allowed.
    """
    fixed, per_row = state_bytes(feeder.entry)
    feeder.feed(BEFORE)  # what is loaded at the first run is loaded now
    records, prefill = [], 0.0
    with Peak() as peak:
        for length in lengths:
            began = time.perf_counter()
            feeder.feed(length - STEPS - feeder.rows)
            prefill += time.perf_counter() - began
            step = feeder.step_seconds()
            memory, formula = peak.growth, fixed + per_row * feeder.rows
            within = memory <= ALLOWED_RATIO * formula + ALLOWED_BYTES
            record = {
                "tokens": length,
                "prefill_seconds": prefill,
                "step_seconds": step,
                "memory_bytes": memory,
                "formula_bytes": formula,
                "within": within,
            }
            records.append(record)
    return records


def read_lengths(text: str, limit: int) -> list[int]:
    """Lengths separated by commas, ascending.

    Raises AntiphonError for what no context holds, or too near to each other to be measured.
    """
    try:
        lengths = sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise AntiphonError(
            f"--lengths is {text!r}, expected numbers of tokens separated by commas, for example 16384,65536."
        ) from None
    gaps = [after - before for before, after in zip([BEFORE, *lengths], lengths, strict=False)]
    if min(gaps) <= STEPS or lengths[-1] > limit:
        raise AntiphonError(
            f"--lengths is {text}, expected lengths more than {STEPS} apart, "
            f"from {BEFORE + STEPS + 1} to {limit}, what the context holds."
        )
    return lengths


def plot(records: list[dict[str, Any]]) -> str:
    """Memory beside its formula, prefill, and decode step over the length. Returns SVG text."""

    def line(name: str, key: str, scale: float) -> Line:
        return Line(name, [(record["tokens"], record[key] * scale) for record in records])

    panels = [
        ("memory, MB", [line("measured", "memory_bytes", 1e-6), line("formula", "formula_bytes", 1e-6)]),
        ("prefill so far, s", [line("", "prefill_seconds", 1)]),
        ("decode step, ms", [line("", "step_seconds", 1000)]),
    ]
    return line_plot(panels, "tokens of context")


def main() -> None:
    """Measure, print a table, and write JSON and a plot where asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--lengths", default="16384,65536,262144")
    parser.add_argument("--stage", choices=("thinker", "talker"), default="thinker")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    try:
        with load(arguments.bundle, max_streams=1, threads=arguments.threads) as omni:
            if arguments.stage not in omni.engines:
                raise AntiphonError(
                    f"{arguments.bundle} has no stage {arguments.stage}; build a bundle that has it."
                )
            feeder = ThinkerFeeder(omni) if arguments.stage == "thinker" else TalkerFeeder(omni)
            records = measure(feeder, read_lengths(arguments.lengths, feeder.limit))
    except AntiphonError as error:
        parser.exit(2, f"{error}\n")
    rows = [
        [
            f"{record['tokens']:,}",
            seconds(record["prefill_seconds"]),
            seconds(record["step_seconds"]),
            size(record["memory_bytes"]),
            size(record["formula_bytes"]),
            "yes" if record["within"] else "NO",
        ]
        for record in records
    ]
    columns = ("tokens", "prefill so far", "decode step", "memory", "formula", "within 1.25 times + 200 MB")
    print_table(f"{arguments.bundle}: {arguments.stage}, {arguments.threads} threads", columns, rows)
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"stage": arguments.stage, "threads": arguments.threads, "lengths": records}, indent=2)
            + "\n",
            encoding="utf-8",
        )
    if arguments.plot:
        arguments.plot.write_text(plot(records), encoding="utf-8")


if __name__ == "__main__":
    main()
