"""The benchmark of long contexts at tiny lengths, for both families."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.omni import Omni, load
from antiphon.scripts.benchmarks.context import (
    STEPS,
    TalkerFeeder,
    ThinkerFeeder,
    measure,
    plot,
    read_lengths,
)
from antiphon.scripts.inspect import state_bytes

FEEDERS = {"thinker": ThinkerFeeder, "talker": TalkerFeeder}


@pytest.fixture(scope="module", params=["tiny_bundle", "hybrid_bundle"])
def omni(request: pytest.FixtureRequest):
    with load(request.getfixturevalue(request.param), max_streams=1, threads=1) as loaded:
        yield loaded


@pytest.mark.parametrize("stage", FEEDERS)
def test_each_length_is_reached_and_compared_with_the_formula(omni: Omni, stage: str) -> None:
    feeder = FEEDERS[stage](omni)
    records = measure(feeder, [64, 600])
    assert feeder.rows == 600 or stage == "thinker" and feeder.rows == 599
    fixed, per_row = state_bytes(omni.engines[stage].entry)
    for record, length in zip(records, (64, 600), strict=True):
        assert (
            record["tokens"] == length
            and record["prefill_seconds"] > 0
            and record["step_seconds"] > 0
            and record["within"]
        )
        assert abs(record["formula_bytes"] - fixed - per_row * length) <= per_row
    assert (
        records[0]["prefill_seconds"] < records[1]["prefill_seconds"]
        and 0 <= records[0]["memory_bytes"] <= records[1]["memory_bytes"]
    )
    assert plot(records).count("<polyline") == 4


def test_the_last_row_of_the_context_can_be_measured(hybrid_bundle: Path) -> None:
    with load(hybrid_bundle, max_streams=1, threads=1) as omni:
        for feeder in (ThinkerFeeder(omni), TalkerFeeder(omni)):
            states = feeder._context.states if isinstance(feeder, ThinkerFeeder) else feeder._states
            feeder.limit = states.limit = omni.model.thinker.context_limit = 100
            assert measure(feeder, read_lengths("50,100", feeder.limit))[1]["step_seconds"] > 0
            assert feeder.rows >= 99


@pytest.mark.parametrize("lengths", ["", "a", "30", "100,110", "5000", "100,,200", "-1"])
def test_lengths_that_cannot_be_measured_are_refused(lengths: str) -> None:
    with pytest.raises(AntiphonError, match="--lengths is"):
        read_lengths(lengths, 4096)
    assert read_lengths(f"200,{STEPS + 17}", 4096) == [STEPS + 17, 200]


def test_the_command_writes_json_and_a_plot_and_refuses_in_one_line(
    hybrid_bundle: Path, tmp_path: Path
) -> None:
    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "antiphon.scripts.benchmarks.context",
            str(hybrid_bundle),
            "--threads",
            "1",
            *map(str, arguments),
        ]
        return subprocess.run(command, capture_output=True, text=True)

    done = run(
        "--lengths",
        "64,300",
        "--stage",
        "talker",
        "--json",
        tmp_path / "a.json",
        "--plot",
        tmp_path / "a.svg",
    )
    assert done.returncode == 0 and "yes" in done.stdout, done.stderr
    assert [record["tokens"] for record in json.loads((tmp_path / "a.json").read_text())["lengths"]] == [
        64,
        300,
    ]
    assert (tmp_path / "a.svg").read_text().startswith("<svg")
    refused = run("--lengths", "10")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and "--lengths is 10" in refused.stderr
