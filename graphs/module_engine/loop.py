"""The loop of a stage (see StageLoop), run step by step by its module."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..stage import StageLoop
from .runner import ModuleRunner


def run_loop(
    runner: ModuleRunner, feeds: Mapping[str, np.ndarray], gathered: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """The outputs of the whole loop over `feeds`, which hold its inputs.

    `gathered` int64 [batch, steps + 1] forces the carried values to those that another engine chose, so that
    the other outputs can be compared with that engine's.
    """
    loop = runner.stage.loop
    assert loop is not None, f"the stage {runner.stage.name} has no loop"
    first, _, carried_output = loop.carried
    carried = [np.asarray(feeds[first])]
    states = runner.empty_states(loop.steps + 1, len(carried[0]))
    steps = []
    for step in range(loop.steps):
        value = carried[step] if gathered is None else gathered[:, step]
        steps.append(runner.run(_step_feeds(runner, loop, feeds, step, value), states))
        carried.append(steps[-1][carried_output])
    values = np.stack(carried, axis=1) if gathered is None else gathered
    output, step_output, parameter = loop.summed
    table = runner.module.get_parameter(parameter).numpy()
    last = table[loop.steps * (len(table) // (loop.steps + 1)) + values[:, -1]]
    return {
        loop.gathered: values,
        **{
            name: np.stack([outputs[of_step] for outputs in steps], axis=1)
            for name, of_step in loop.stacked.items()
        },
        output: np.sum([*(outputs[step_output] for outputs in steps), last], axis=0),
    }


def _step_feeds(
    runner: ModuleRunner, loop: StageLoop, feeds: Mapping[str, np.ndarray], step: int, carried: np.ndarray
) -> dict[str, np.ndarray]:
    batch = len(carried)
    rows = feeds[loop.first_rows][:, None]  # [batch, 1, size]
    bound = {
        loop.counter: np.array([step]),
        "past_length": np.full(batch, step + 1 if step else 0),
        loop.first_rows: rows if step == 0 else rows[:, :0],
        loop.carried[1]: carried,
        **{name: feeds[name][:, step] for name in loop.columns},
        **{name: feeds[name] for name in loop.shared},
    }
    for spec in runner.stage.inputs:
        if spec.name in loop.fixed:
            shape = [axis if isinstance(axis, int) else batch for axis in spec.shape]
            bound[spec.name] = np.full(shape, loop.fixed[spec.name], np.dtype(spec.dtype))
    return bound
