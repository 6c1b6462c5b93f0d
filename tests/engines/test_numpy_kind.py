"""An engine kind that no product file knows is built, loaded, verified and answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import antiphon
from antiphon.export.engines import registry as builders
from antiphon.export.plan import plan
from antiphon.runtime.engines import registry as engines

from . import numpy_kind

QUESTION = [{"role": "user", "content": "Hello there"}]
LIMITS = {"greedy": True, "max_text_tokens": 3, "max_frames": 2}


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    """The kind, known for the tests of this file."""
    builders.register_builder(numpy_kind.KIND, numpy_kind.__name__)
    engines.register_engine(numpy_kind.KIND, numpy_kind.__name__)
    yield
    del builders._MODULES[numpy_kind.KIND], engines._MODULES[numpy_kind.KIND]


@pytest.mark.parametrize("family", ["tiny", "hybrid"])
def test_a_bundle_of_a_kind_from_outside_answers_as_one_of_onnxruntime(
    family: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Of a checkpoint with Gated DeltaNet layers the kind refuses the decoders, which ONNX Runtime runs."""
    checkpoint, known = (
        request.getfixturevalue(f"{family}_checkpoint"),
        request.getfixturevalue(f"{family}_bundle"),
    )
    refused = ("thinker", "talker") if family == "hybrid" else ()
    kinds = {"*": numpy_kind.KIND, **dict.fromkeys(refused, "onnxruntime")}
    if refused:
        with pytest.raises(
            antiphon.UnsupportedTarget,
            match="Stage thinker: NumPy cannot run the op GatedDeltaRule of the node layers.0",
        ):
            antiphon.build(checkpoint, tmp_path / "bundle", engine=numpy_kind.KIND)
    manifest = antiphon.build(checkpoint, tmp_path / "bundle", engine=kinds)
    assert {name for name, entry in manifest.stages.items() if entry.kind != numpy_kind.KIND} == set(refused)
    with antiphon.load(tmp_path / "bundle") as omni, antiphon.load(known) as other:
        found, expected = omni.generate(QUESTION, **LIMITS), other.generate(QUESTION, **LIMITS)
    assert found.token_ids == expected.token_ids and np.array_equal(found.codes, expected.codes)
    np.testing.assert_allclose(found.audio, expected.audio, atol=1e-4)


def test_one_stage_may_have_another_kind(tiny_checkpoint: Path, tmp_path: Path) -> None:
    manifest = antiphon.build(tiny_checkpoint, tmp_path / "bundle", engine={"predictor": numpy_kind.KIND})
    assert {name: entry.kind for name, entry in manifest.stages.items() if entry.kind != "onnxruntime"} == {
        "predictor": numpy_kind.KIND
    }
    assert {
        row.stage: row.engine for row in plan(tiny_checkpoint, engine={"predictor": numpy_kind.KIND}).rows
    }["predictor"] == numpy_kind.KIND
    report = antiphon.verify(tmp_path / "bundle", tiny_checkpoint)
    assert report.passed and {row.stage for row in report.rows} == set(manifest.stages)
