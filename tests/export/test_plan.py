"""The plan against what is built, and for the published model of which only config.json is at hand."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from antiphon.export.plan import BASELINE_BYTES, plan
from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.bundle.manifest import read_manifest
from antiphon.runtime.states.pool import StatePool

from ..peak_memory import peak_memory

PUBLISHED = Path(__file__).parents[1] / "data" / "qwen3_omni_30b_a3b"
"""config.json alone, as published with Qwen3-Omni-30B-A3B-Instruct."""
QWEN35 = Path(__file__).parents[1] / "data" / "qwen3_5_omni_35b_a3b"
"""Made up, for nothing of Qwen3.5-Omni is published: a Thinker like Qwen3.5-35B-A3B, and Talker,
predictor and codec as TensorRT-Edge-LLM knows them.
"""


@pytest.fixture(params=[("qwen3_omni_moe", "tiny"), ("qwen3_5_omni", "hybrid")], ids=lambda names: names[0])
def built(request: pytest.FixtureRequest) -> tuple[str, Path, Path]:
    """Each family with its checkpoint and bundle."""
    family, name = request.param
    return family, request.getfixturevalue(f"{name}_checkpoint"), request.getfixturevalue(f"{name}_bundle")


def test_a_plan_agrees_with_what_is_built(built: tuple[str, Path, Path]) -> None:
    family, checkpoint, bundle = built
    planned, stages = plan(checkpoint), read_manifest(bundle).stages
    assert [row.stage for row in planned.rows] == list(stages) and planned.family == family
    for row in planned.rows:
        stage = stages[row.stage]
        files = sum(file.stat().st_size for file in (bundle / "stages" / row.stage).iterdir())
        assert row.parameters == stage.parameters
        assert stage.bytes == files and row.engine_bytes == pytest.approx(files, rel=0.05)
        assert row.disk_bytes == 2 * row.engine_bytes


def test_planned_states_are_those_the_runtime_allocates(built: tuple[str, Path, Path]) -> None:
    _, checkpoint, bundle = built
    stages = read_manifest(bundle).stages
    for row in plan(checkpoint).rows:
        states = StatePool(stages[row.stage].states, 1, 1000).allocate()
        before, capacity = states.bytes, states.capacity
        states.reserve(1000)
        grown = (states.bytes - before) * 1000 // max(1, 1000 - capacity) if states.bytes > before else 0
        assert row.state_bytes_per_1000_tokens == grown
        assert row.state_bytes == before - capacity * grown // 1000


def test_the_published_model_is_planned_from_its_configuration_alone() -> None:
    began = time.perf_counter()
    planned = plan(PUBLISHED)
    assert time.perf_counter() - began < 10
    rows = {row.stage: row for row in planned.rows}
    vocabulary, hidden, codebook, talker_hidden = 152_064, 2048, 2048, 1024
    # the Talker's text embedding and the predictor's first codebook
    copies = vocabulary * hidden + codebook * talker_hidden
    assert planned.total.parameters - copies == pytest.approx(35_259_818_545, rel=1e-5)
    published = {
        "thinker": 30.5,
        "talker": 3.49,
        "predictor": 0.14,
        "code2wav": 0.22,
        "audio_encoder": 0.65,
        "vision_encoder": 0.54,
    }
    assert {
        name: round(row.parameters / 1e9, 1 if name == "thinker" else 2) for name, row in rows.items()
    } == published
    assert planned.left_out == ()
    assert planned.total.engine_bytes == pytest.approx(4 * planned.total.parameters, rel=0.001)
    assert rows["thinker"].state_bytes_per_1000_tokens == 1000 * 2 * 96 * 1024
    assert rows["talker"].state_bytes_per_1000_tokens == 1000 * 20 * 2 * 2 * 128 * 4
    assert rows["predictor"].state_bytes_per_1000_tokens == rows["predictor"].state_bytes == 0
    assert rows["code2wav"].state_bytes > 0


def test_a_qwen3_5_model_is_planned_from_its_configuration_alone() -> None:
    rows = {row.stage: row for row in plan(QWEN35).rows}
    assert list(rows) == [
        "audio_encoder",
        "vision_encoder",
        "thinker",
        "mtp",
        "talker",
        "predictor",
        "code2wav",
        "codec_encoder",
    ]
    assert rows["thinker"].parameters == pytest.approx(35e9, rel=0.02)
    full, linear, conv_size = 10, 30, 8192
    per_token_in_half = 20 * 1024
    assert (
        rows["thinker"].state_bytes_per_1000_tokens
        == 1000 * full * 2 * 2 * 256 * 4
        == 1000 * 2 * per_token_in_half
    )
    recurrent, convolution = linear * 32 * 128 * 128 * 4, linear * 3 * conv_size * 4
    assert recurrent == 60 * 2**20
    assert rows["thinker"].state_bytes == 2 * (recurrent + convolution)  # read and written in turns
    # 15 linear layers of the same heads
    assert rows["talker"].state_bytes == rows["thinker"].state_bytes // 2
    assert rows["talker"].state_bytes_per_1000_tokens == rows["thinker"].state_bytes_per_1000_tokens // 2
    assert (rows["mtp"].state_bytes, rows["mtp"].state_bytes_per_1000_tokens) == (0, 1000 * 2 * 2 * 256 * 4)
    assert rows["predictor"].state_bytes_per_1000_tokens == rows["predictor"].state_bytes == 0
    assert rows["codec_encoder"].state_bytes_per_1000_tokens == rows["codec_encoder"].state_bytes == 0


def test_build_memory_is_under_the_limit_and_the_largest_is_the_total() -> None:
    planned = plan(PUBLISHED)
    experts = 128 * 768 * 2048 * 4
    largest_layer = 3 * experts
    assert planned.total.build_memory_bytes == max(row.build_memory_bytes for row in planned.rows)
    assert planned.total.build_memory_bytes == BASELINE_BYTES + 2 * 2 * experts
    assert planned.total.build_memory_bytes < 1.5e9 + largest_layer


def test_planning_needs_little_memory_itself() -> None:
    assert peak_memory("from antiphon.export.plan import plan\nplan(sys.argv[1])", PUBLISHED) < 800e6


def test_a_build_stays_within_the_memory_planned_for_it(
    tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    """As the build of the shared bundle measured it,
    unless it found stages in the cache of an earlier run.
    """
    if any(record["cached"] for record in read_manifest(tiny_bundle).build["stages"].values()):
        code = "from antiphon.export.build import build\nbuild(sys.argv[1], sys.argv[2], cache=False)"
        peak = peak_memory(code, tiny_checkpoint, tmp_path / "bundle")
    else:
        peak = int((tiny_bundle.parent / "peak").read_text())
    assert peak < plan(tiny_checkpoint).total.build_memory_bytes


def test_nothing_is_read_but_config_json(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((tiny_checkpoint / "config.json").read_bytes())
    assert plan(tmp_path).rows == plan(tiny_checkpoint).rows
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_text_only_checkpoint_has_no_stages_of_speech(tmp_path: Path, tiny_checkpoint: Path) -> None:
    config: dict[str, Any] = json.loads((tiny_checkpoint / "config.json").read_text())
    config["enable_audio_output"] = False
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert [row.stage for row in plan(tmp_path).rows] == ["audio_encoder", "vision_encoder", "thinker"]


def test_an_unknown_precision_is_refused(tiny_checkpoint: Path) -> None:
    with pytest.raises(AntiphonError, match="Unknown precision 'int3'; expected one of fp32"):
        plan(tiny_checkpoint, "int3")
