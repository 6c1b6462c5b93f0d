"""The plan of a build: its stages, sizes and memory, computed from the configuration alone."""

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
"""Resident memory of a build process without weights: libraries and the largest traced graph (measured)."""

GRAPH_BYTES = 800
"""Bytes of a graph file, without weights, per parameter tensor of its stage (measured: 600 to 1,000)."""


@dataclass(frozen=True)
class PlanRow:
    """The plan of one stage. Sizes are in bytes, at the precision of the plan."""

    stage: str
    engine: str
    """Engine kind."""
    parameters: int
    engine_bytes: int
    """Weights and graphs on disk."""
    state_bytes: int
    """States of one stream that do not grow: windows, convolution and recurrent states. Each has two arrays,
    of which one is read while the other is written."""
    state_bytes_per_1000_tokens: int
    """Additional states of one stream per 1,000 rows of context."""
    build_memory_bytes: int
    """Peak resident memory of the stage's build: libraries, the largest parameter, its checkpoint tensors."""
    disk_bytes: int
    """Disk space for one copy in the bundle and one in the cache. Without a cache it is half of this."""


@dataclass(frozen=True)
class Plan:
    """The plan of a build."""

    checkpoint: str
    family: str
    precision: str
    rows: tuple[PlanRow, ...]
    left_out: tuple[str, ...] = ()
    """The parts of a whole model that this checkpoint lacks, each with the reason."""

    @property
    def total(self) -> PlanRow:
        """The sums over all stages; of the memory the maximum, because stages are built one after another."""

        def added(name: str) -> int:
            return sum(getattr(row, name) for row in self.rows)

        return PlanRow(
            "total",
            "",
            added("parameters"),
            added("engine_bytes"),
            added("state_bytes"),
            added("state_bytes_per_1000_tokens"),
            max(row.build_memory_bytes for row in self.rows),
            added("disk_bytes"),
        )


def plan(
    checkpoint: str | Path,
    precision: str = "fp32",
    engine: str | Mapping[str, str] = DEFAULT,
    target: str = "cpu",
) -> Plan:
    """Plan the build of the folder `checkpoint`; only `config.json` is required.

    If the codec has its own folder, its `config.yaml` is read. If there are weights, their tensor names tell
    the parts of the model. Parameters of two stages count in both: the Talker has its own copy of the
    Thinker's embedding.

    Raises the errors of `read_config`. Raises AntiphonError for quantised weights or weights with another
    number of layers, for more than LARGEST_PARAMETERS parameters, for an unknown engine, target or precision,
    and if the builder of an engine refuses its stage.
    """
    choice = choose_engines(engine, target, precision)
    config = read_config(checkpoint)
    check_folder(checkpoint, config)
    model_stages = stages(config)
    rows = tuple(_row(stage, choice.kind(stage.name), choice.weight_bytes) for stage in model_stages)
    planned = Plan(str(checkpoint), config.family, precision, rows, config.left_out)
    if planned.total.parameters > LARGEST_PARAMETERS:
        raise AntiphonError(
            f"{checkpoint}: config.json describes {planned.total.parameters:.1e} parameters, "
            "more than any model has; use the config.json of the checkpoint."
        )
    choice.check(stage_facts(stage) for stage in model_stages)
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
            fixed += 2 * count  # two arrays: one is read, one is written
        elif stage.loop is not None:
            continue  # the cache of the steps is inside the engine
        else:
            growing += 1000 * count
    engine = _weights_file(sizes, item) + _graph_files(stage, len(sizes))
    return PlanRow(
        stage.name, kind, parameters, engine, fixed, growing, BASELINE_BYTES + 2 * largest * item, 2 * engine
    )


def _weights_file(sizes: dict[str, int], item: int) -> int:
    """Bytes of weights.bin, in which every parameter starts at a page boundary; see export.weights."""
    end = 0
    for name in sorted(sizes):
        end = -(-end // ALIGNMENT) * ALIGNMENT + sizes[name] * item
    return end


def _graph_files(stage: Stage, parameters: int) -> int:
    """Bytes of portable.onnx and engine.onnx, which can contain a copy of the graph per step of a loop."""
    copies = stage.loop.steps + 1 if stage.loop is not None else 1
    return GRAPH_BYTES * parameters * (1 + copies)
