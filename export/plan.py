"""What a build will make and need, before any work: from `config.json` alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ..graphs.config import read_config
from ..graphs.families import stages
from ..graphs.stage import Stage

BASELINE_BYTES = 620 * 2**20
"""Resident memory of a building process with its libraries loaded and a graph of the largest families traced, weights aside (measured)."""

GRAPH_BYTES = 2 * 2**20
"""Room for a stage's two graph files, which hold no weights."""


@dataclass(frozen=True)
class PlanRow:
    """One stage. Sizes in bytes, at the precision of the plan."""

    stage: str
    parameters: int
    engine_bytes: int
    """Weights and graphs on disk."""
    state_bytes: int
    """States of one stream that do not grow."""
    state_bytes_per_1000_tokens: int
    """What 1,000 more rows of context add to a stream."""
    build_memory_bytes: int
    """Most resident memory while this stage is built: libraries, and the largest parameter with the tensors it is made from."""
    disk_bytes: int
    """Disk the build needs for this stage; the cache and the bundle share the file where the file system allows hard links."""


@dataclass(frozen=True)
class Plan:
    """The plan of a build."""

    checkpoint: str
    family: str
    precision: str
    rows: tuple[PlanRow, ...]

    @property
    def total(self) -> PlanRow:
        """Sums over the stages; memory is the largest, because stages are built one after the other."""
        def added(name: str) -> int:
            return sum(getattr(row, name) for row in self.rows)

        return PlanRow(
            "total", added("parameters"), added("engine_bytes"), added("state_bytes"), added("state_bytes_per_1000_tokens"),
            max(row.build_memory_bytes for row in self.rows), added("disk_bytes"),
        )  # fmt: skip


def plan(checkpoint: str | Path, precision: str = "fp32") -> Plan:
    """Plan the build of the folder `checkpoint`, of which only `config.json` is read.

    Parameters counted in two stages (the Talker keeps its own copy of the Thinker's embedding) count in both.
    Raises AntiphonError as `read_config` does.
    """
    config = read_config(checkpoint)
    return Plan(str(checkpoint), config.family, precision, tuple(_row(stage) for stage in stages(config)))


def _row(stage: Stage) -> PlanRow:
    with torch.device("meta"):
        sizes = [parameter.numel() for parameter in stage.make_module().parameters()]
    item = 4
    fixed, growing = 0, 0
    for state in stage.states:
        count = 4
        for axis in state.shape:
            count *= axis if isinstance(axis, int) else 1
        if "capacity" not in state.shape:
            fixed += 2 * count  # read and written in turns
        elif stage.name == "predictor":
            continue  # lowered into one run per frame: its cache lives inside the engine
        else:
            growing += 1000 * count
    engine = sum(sizes) * item + GRAPH_BYTES
    return PlanRow(stage.name, sum(sizes), engine, fixed, growing, BASELINE_BYTES + 3 * max(sizes) * item, engine)
