"""`verify` tells a true engine from a wrong one, and names the first wrong layer."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import onnx_ir as ir  # noqa: E402

from antiphon.export.verify import verify  # noqa: E402
from antiphon.graphs.new_checkpoint import new_checkpoint  # noqa: E402
from antiphon.runtime.bundle import hash_folder, read_manifest, write_manifest  # noqa: E402
from antiphon.runtime.errors import AntiphonError  # noqa: E402


def spoil(bundle: Path, stage: str, parameter: str) -> None:
    """Change one parameter of an engine on disk and renew the hashes, as a wrong lowering would."""
    folder = bundle / "stages" / stage
    tensor = ir.load(folder / "portable.onnx").graph.initializers[parameter].const_value
    assert isinstance(tensor, ir.ExternalTensor) and tensor.offset is not None
    weights = np.memmap(folder / "weights.bin", np.float32, "r+", tensor.offset, tuple(int(size) for size in tensor.shape))
    weights[...] *= 1.5
    weights.flush()
    write_manifest(bundle, dataclasses.replace(read_manifest(bundle), hashes=hash_folder(bundle)))


@pytest.fixture
def own_bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def test_verify_passes_for_every_stage_of_a_fresh_bundle(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    report = verify(tiny_bundle, tiny_checkpoint, layers=True)
    assert report.passed
    assert {row.stage for row in report.rows} == set(read_manifest(tiny_bundle).stages)
    assert all(row.worst < 1e-5 and row.cosine > 1 - 1e-6 and row.first_diverging_layer is None for row in report.rows)


@pytest.mark.parametrize(
    ("stage", "parameter", "layer"),
    [
        ("thinker", "layers.2.attention.output.weight", "layers.2"),
        ("talker", "layers.1.feed_forward.down", "layers.1"),
        ("predictor", "layers.1.attention.qkv.weight", "step 0, layers.1"),
    ],
)
def test_verify_fails_and_names_the_first_wrong_layer(own_bundle: Path, tiny_checkpoint: Path, stage: str, parameter: str, layer: str) -> None:
    spoil(own_bundle, stage, parameter)
    report = verify(own_bundle, tiny_checkpoint, layers=True)
    assert not report.passed
    assert {row.stage for row in report.rows if not row.passed} == {stage}
    assert {row.first_diverging_layer for row in report.rows if row.stage == stage} == {layer}


def test_verify_fails_for_the_weights_of_another_checkpoint(tiny_bundle: Path, tmp_path: Path) -> None:
    other = new_checkpoint(tmp_path / "other", seed=1)
    assert {row.stage for row in verify(tiny_bundle, other).rows if not row.passed} == set(read_manifest(tiny_bundle).stages)


def test_verify_refuses_a_checkpoint_of_another_shape(tiny_bundle: Path, tmp_path: Path) -> None:
    other = new_checkpoint(tmp_path / "other", overrides={"thinker_config.text_config.num_key_value_heads": 1})
    with pytest.raises(AntiphonError, match="the bundle was built from"):
        verify(tiny_bundle, other)
