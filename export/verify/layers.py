"""The first layer of a stage in which an engine and its module disagree."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...graphs.module_engine.engine import ModuleEngine
from ...graphs.module_engine.loop import run_loop
from ...runtime.bundle.errors import UnsupportedTarget
from ...runtime.bundle.specs import StageEntry
from ..engines.registry import find_builder
from .compare import errors, new_rows
from .conversation_calls import Feeds


def first_diverging(
    folder: Path, entry: StageEntry, module: ModuleEngine, feeds: Feeds, tolerance: float
) -> str | None:
    """The first layer, in order of execution, that is out of `tolerance` in one call;
    of a loop the first step with one.

    None where all layers agree. Raises UnsupportedTarget where the engine kind shows no layers.
    """
    runner = module.runner
    loop = runner.stage.loop
    tapped = find_builder(entry.kind).tap(folder, entry, runner.module, loop)
    if tapped is None:
        raise UnsupportedTarget(
            f"Stage {entry.name}: the engine {entry.kind} shows no layers; verify without --layers."
        )
    states = {}
    if entry.states:
        slot = module.new_states().allocate()
        slot.reserve(new_rows(feeds))
        states = {state.name: slot.past(state.name) for state in entry.states}
    found = tapped.run(feeds, states)
    paths = list(dict.fromkeys(path for _, path in tapped.places))
    with runner.recorded(paths) as recorded:
        if loop is not None:
            run_loop(runner, feeds, found[loop.gathered])
        else:
            runner.run(feeds, dict(states))
    for (step, path), name in tapped.places.items():
        # a codebook gives codes
        if path not in recorded[step] or not np.issubdtype(recorded[step][path].dtype, np.floating):
            continue
        expected = recorded[step][path]
        assert found[name].size == expected.size, f"{name} is not the output of {path}"
        if not errors([("", expected, found[name])])[0] <= tolerance:
            return f"step {step}, {path}" if loop is not None else path
    return None
