"""The picture of the trainings: a panel a part, the steps of runs that follow each other in one line."""

from __future__ import annotations

import json
import xml.etree.ElementTree as xml
from pathlib import Path

import pytest

from antiphon.scripts.train_tiny import curves
from antiphon.scripts.train_tiny.curves import panel


def run(folder: Path, values: list[float]) -> Path:
    folder.mkdir()
    rows = [
        {"step": 250 * place, "typed all": value, "first": value, "residual": 5.0}
        for place, value in enumerate(values, start=1)
    ]
    (folder / "curves.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def test_a_run_that_went_on_from_another_follows_it(tmp_path: Path) -> None:
    _, (typed, spoken) = panel(
        "thinker", [run(tmp_path / "first", [0.1, 0.5]), run(tmp_path / "second", [0.6])]
    )
    assert list(typed.points) == [(250, 0.1), (500, 0.5), (750, 0.6)] and list(spoken.points) == []


def test_the_command_draws_what_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    talker = run(tmp_path / "talker", [5.0, 4.0, 3.5, 3.2, 3.0, 2.9, 2.8])
    monkeypatch.setattr("sys.argv", ["curves", str(tmp_path / "out.svg"), "--talker", str(talker)])
    curves.main()
    texts = [
        element.text for element in xml.parse(tmp_path / "out.svg").iter() if element.tag.endswith("text")
    ]
    assert "Talker: cross entropy of codes" in texts and "first" in texts and "steps" in texts
