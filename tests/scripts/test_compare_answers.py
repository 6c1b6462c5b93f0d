"""Answers recorded before a change and compared after it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.scripts import compare_answers
from antiphon.scripts.compare_answers import compare, first_difference, record

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
"""Of the repository: an installed package has none."""


@pytest.fixture
def few_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    def few(*arguments: object) -> dict[str, compare_answers.Question]:
        return {
            name: asked
            for name, asked in every(*arguments).items()
            if name in ("picture, drawn", "style whisper")
        }  # type: ignore[arg-type]

    every = compare_answers.questions
    monkeypatch.setattr(compare_answers, "questions", few)


@pytest.mark.usefixtures("few_questions")
def test_an_equal_answer_is_equal_and_one_bit_is_a_difference(tiny_bundle: Path, hybrid_bundle: Path) -> None:
    bundles = [tiny_bundle, hybrid_bundle]
    recorded = record(bundles, EXAMPLES)
    assert [key for key in recorded if key.endswith("/samples")] == [
        "0/picture, drawn/samples",
        "1/picture, drawn/samples",
        "1/style whisper/samples",
    ]
    assert all(value.size for value in recorded.values())
    assert compare(recorded, bundles, EXAMPLES) is None
    samples = recorded["1/picture, drawn/samples"]
    samples.view(np.uint32)[5] ^= 1
    difference = compare(recorded, bundles, EXAMPLES)
    assert difference is not None and "picture, drawn: samples at [5] were" in difference
    with pytest.raises(AntiphonError, match="holds the answers of 2 bundles, 1 were given"):
        compare(recorded, bundles[:1], EXAMPLES)


def test_differences_of_type_shape_and_sign_of_zero_are_told() -> None:
    values = np.zeros((2, 3), np.float32)
    assert first_difference(values, values.copy()) is None
    assert first_difference(values, values.astype(np.float64)) == "were float32 [2, 3] and are float64 [2, 3]"
    assert first_difference(values, values[:1]) == "were float32 [2, 3] and are float32 [1, 3]"
    changed = values.copy()
    changed[1, 2] = -0.0
    assert first_difference(values, changed) == "at [1, 2] were 0.0 and are -0.0 (1 of 6 differ)"


def test_a_file_that_holds_no_answers_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "answers.npz").write_bytes(b"no answers")
    command = [
        sys.executable,
        "-m",
        "antiphon.scripts.compare_answers",
        "compare",
        str(tmp_path / "answers.npz"),
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (
        done.returncode == 2
        and done.stderr.count("\n") == 1
        and "cannot be read as recorded answers" in done.stderr
    )
