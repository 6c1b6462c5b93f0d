"""The benchmark of long recordings, on seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.scripts.benchmarks.long_audio import RATE, measure, synthetic_recording


def test_the_recording_has_its_length_noise_and_silence_and_is_deleted() -> None:
    with synthetic_recording(150 / 3600) as path:
        samples, rate = soundfile.read(path, dtype="int16")
        assert rate == RATE and samples.shape == (150 * RATE,)
        loud = np.abs(samples.reshape(150, RATE)).max(axis=1) > 0
        assert np.flatnonzero(loud).tolist() == [*range(10), *range(120, 130)]
        assert path.stat().st_blocks * 512 < path.stat().st_size // 2
    assert not path.exists()


@pytest.mark.parametrize("hours", [0, -1, 38, float("nan")])
def test_lengths_that_no_file_holds_are_refused(hours: float) -> None:
    with pytest.raises(AntiphonError, match="--hours is"), synthetic_recording(hours):
        pass


@pytest.mark.parametrize("bundle", ["tiny_bundle", "hybrid_bundle"])
def test_all_tokens_of_the_layout_are_made_and_the_first_hour_is_told_when_it_is_reached(
    bundle: str, request: pytest.FixtureRequest
) -> None:
    with synthetic_recording(30 / 3600) as path:
        result = measure(request.getfixturevalue(bundle), path, threads=1)
    assert result["tokens"] == {"tiny_bundle": 30 * 13, "hybrid_bundle": 30 * 7}[bundle]
    assert result["hours"] == 30 / 3600 and result["growth_first_hour_bytes"] is None
    assert 0 < result["encoder_seconds"] < result["second_pass_seconds"] and result["growth_bytes"] >= 0


def test_the_command_prints_one_json_document_or_one_sentence(hybrid_bundle: Path) -> None:
    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "antiphon.scripts.benchmarks.long_audio",
            str(hybrid_bundle),
            "--threads",
            "1",
            *map(str, arguments),
        ]
        return subprocess.run(command, capture_output=True, text=True)

    assert json.loads(run("--hours", 0.005, "--json").stdout)["tokens"] == 18 * 7
    refused = run("--hours", 0)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and "--hours is 0" in refused.stderr
