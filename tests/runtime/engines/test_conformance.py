"""Slots and batches of the engine kinds that there are,
on the tiny models of both families (see conformance.py).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from antiphon.graphs.checkpoints.checkpoint import Checkpoint
from antiphon.graphs.families.registry import stages
from antiphon.runtime.bundle.manifest import read_manifest
from antiphon.runtime.engines.base import Engine
from antiphon.runtime.engines.registry import find_engine

from .conformance import check_batches, check_first_runs, check_refusals, check_slots

pytest.importorskip("torch")

STAGES = ("thinker", "talker", "predictor", "code2wav")
Engines = dict[str, Engine]


def onnxruntime_engines(checkpoint: Path, bundle: Path) -> Engines:
    entries = read_manifest(bundle).stages
    return {name: find_engine(entries[name].kind, name)(bundle, entries[name], 1) for name in STAGES}


def modules(checkpoint: Path, bundle: Path) -> Engines:
    from antiphon.graphs.module_engine.engine import module_engines

    source = Checkpoint(checkpoint)
    return module_engines([stage for stage in stages(source.config) if stage.name in STAGES], source)


STEPS = {"onnxruntime": 24, "module": 6}
"""Length of a schedule; a module takes many times as long for a step."""
KINDS: dict[str, Callable[[Path, Path], Engines]] = {"onnxruntime": onnxruntime_engines, "module": modules}


@pytest.fixture(
    scope="module", params=[f"{kind} {family}" for kind in KINDS for family in ("tiny", "hybrid")]
)
def engines(request: pytest.FixtureRequest) -> Engines:
    kind, family = request.param.split()
    return KINDS[kind](
        request.getfixturevalue(f"{family}_checkpoint"), request.getfixturevalue(f"{family}_bundle")
    )


@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("stage", ["thinker", "talker", "code2wav"])
def test_slots_in_any_company_equal_single_rows(engines: Engines, stage: str, rows: int) -> None:
    check_slots(engines[stage], rows, seed=rows, steps=STEPS[engines[stage].entry.kind])


@pytest.mark.parametrize("stage", ["thinker", "talker"])
def test_first_runs_of_unlike_lengths_equal_single_rows(engines: Engines, stage: str) -> None:
    check_first_runs(engines[stage])


def test_a_batch_without_states_equals_single_rows(engines: Engines) -> None:
    check_batches(engines["predictor"])


@pytest.mark.parametrize("stage", ["thinker", "talker", "code2wav"])
def test_a_batch_that_an_engine_does_not_take_is_refused_before_it_runs(engines: Engines, stage: str) -> None:
    check_refusals(engines[stage])
