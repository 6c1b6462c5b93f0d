"""antiphon build, with and without --plan."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

STAGES = ("audio_encoder", "vision_encoder", "thinker", "talker", "predictor", "code2wav")


@pytest.fixture
def only_config(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "only_config"
    folder.mkdir()
    shutil.copy(tiny_checkpoint / "config.json", folder)
    return folder


def test_the_plan_needs_only_the_configuration_and_no_bundle(antiphon, only_config: Path) -> None:
    code, output, error = antiphon("build", only_config, "--plan")
    assert (code, error) == (0, "")
    assert all(stage in output for stage in (*STAGES, "total", "build memory"))
    assert list(only_config.iterdir()) == [only_config / "config.json"]


def test_the_plan_as_json_adds_up(antiphon, only_config: Path) -> None:
    plan = json.loads(antiphon("build", only_config, "--plan", "--json")[1])
    assert [row["stage"] for row in plan["rows"]] == list(STAGES)
    assert plan["total"]["engine_bytes"] == sum(row["engine_bytes"] for row in plan["rows"])


def test_the_plan_of_the_second_family_needs_the_configurations_alone(
    antiphon, hybrid_checkpoint: Path, tmp_path: Path
) -> None:
    for name in ("config.json", "codec_decode_online/config.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(hybrid_checkpoint / name, tmp_path / name)
    plan = json.loads(antiphon("build", tmp_path, "--plan", "--json")[1])
    states = {
        row["stage"]: (row["state_bytes"] > 0, row["state_bytes_per_1000_tokens"] > 0) for row in plan["rows"]
    }
    assert states == {stage: (False, False) for stage in STAGES} | {
        "thinker": (True, True),
        "mtp": (False, True),
        "talker": (True, True),
        "code2wav": (True, False),
        "codec_encoder": (False, False),
    }


def test_a_build_into_nowhere_asks_for_a_bundle(antiphon, tiny_checkpoint: Path) -> None:
    code, _, error = antiphon("build", tiny_checkpoint)
    assert code == 2 and "BUNDLE" in error


def test_a_second_build_says_that_every_stage_was_cached_and_why(
    antiphon, tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    code, output, error = antiphon("build", tiny_checkpoint, tmp_path / "again")
    assert (code, error) == (0, "")
    for stage in STAGES:
        (row,) = (line for line in output.splitlines() if f" {stage} " in line)
        assert "cached" in row and "nothing that decides it has changed" in row


def test_a_build_as_json_tells_the_outcome_of_every_stage(
    antiphon, tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    record = json.loads(antiphon("build", tiny_checkpoint, tmp_path / "again", "--json")[1])
    assert record["bundle"] == str(tmp_path / "again")
    assert all(record["stages"][stage]["cached"] for stage in STAGES)


@pytest.mark.parametrize("option", [("--target", "sm90"), ("--engine", "steam"), ("--precision", "int3")])
def test_what_cannot_be_built_is_refused_and_leaves_nothing(
    antiphon, tiny_checkpoint: Path, tmp_path: Path, option: tuple[str, str]
) -> None:
    code, output, error = antiphon("build", tiny_checkpoint, tmp_path / "made", *option)
    assert (code, output) == (2, "")
    assert option[1] in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_missing_extra_is_named_with_the_line_that_installs_it(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    code = "import sys; sys.modules['torch'] = None; from antiphon.scripts.cli import main; main()"
    for arguments in (
        ["build", "checkpoint", "bundle"],
        ["build", "checkpoint", "--plan"],
        ["verify", "bundle", "checkpoint"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 2
        assert 'pip install "antiphon[build]"' in done.stderr and done.stderr.count("\n") == 1
