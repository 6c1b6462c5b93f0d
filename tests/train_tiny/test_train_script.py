"""The script that trains everything names modules and options that exist,
in an order in which each part finds what it needs.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "scripts" / "train_tiny"
SCRIPT = (FOLDER / "train.sh").read_text(encoding="utf-8").replace("\\\n", " ")
STEPS = [
    line.split("train ", 1)[1].split() for line in SCRIPT.splitlines() if re.search(r"(^|\|\| )train ", line)
]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step[0])
def test_every_step_is_a_module_with_these_options(step: list[str]) -> None:
    source = (FOLDER / f"{step[0]}.py").read_text(encoding="utf-8")
    assert 'if __name__ == "__main__":' in source
    for option in [word for word in step if word.startswith("--")]:
        # assemble's options are the fields of its dataclass of runs
        assert f'"{option}"' in source or f"    {option[2:]}: Path" in source, f"{step[0]} has no {option}"


@pytest.mark.parametrize("part", ["codec", "vocoder", "talker", "thinker"])
def test_every_training_can_be_made_short(part: str) -> None:
    source = (FOLDER / f"{part}_training.py").read_text(encoding="utf-8")
    assert '"--steps"' in source and '"--minutes"' in source
    assert len(re.findall(rf"{part}=\(--", SCRIPT)) == 2  # in full, and for the smoke


def test_what_a_step_reads_was_made_before() -> None:
    made: set[str] = set()
    for step in STEPS:
        paths = [word.strip('"').removeprefix("$work/") for word in step[1:] if word.startswith('"$work/')]
        reads_only = step[0] in ("voices", "assemble") or step[0].endswith("training")
        assert paths, step
        if reads_only:
            assert len(set(paths) - made) <= 1, f"{step[0]} reads {set(paths) - made}, which nothing made"
        made |= set(paths)
