"""The folder that remembers what is slow to make."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.scripts.quality.work import Work, digest


def test_values_and_audio_are_made_once_and_read_by_the_next_run(tmp_path: Path) -> None:
    made: list[str] = []

    def make(what: object) -> object:
        made.append("made")
        return what

    tone = np.sin(np.arange(480) / 7).astype(np.float32) / 2
    for _ in range(2):
        work = Work(tmp_path / "work")
        assert work.value("number", lambda: make([1, "two"])) == [1, "two"]
        audio = work.audio("tone", lambda: make(tone))  # type: ignore[arg-type, return-value]
        assert audio.dtype == np.float32 and np.abs(audio - tone).max() < 1e-4
    assert made == ["made", "made"]


def test_a_half_written_line_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "values.jsonl").write_text('{"one": 1}\n{"two": ')
    work = Work(tmp_path)
    assert work.value("one", lambda: 5) == 1
    assert work.value("two", lambda: 2) == 2
    assert Work(tmp_path).value("two", lambda: 5) == 2


def test_a_place_that_cannot_be_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AntiphonError, match="cannot keep work .* --work"):
        Work(tmp_path / "file")


def test_audio_is_named_by_its_samples() -> None:
    assert digest(np.zeros(4, np.float32)) != digest(np.zeros(5, np.float32))
