"""What a build will make and need, before any work: from the configuration alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ..graphs.checkpoints.check_weights import check_folder
from ..graphs.checkpoints.config_bounds import LARGEST_PARAMETERS
from ..graphs.checkpoints.read_config import read_config
from ..graphs.families.registry import stages
from ..graphs.stage import Stage
from ..runtime.bundle.errors import AntiphonError
from .choice import choose_engines
from .engines.registry import DEFAULT
from .stage_keys import stage_facts
from .weights import ALIGNMENT

BASELINE_BYTES = 620 * 2**20
"""Resident memory of a building process with its libraries loaded and a graph of the largest families traced, weights aside (measured)."""

GRAPH_BYTES = 800
"""Size of a graph file, which holds no weights, per parameter of its stage (measured: 600 to 1,000)."""


@dataclass(frozen=True)
class PlanRow:
    """One stage. Sizes in bytes, at the precision of the plan."""

    stage: str
    engine: str
    """Engine kind."""
    parameters: int
    engine_bytes: int
    """Weights and graphs on disk."""
    state_bytes: int
    """States of one stream that do not grow: windows, convolution and recurrent states, each of which has two arrays that are read and written in turns."""
    state_bytes_per_1000_tokens: int
    """What 1,000 more rows of context add to a stream."""
    build_memory_bytes: int
    """Most resident memory while this stage is built: libraries, and the largest parameter with the tensors it is made from."""
    disk_bytes: int
    """Disk the build needs for this stage: one copy in the bundle, one in the cache; half of it without a cache."""


@dataclass(frozen=True)
class Plan:
    """The plan of a build."""

    checkpoint: str
    family: str
    precision: str
    rows: tuple[PlanRow, ...]
    left_out: tuple[str, ...] = ()
    """Parts of a whole model of the family that this checkpoint lacks, each with the reason."""

    @property
    def total(self) -> PlanRow:
        """Sums over the stages; memory is the largest, because stages are built one after the other."""

        def added(name: str) -> int:
            return sum(getattr(row, name) for row in self.rows)

        return PlanRow(
            "total", "", added("parameters"), added("engine_bytes"), added("state_bytes"), added("state_bytes_per_1000_tokens"),
            max(row.build_memory_bytes for row in self.rows), added("disk_bytes"),
        )  # fmt: skip


def plan(checkpoint: str | Path, precision: str = "fp32", engine: str | Mapping[str, str] = DEFAULT, target: str = "cpu") -> Plan:
    """Plan the build of the folder `checkpoint`, of which `config.json` is enough.

    Of a codec in a folder of its own `config.yaml` is read, and of weights that are there the names of the tensors: they tell which parts the model has.

    Parameters counted in two stages (the Talker keeps its own copy of the Thinker's embedding) count in both.
    Raises AntiphonError as `read_config` does, for weights that are quantised or have other layers, for more than LARGEST_PARAMETERS parameters, for an
    unknown engine, target or precision, and where the builder of an engine refuses its stage.
    """
    choice = choose_engines(engine, target, precision)
    config = read_config(checkpoint)
    check_folder(checkpoint, config)
    made = stages(config)
    rows = tuple(_row(stage, choice.kind(stage.name), choice.weight_bytes) for stage in made)
    planned = Plan(str(checkpoint), config.family, precision, rows, config.left_out)
    if planned.total.parameters > LARGEST_PARAMETERS:
        raise AntiphonError(
            f"{checkpoint}: config.json describes {planned.total.parameters:.1e} parameters, more than any model has; use the config.json of the checkpoint."
        )
    choice.check(stage_facts(stage) for stage in made)
    return planned


def _row(stage: Stage, kind: str, item: int) -> PlanRow:
    with torch.device("meta"):
        sizes = {name: parameter.numel() for name, parameter in stage.make_module().named_parameters()}
    parameters, largest = sum(sizes.values()), max(sizes.values())
    fixed, growing = 0, 0
    for state in stage.states:
        count = 4
        for axis in state.shape:
            count *= axis if isinstance(axis, int) else 1
        if "capacity" not in state.shape:
            fixed += 2 * count  # read and written in turns
        elif stage.loop is not None:
            continue  # one run a frame: the cache of its steps lives inside the engine
        else:
            growing += 1000 * count
    engine = _weights_file(sizes, item) + _graph_files(stage, len(sizes))
    return PlanRow(stage.name, kind, parameters, engine, fixed, growing, BASELINE_BYTES + 2 * largest * item, 2 * engine)


def _weights_file(sizes: dict[str, int], item: int) -> int:
    """Bytes of weights.bin, where every parameter begins at a page; see export.weights."""
    end = 0
    for name in sorted(sizes):
        end = -(-end // ALIGNMENT) * ALIGNMENT + sizes[name] * item
    return end


def _graph_files(stage: Stage, parameters: int) -> int:
    """Bytes of portable.onnx and engine.onnx; an engine may repeat the graph of a loop's step for every step."""
    copies = stage.loop.steps + 1 if stage.loop is not None else 1
    return GRAPH_BYTES * parameters * (1 + copies)
