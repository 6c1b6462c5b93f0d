"""What ONNX Runtime can do with each stage, as a build writes it into the bundle."""

from __future__ import annotations

from pathlib import Path

import pytest

from antiphon.runtime.bundle.manifest import read_manifest
from antiphon.runtime.bundle.specs import Capabilities, StageInterface, StateSpec, TensorSpec
from antiphon.runtime.engines.onnxruntime.capabilities import capabilities

X = TensorSpec("x", "float32", ("batch", 4))
KV = StateSpec("key.0", "kv", "float32", ("batch", 2, "capacity", 3))
CONV = StateSpec("conv", "conv", "float32", ("batch", 4))


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ("thinker", Capabilities(chunked_batch=False, contiguous_slots=True)),
        ("talker", Capabilities(chunked_batch=False, contiguous_slots=True)),
        ("predictor", Capabilities(contiguous_slots=True)),
        ("code2wav", Capabilities(contiguous_slots=True)),
        ("audio_encoder", Capabilities(max_rows=1, contiguous_slots=True)),
        ("vision_encoder", Capabilities(max_rows=1, contiguous_slots=True)),
    ],
)
@pytest.mark.parametrize("bundle", ["tiny_bundle", "hybrid_bundle"])
def test_a_bundle_says_what_its_stages_can_do(
    request: pytest.FixtureRequest, bundle: str, stage: str, expected: Capabilities
) -> None:
    folder: Path = request.getfixturevalue(bundle)
    assert read_manifest(folder).stages[stage].capabilities == expected


def test_rows_that_do_not_lie_side_by_side_run_one_by_one() -> None:
    turned = StateSpec("conv", "conv", "float32", (4, "batch"), batch_axis=1)
    assert capabilities(StageInterface((X,), (), (CONV,))).max_rows is None
    assert capabilities(StageInterface((X,), (), (CONV, turned))).max_rows == 1


def test_a_stage_with_a_cache_takes_chunks_of_one_row_alone() -> None:
    assert not capabilities(StageInterface((X,), (), (KV, CONV))).chunked_batch
    assert capabilities(StageInterface((X,), (), (CONV,))).chunked_batch
