"""Names of families, stages, engine kinds and policies are compared in registries alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COMPARED = re.compile(
    r"""stage\.name ==|family ==|stage\.name in|family in|"dual_track"|"onnxruntime"|'onnxruntime'"""
)
REGISTRIES = {"runtime/engines/registry.py", "export/engines/registry.py", "runtime/stages/aria.py"}
SPEECH_STAGES = re.compile(
    r"""== "(thinker|talker|predictor|code2wav|mtp)"|"predictor" (?:==|!=)|!= "predictor\""""
)


def lines(*rooms: str) -> Iterator[tuple[str, int, str]]:
    for room in rooms:
        for file in sorted((ROOT / room).rglob("*.py")):
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
                yield file.relative_to(ROOT).as_posix(), number, line


@pytest.mark.parametrize("pattern", [COMPARED, SPEECH_STAGES], ids=["names", "stages"])
def test_no_name_decides_outside_a_registry(pattern: re.Pattern[str]) -> None:
    found = {(file, number) for file, number, line in lines("runtime", "export") if pattern.search(line)}
    assert {file for file, _ in found} <= REGISTRIES, sorted(found)


def test_families_are_named_in_their_registry_and_their_folders_alone() -> None:
    named = re.compile(r"""["'](qwen3_omni_moe|qwen3_5_omni)["']""")
    places = {file for file, _, line in lines("runtime", "export", "graphs", "plugins") if named.search(line)}
    assert all(place.startswith("graphs/families/") for place in places), sorted(places)
