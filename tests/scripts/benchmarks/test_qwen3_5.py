"""The benchmark of Qwen3.5-Omni: what its table and JSON hold, on the smallest sizes.

No timing is asserted.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import onnx_ir as ir

from antiphon.graphs.random.new_checkpoint import new_checkpoint
from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.bundle.manifest import read_manifest
from antiphon.scripts.benchmarks import qwen3_5 as benchmark_qwen3_5
from antiphon.scripts.benchmarks.qwen3_5 import (
    DECODE,
    FULL,
    OTHER,
    PREFILL,
    RECURRENT,
    REST,
    SPOKEN,
    agreement,
    kernels_by_run,
    mixer_nodes,
)

LENGTHS = (40, 300)


@pytest.fixture(scope="module")
def transformers_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of hybrid_bundle, its Thinker under transformers' names."""
    folder = tmp_path_factory.mktemp("benchmark") / "checkpoint"
    return new_checkpoint(folder, family="qwen3_5_omni", layout="fused", linear_layout="split")


def test_table_and_json_hold_every_measure_and_equal_ids(
    transformers_checkpoint: Path,
    hybrid_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    file, lengths = tmp_path / "result.json", ",".join(map(str, LENGTHS))
    short = [
        "--threads",
        "1",
        "--runs",
        "1",
        "--tokens",
        "4",
        "--frames",
        "6",
        "--steps",
        "2",
        "--lengths",
        lengths,
        "--json",
        str(file),
    ]
    monkeypatch.setattr(
        sys, "argv", ["benchmark_qwen3_5", str(transformers_checkpoint), str(hybrid_bundle), *short]
    )
    benchmark_qwen3_5.main()
    result = json.loads(file.read_text(encoding="utf-8"))
    assert result["thinker"].keys() == result["ratio"].keys() == {DECODE, PREFILL}
    for sides in result["thinker"].values():
        assert "antiphon" in sides and len(sides) >= 2 and all(value > 0 for value in sides.values())
    assert result["ids"] == [4, 4, None]
    assert all(result["speech"][name] > 0 for name in SPOKEN) and result["speech"]["frames"] == 6
    assert [row["context"] for row in result["over_context"]] == list(LENGTHS)
    for row in result["over_context"]:
        assert (
            row["parts"].keys() == {RECURRENT, FULL, OTHER, REST} and row["step"] > 0 and row["nodes"] > 100
        )
        assert {"MoE", "LinearAttention", "GroupQueryAttention"} <= row["operators"].keys()
    assert result["recurrent_spread"] >= 0
    printed = capsys.readouterr().out
    assert all(
        words in printed
        for words in (
            DECODE,
            PREFILL,
            RECURRENT,
            FULL,
            "real_time_factor",
            "greedy ids equal: 4 of 4",
            "kernels at 40 tokens",
        )
    )


def test_checkpoint_is_refused_when_its_thinker_has_other_names(hybrid_checkpoint: Path) -> None:
    with pytest.raises(AntiphonError, match="linear_layout"):
        benchmark_qwen3_5.Theirs(str(hybrid_checkpoint), [0])


def test_mixer_nodes_are_those_between_the_projections_when_the_layers_are_hybrid(
    hybrid_bundle: Path,
) -> None:
    entry = read_manifest(hybrid_bundle).stages["thinker"]
    model = ir.load(hybrid_bundle / entry.artifacts[0])
    owner = mixer_nodes(model)
    kinds = {
        kind: {node.op_type for node in model.graph if owner.get(node.name or "") == kind}
        for kind in (RECURRENT, FULL, OTHER)
    }
    assert {"LinearAttention", "LinearAttentionGate", "GatherND", "MatMul"} <= kinds[RECURRENT]
    assert kinds[FULL] == {"GroupQueryAttention"} and {"MatMul", "RotaryEmbedding"} <= kinds[OTHER]
    assert not kinds[RECURRENT] & {"MoE", "SkipSimplifiedLayerNormalization", "GroupQueryAttention"}
    linear = sum(state.kind == "recurrent" for state in entry.states)
    products = [
        node for node in model.graph if node.op_type == "MatMul" and owner.get(node.name or "") == RECURRENT
    ]
    assert len(products) == 2 * linear  # in front of each layer and behind it


def test_agreement_stops_at_the_first_other_id() -> None:
    assert agreement([1, 2, 3], [1, 2, 3], [0.5, 0.5, 0.5]) == (3, 3, None)
    assert agreement([1, 5, 3], [1, 2, 3], [0.5, 0.25, 0.5]) == (1, 3, 0.25)


def test_kernels_belong_to_the_run_they_began_in() -> None:
    def event(kind: str, name: str, began: int) -> dict:
        return {"cat": kind, "name": name, "ts": began, "dur": 3, "args": {"op_name": "Add"}}

    events = [
        event("Node", "a_kernel_time", 11),
        event("Node", "a_kernel_time", 25),
        event("Node", "b_fence_before", 12),
    ]
    events += [event("Session", "model_run", 10), event("Session", "model_run", 20)]
    runs = kernels_by_run(events)
    assert [[name for name, _, _ in run] for run in runs] == [["a"], ["a"]]
    np.testing.assert_allclose(runs[0][0][2], 3e-6)
