"""How time and memory grow with the context: the Thinker up to its limit, and the Talker.

    python -m antiphon.scripts.benchmark_context BUNDLE [--lengths 16384,65536,262144] [--stage thinker|talker] [--threads 2] [--json FILE] [--plot FILE.svg]

Feeds random tokens through the chunked prefill that every conversation takes. At each length: resident memory above that before the first
token, beside what the manifest's states say (bytes a row times rows, and the fixed part); seconds so far; and the time of a decode step there,
median of 20. For the Talker the rows are text rows, as an interleave feeds them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime.errors import AntiphonError
from ..runtime.omni import Omni
from ..runtime.sampling import SamplingParameters
from ..runtime.states import StateSet
from .console import print_table, seconds, size
from .inspect import state_bytes

STEPS = 20
ALLOWED_RATIO, ALLOWED_BYTES = 1.25, 200 * 10**6
"""Memory may be this many times the formula, and so much more."""


class Peak:
    """The most resident memory of this process since `reset`, looked at every 20 ms: what a run needs in between counts too."""

    def __init__(self) -> None:
        self._page, self._most, self._stopped = os.sysconf("SC_PAGE_SIZE"), 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def now(self) -> int:
        """Resident bytes."""
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * self._page

    def reset(self) -> int:
        """Begin anew; returns what is resident now."""
        self._most = self.now()
        return self._most

    @property
    def most(self) -> int:
        """The most since `reset`."""
        return max(self._most, self.now())

    def _watch(self) -> None:
        while not self._stopped.wait(0.02):
            self._most = max(self._most, self.now())


class ThinkerFeeder:
    """Random tokens into a conversation's Thinker."""

    def __init__(self, omni: Omni) -> None:
        self._omni, self._context = omni, omni.thinker.new_context()
        self._random = np.random.default_rng(0)
        self.entry = omni.engines["thinker"].entry
        self.limit = omni.thinker.context_limit

    def feed(self, rows: int) -> None:
        """Prefill `rows` more tokens."""
        self._context.queue_text(self._random.integers(0, 500, rows))
        self._omni.thinker.prefill(self._context, lambda: None)

    def step_seconds(self) -> float:
        """Median time of a decode step at this length."""
        taken: list[float] = []
        sampling = SamplingParameters(0.0, min_tokens=STEPS + 1, max_tokens=STEPS + 1)
        self._context.queue_text([1])
        for _ in self._omni.thinker.answer(self._context, sampling, 0, lambda: 0, taken.append):
            pass
        return statistics.median(taken)


class TalkerFeeder:
    """Random text rows into a Talker, in the prefill's chunks."""

    def __init__(self, omni: Omni) -> None:
        self._engine, self._chunk = omni.engines["talker"], omni.prefill_chunk
        self.entry = self._engine.entry
        self.limit = int(omni.manifest.constants["talker_context"])
        self._states = StateSet(self.entry.states, self.limit)
        self._random = np.random.default_rng(0)
        sizes = omni.input_sizes("talker")
        self._frames = "frame_codes" if "frame_codes" in sizes else "frame_rows"
        kind = np.int64 if self._frames == "frame_codes" else np.float32
        masks = {name: np.zeros((1, sizes[name]), bool) for name in ("penalised", "suppressed")}
        self._fixed: dict[str, np.ndarray] = {
            "hidden": np.zeros((0, sizes["hidden"]), np.float32), "hidden_index": np.zeros(0, np.int64),
            self._frames: np.zeros((0, sizes[self._frames]), kind), "frame_index": np.zeros(0, np.int64),
            "noise": np.zeros(1, np.float32), **SamplingParameters(0.0).feeds(1), **masks,
        }  # fmt: skip

    def feed(self, rows: int) -> None:
        """Feed `rows` more rows."""
        while rows:
            count = min(rows, self._chunk)
            self._run(count)
            rows -= count

    def step_seconds(self) -> float:
        """Median time of a step at this length."""
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
            "text_ids": self._random.integers(0, 500, (1, rows)), "codec_ids": np.full((1, rows), -1), "positions": np.broadcast_to(positions, (3, 1, rows)),
            "query_length": np.array([rows]), "past_length": np.array([self._states.length]), "output_index": np.array([rows - 1]),
        }  # fmt: skip
        self._engine.run(feeds | self._fixed, self._states, ("token",))
        self._states.advance(rows)


def measure(feeder: ThinkerFeeder | TalkerFeeder, lengths: list[int]) -> list[dict[str, Any]]:
    """One record a length: tokens, seconds so far, step_seconds, memory_bytes above the start, formula_bytes, within (whether memory is allowed)."""
    fixed, per_row = state_bytes(feeder.entry)
    feeder.feed(16)  # whatever is loaded at the first run is loaded now
    peak = Peak()
    before, fed, began, spent = peak.reset(), 16, time.perf_counter(), 0.0
    records = []
    for length in lengths:
        room = 2 * STEPS + 2
        feeder.feed(min(length, feeder.limit - room) - fed)
        fed = min(length, feeder.limit - room)
        taken = time.perf_counter() - began - spent
        pause = time.perf_counter()
        step = feeder.step_seconds()
        fed += STEPS + 1
        spent += time.perf_counter() - pause
        memory, formula = peak.most - before, fixed + per_row * fed
        within = memory <= ALLOWED_RATIO * formula + ALLOWED_BYTES
        records.append({"tokens": length, "seconds": taken, "step_seconds": step, "memory_bytes": memory, "formula_bytes": formula, "within": within})
    return records


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
    lengths = sorted({int(part) for part in arguments.lengths.split(",")})
    if lengths[0] <= 64:
        raise AntiphonError(f"--lengths begins with {lengths[0]}, expected lengths above 64.")
    from ..runtime.omni import load

    with load(arguments.bundle, max_streams=1, threads=arguments.threads) as omni:
        records = measure(ThinkerFeeder(omni) if arguments.stage == "thinker" else TalkerFeeder(omni), lengths)
    rows = [
        [f"{record['tokens']:,}", seconds(record["seconds"]), seconds(record["step_seconds"]), size(record["memory_bytes"]), size(record["formula_bytes"]),
         "yes" if record["within"] else "NO"]
        for record in records
    ]  # fmt: skip
    columns = ("tokens", "prefill so far", "decode step", "memory", "formula", "within 1.25 times + 200 MB")
    print_table(f"{arguments.bundle}: {arguments.stage}, {arguments.threads} threads", columns, rows)
    if arguments.json:
        arguments.json.write_text(json.dumps({"stage": arguments.stage, "threads": arguments.threads, "lengths": records}, indent=2) + "\n", encoding="utf-8")
    if arguments.plot:
        from .plot import Line, write_plot

        memory = [Line(name, [(r["tokens"], r[f"{name}_bytes"] / 1e6) for r in records]) for name in ("memory", "formula")]
        step = [Line("decode step", [(r["tokens"], r["step_seconds"] * 1000) for r in records])]
        write_plot(arguments.plot, [("MB", memory), ("ms", step)], "tokens of context")


if __name__ == "__main__":
    main()
