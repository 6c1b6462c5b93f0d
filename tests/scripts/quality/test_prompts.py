"""The prompts that every bundle is asked."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.scripts.quality.prompts import read_prompts


def test_there_are_enough_prompts_of_every_kind_and_no_question_twice() -> None:
    prompts = read_prompts(240)
    assert len({prompt.typed for prompt in prompts}) == 240
    assert min(Counter(prompt.kind for prompt in prompts).values()) >= 8


def test_no_prompt_is_among_the_contents_of_training() -> None:
    held_out = pytest.importorskip(
        "antiphon.scripts.train_tiny.held_out", reason="the wheel holds no training code"
    )
    assert read_prompts(240) == held_out.prompts(240, seed=0)
    domain = pytest.importorskip("antiphon.scripts.train_tiny.domain")
    choice = __import__("random").Random(5)
    trained = {domain.draw(choice, held_out=False).typed for _ in range(20_000)}
    assert not trained & {prompt.typed for prompt in read_prompts(240)}


def test_more_prompts_than_there_are_is_an_error_that_says_how_many() -> None:
    with pytest.raises(AntiphonError, match="--prompts is 241, expected 1 to 240"):
        read_prompts(241)


def test_a_file_without_prompts_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "prompts.json").write_text('[{"kind": "sum"}]')
    with pytest.raises(AntiphonError, match="no list of objects with kind, typed, spoken and answer"):
        read_prompts(1, tmp_path / "prompts.json")
