"""A stage's PyTorch module behind the Engine interface:
verification and calibration run the pipeline of the runtime on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ...runtime.bundle.errors import UnsupportedTarget
from ...runtime.bundle.specs import Capabilities, StageEntry
from ...runtime.engines.base import Engine
from ...runtime.engines.batch_rows import join_outputs, split_rows
from ...runtime.engines.checks import axis_sizes, check_rows, check_run, closed
from ...runtime.states.pool import UNLIMITED, Slot, StatePool
from ..stage import Stage, TensorSource
from . import KIND
from .loop import run_loop
from .runner import ModuleRunner


def module_engines(stages: Iterable[Stage], checkpoint: TensorSource) -> dict[str, Engine]:
    """The engines of `stages` by name, with the weights of the Checkpoint `checkpoint`:
    an Omni takes them in place of a bundle's.
    """
    return {stage.name: ModuleEngine(stage, checkpoint) for stage in stages}


TARGETS = ("cpu",)
"""What engines of this kind are opened for."""


def open_engine(folder: Path, entry: StageEntry, threads: int | None = None) -> Engine:
    """Raises UnsupportedTarget: a bundle has no modules."""
    raise UnsupportedTarget(
        f"Stage {entry.name} was built as a module, which no bundle holds; "
        "build the bundle again for another engine."
    )


class ModuleEngine:
    """The module of one stage.

    The rows of a batch run one by one, so that each has the result that it has alone.
    """

    def __init__(self, stage: Stage, checkpoint: TensorSource) -> None:
        self._runner: ModuleRunner | None = ModuleRunner(stage, checkpoint)
        has_rows = any("batch" in spec.shape for spec in stage.interface.inputs)
        can = Capabilities(max_rows=None if has_rows else 1, rows_exact=True)
        parameters = sum(parameter.numel() for parameter in self._runner.module.parameters())
        self.entry = StageEntry(stage.name, KIND, "cpu", (), stage.interface, can, parameters=parameters)

    @property
    def runner(self) -> ModuleRunner:
        """The module itself, for its layers' outputs (`recorded`). Raises Closed after `close`."""
        if self._runner is None:
            raise closed(self.entry)
        return self._runner

    def new_states(self, rows: int = 1, capacity: int = UNLIMITED) -> StatePool:
        """See Engine.new_states."""
        check_rows(self.entry, rows)
        return StatePool(self.entry.states, rows, capacity)

    def run(
        self,
        feeds: Mapping[str, np.ndarray],
        slots: Sequence[Slot] = (),
        outputs: Sequence[str] | None = None,
    ) -> dict[str, np.ndarray]:
        """See Engine.run."""
        runner, interface = self.runner, self.entry.interface
        sizes = axis_sizes(interface.inputs, feeds)
        check_run(self.entry, sizes, slots)
        if sizes.get("batch", 1) == 1:
            found = _run_row(runner, feeds, slots)
        else:
            rows = [
                _run_row(runner, row, slots[number : number + 1])
                for number, row in enumerate(split_rows(interface, feeds))
            ]
            found = join_outputs(interface, feeds, rows)
        return {
            name: np.array(found[name])
            for name in ([spec.name for spec in interface.outputs] if outputs is None else outputs)
        }

    def close(self) -> None:
        """See Engine.close."""
        self._runner = None


def _run_row(
    runner: ModuleRunner, feeds: Mapping[str, np.ndarray], slots: Sequence[Slot]
) -> dict[str, np.ndarray]:
    if runner.stage.loop is not None:
        return run_loop(runner, feeds)
    states = {state.name: slot.past(state.name) for slot in slots for state in runner.stage.states}
    found = runner.run(feeds, states)
    for slot in slots:
        for name, values in states.items():
            slot.present(name)[...] = values
        slot.flip()
    return found
