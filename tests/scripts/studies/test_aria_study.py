"""The study of interleaves: what must hold of its figures, whatever the draw."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as xml
from pathlib import Path

import numpy as np
import pytest

from antiphon.runtime.stages.aria import adaptive, chunked, dual_track
from antiphon.scripts.studies.aria_plot import plot
from antiphon.scripts.studies.aria_simulation import (
    TRACES,
    Item,
    Outcome,
    arrivals,
    draw_items,
    low_ratio,
    policies,
    study,
    study_bound,
    tell,
)

ITEMS = draw_items(25, 3)
RATIO = low_ratio(draw_items(400, 4))
FRAME = 0.025


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    return study(ITEMS, policies(RATIO), FRAME, seed=3)


def test_items_have_three_to_four_frames_a_token_and_depend_on_the_seed_alone() -> None:
    items = draw_items(500, 0)
    assert items == draw_items(500, 0) and items != draw_items(500, 1)
    assert all(1 <= item.tokens <= 400 and item.frames >= 1 for item in items)
    assert 3 < np.median([item.frames / item.tokens for item in items]) < 4


def test_every_thinker_meets_every_policy(outcomes: list[Outcome]) -> None:
    assert len(outcomes) == len(TRACES) * 5 == len({(row.trace, row.policy) for row in outcomes})
    assert all(row.first_audio > FRAME and row.pause >= 0 and row.lead >= 0 for row in outcomes)


def test_text_lead_and_bound_do_not_depend_on_the_thinker(outcomes: list[Outcome]) -> None:
    for policy in policies(RATIO):
        assert (
            len(
                {
                    (row.lead, row.items_over_bound, row.prefixes_over_bound)
                    for row in outcomes
                    if row.policy == policy
                }
            )
            == 1
        )


@pytest.mark.parametrize(
    "policy", [dual_track(), chunked(4, 4), adaptive(4, 1)], ids=lambda policy: policy.name
)
def test_one_frame_a_text_row_keeps_the_bound_where_speech_is_not_shorter_than_text(policy) -> None:
    spoken = [item for item in ITEMS if item.frames >= item.tokens]
    assert spoken
    assert all(tell(item, policy, arrivals("75 tok/s", item.tokens, 0), FRAME).over == 0 for item in spoken)


def test_the_bound_fails_only_where_the_ratio_is_above_the_items_own() -> None:
    rows = [study_bound(ITEMS, 0.0, ratio) for ratio in (0.1, RATIO, 3.5, 20.0)]
    assert [row.of_safe_items for row in rows] == [0.0] * 4
    assert all(row.items_over_bound <= row.unsafe_items for row in rows)
    assert rows[0].items_over_bound == 0 and rows[-1].items_over_bound > 0.5
    shares = [row.prefixes_over_bound for row in rows]
    assert shares == sorted(shares)


def test_a_thinker_that_is_fast_enough_never_starves_the_listener(outcomes: list[Outcome]) -> None:
    # 12.5 tokens a second for one frame a row, 12.5 / R for R frames a row
    steady = {row.trace: row for row in outcomes if row.policy == "chunked 4:4"}
    assert [steady[trace].underruns for trace in ("12.5 tok/s", "30 tok/s", "75 tok/s")] == [0, 0, 0]
    assert steady["8 tok/s"].underruns > 0
    slow = {row.policy: row for row in outcomes if row.trace == "8 tok/s"}
    assert slow[f"adaptive R={RATIO:g}"].underruns == 0


def test_an_item_is_told_whole_and_a_pause_is_counted() -> None:
    item = Item(tokens=3, frames=4)
    told = tell(item, chunked(1, 1), np.array([1.0, 2.0, 2.0]), 0.02)
    assert (told.frames, told.over, told.underruns) == (4, 0, 1)
    assert told.first_audio == pytest.approx(1.02) and told.pause == pytest.approx(1.0 - 0.08)


def test_the_plot_is_a_picture_with_a_bar_for_every_figure(outcomes: list[Outcome]) -> None:
    picture = plot(outcomes)
    assert len(picture.encode()) < 60_000
    tree = xml.fromstring(picture)
    bars = [element for element in tree.iter() if element.tag.endswith("rect")]
    assert len(bars) == 1 + 5 + 2 * 30 + 2 * 5  # ground, legend, panels
    width, height = (float(size) for size in tree.attrib["viewBox"].split()[2:])
    for bar in bars:
        x, y, wide, high = (float(bar.attrib.get(name, 0)) for name in ("x", "y", "width", "height"))
        assert 0 <= x <= x + wide <= width and 0 <= y <= y + high <= height + 0.1


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "antiphon.scripts.studies.aria_study", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_command_prints_one_json_document_and_writes_the_plot(tmp_path: Path) -> None:
    done = run("--items", 5, "--seed", 7, "--json", "--plot", tmp_path / "aria.svg")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (
        result["items"] == 5
        and result["seed"] == 7
        and len(result["rows"]) == 30
        and len(result["bounds"]) == 4
    )
    assert (tmp_path / "aria.svg").read_text(encoding="utf-8").startswith("<svg")


def test_the_table_in_a_pipe_is_plain_and_states_the_draw() -> None:
    done = run("--items", 3)
    assert done.returncode == 0, done.stderr
    assert "3 items, seed 0" in done.stdout and "chunked 4:4" in done.stdout and "\x1b" not in done.stdout


def test_a_plot_that_has_no_place_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    done = run("--items", 3, "--plot", tmp_path / "missing" / "aria.svg")
    assert done.returncode == 2 and f"{tmp_path / 'missing'} is no folder" in done.stderr and not done.stdout


@pytest.mark.parametrize(
    "arguments", [("--items", 0), ("--frame-ms", 0), ("--frame-ms", "nan"), ("--lead", 0), ("--seed", -1)]
)
def test_figures_that_cannot_be_are_refused(arguments: tuple[object, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2 and "--items 200" in done.stderr
