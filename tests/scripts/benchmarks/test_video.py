"""The benchmark of long videos, on a short and small one."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

av = pytest.importorskip("av")

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.bundle.manifest import read_manifest
from antiphon.scripts.benchmarks import video as benchmark_video
from antiphon.scripts.benchmarks.video import measure, write_film


def test_the_film_has_its_size_its_frames_a_moving_square_and_sound(tmp_path: Path) -> None:
    with av.open(str(write_film(tmp_path / "film.mp4", 3, 90, frames_per_second=2))) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(pictures) == 6 and pictures[0].shape == (90, 160, 3)
    places = [np.argwhere(picture.min(axis=2) > 200)[:, 1].mean() for picture in pictures]
    assert (np.diff(places) > 10).all()
    with av.open(str(tmp_path / "film.mp4")) as container:
        samples = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert abs(len(samples) - 3 * 16000) <= 2048 and np.abs(samples).max() > 0.1


@pytest.mark.parametrize("bundle", ["tiny_bundle", "hybrid_bundle"])
def test_tokens_parts_and_memory_are_told(
    bundle: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    result = measure(
        request.getfixturevalue(bundle), write_film(tmp_path / "film.mp4", 4, 64), 1.0, threads=1
    )
    tokens, seconds = result["tokens"], result["seconds"]
    assert (
        tokens["video"] % 2 == 0
        and tokens["audio"] >= 25
        and tokens["all"] > tokens["video"] + tokens["audio"]
    )
    assert list(seconds) == [
        "until_the_first_token",
        "prompt",
        "audio_encoder",
        "vision_encoder",
        "thinker",
        "features",
    ]
    parts = [seconds[name] for name in seconds if name != "until_the_first_token"]
    assert min(parts) > 0 and sum(parts) == pytest.approx(seconds["until_the_first_token"])
    assert result["growth_bytes"] >= 0 and result["formula_bytes"] > 0 and result["seconds_per_token"] > 0


def test_a_bundle_that_does_not_see_is_named(hybrid_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deaf = dataclasses.replace(read_manifest(hybrid_bundle), stages={})
    monkeypatch.setattr(benchmark_video, "read_manifest", lambda folder: deaf)
    with pytest.raises(AntiphonError, match="no stage audio_encoder"):
        measure(hybrid_bundle, Path("film.mp4"), 1.0)


def test_the_command_prints_one_json_document_or_one_sentence(hybrid_bundle: Path) -> None:
    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "antiphon.scripts.benchmarks.video",
            str(hybrid_bundle),
            "--threads",
            "1",
            *map(str, arguments),
        ]
        return subprocess.run(command, capture_output=True, text=True)

    done = run("--seconds", 2, "--height", 32, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tokens"]["all"] > 0
    refused = run("--seconds", 0)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and "--seconds is 0" in refused.stderr
