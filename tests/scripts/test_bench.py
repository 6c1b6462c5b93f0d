"""antiphon bench."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from antiphon.scripts.bench import MEASURES

SHORT = ("--prompt-tokens", 20, "--text-tokens", 5, "--frames", 8, "--runs", 2)


def test_every_measure_is_reported_for_the_lengths_asked_for(antiphon, tiny_bundle: Path) -> None:
    code, output, error = antiphon("bench", tiny_bundle, "--json", *SHORT)
    assert (code, error) == (0, "")
    result = json.loads(output)
    assert result["median"].keys() == MEASURES.keys() and all(value > 0 for value in result["median"].values())
    assert result["prompt_tokens"] >= 20 and result["text_tokens"] == 5 and result["frames"] == 8
    assert result["median"]["time_to_first_token"] <= result["median"]["time_to_first_frame"] <= result["median"]["time_to_first_audio"]
    assert result["peak_memory_bytes"] > 2**20


def test_the_table_names_the_measures_as_the_reports_do(antiphon, tiny_bundle: Path) -> None:
    output = antiphon("bench", tiny_bundle, *SHORT)[1]
    assert all(word in output for word in ("TTFT", "TTFC", "TTFA", "RTF", "Code2Wav", "peak memory"))


@pytest.mark.parametrize("option", ["--prompt-tokens", "--text-tokens", "--frames", "--runs"])
def test_counts_below_one_are_refused(antiphon, tiny_bundle: Path, option: str) -> None:
    code, _, error = antiphon("bench", tiny_bundle, option, "0")
    assert code == 2 and option in error
