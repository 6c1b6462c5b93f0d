"""antiphon bench."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from antiphon.runtime.events import Reply
from antiphon.runtime.omni import Omni
from antiphon.scripts.bench import MEASURES

SHORT = ("--prompt-tokens", 20, "--text-tokens", 5, "--frames", 8, "--runs", 2)


def test_every_measure_is_reported_for_the_lengths_asked_for(antiphon, tiny_bundle: Path) -> None:
    code, output, error = antiphon("bench", tiny_bundle, "--json", *SHORT)
    assert (code, error) == (0, "")
    result = json.loads(output)
    assert result["median"].keys() == MEASURES.keys() and all(
        value > 0 for value in result["median"].values()
    )
    assert result["prompt_tokens"] >= 20 and result["text_tokens"] == 5 and result["frames"] == 8
    assert (
        result["median"]["time_to_first_token"]
        <= result["median"]["time_to_first_frame"]
        <= result["median"]["time_to_first_audio"]
    )
    assert result["peak_memory_bytes"] > 2**20


def test_the_table_names_the_measures_as_the_reports_do(antiphon, tiny_bundle: Path) -> None:
    output = antiphon("bench", tiny_bundle, *SHORT)[1]
    assert all(word in output for word in ("TTFT", "TTFC", "TTFA", "RTF", "Code2Wav", "peak memory"))


def test_every_number_of_streams_is_measured_by_itself(antiphon, tiny_bundle: Path) -> None:
    code, output, error = antiphon("bench", tiny_bundle, "--json", "--streams", "1,3", *SHORT)
    assert (code, error) == (0, "")
    result = json.loads(output)
    assert [column["streams"] for column in result["streams"]] == [1, 3]
    for column in result["streams"]:
        assert column["median"].keys() == MEASURES.keys() and all(
            value > 0 for value in column["median"].values()
        )
        assert column["underruns"] >= 0
    assert (
        result["median"] == result["streams"][0]["median"]
        and result["underruns"] == result["streams"][0]["underruns"]
    )


def test_a_round_asks_all_its_answers_at_once_with_different_seeds(
    antiphon, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together, seeds = threading.Barrier(3, timeout=60), []
    generate = Omni.generate

    def meeting(omni: Omni, messages: list, **options: Any) -> Reply:
        seeds.append(options["seed"])
        together.wait()
        return generate(omni, messages, **options)

    monkeypatch.setattr(Omni, "generate", meeting)
    assert antiphon("bench", tiny_bundle, "--streams", "3", *SHORT)[0] == 0
    assert sorted(seeds) == sorted([0, 1, 2] * 3)  # one round that warms up, and two that count


def test_the_table_has_one_column_for_each_number_of_streams(antiphon, tiny_bundle: Path) -> None:
    output = antiphon("bench", tiny_bundle, "--streams", "1,2", *SHORT)[1]
    assert "1 stream " in output and "2 streams" in output


@pytest.mark.parametrize("streams", ["", "0", "1,0", "-1", "two", "1,,2", "1.5"])
def test_streams_that_are_no_counts_are_refused(antiphon, tiny_bundle: Path, streams: str) -> None:
    code, _, error = antiphon("bench", tiny_bundle, "--streams", streams)
    assert code == 2 and "--streams" in error and "1,4,8" in error


@pytest.mark.parametrize("option", ["--prompt-tokens", "--text-tokens", "--frames", "--runs"])
def test_counts_below_one_are_refused(antiphon, tiny_bundle: Path, option: str) -> None:
    code, _, error = antiphon("bench", tiny_bundle, option, "0")
    assert code == 2 and option in error
