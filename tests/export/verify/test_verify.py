"""`verify` tells a true engine from a wrong one, and names the first wrong layer."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import onnx_ir as ir

from antiphon.export.verify.compare import until_wrong
from antiphon.export.verify.verify import WRONG_CODES, verify
from antiphon.graphs.random.new_checkpoint import new_checkpoint
from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.bundle.files import hash_folder
from antiphon.runtime.bundle.manifest import read_manifest, write_manifest
from antiphon.runtime.bundle.specs import StageEntry


def spoil(bundle: Path, stage: str, parameter: str) -> None:
    """Change one parameter of an engine on disk and renew the hashes, as a wrong lowering would."""
    folder = bundle / "stages" / stage
    tensor = ir.load(folder / "portable.onnx").graph.initializers[parameter].const_value
    assert isinstance(tensor, ir.ExternalTensor) and tensor.offset is not None
    weights = np.memmap(
        folder / "weights.bin", np.float32, "r+", tensor.offset, tuple(int(size) for size in tensor.shape)
    )
    weights[...] *= 1.5
    weights.flush()
    rewrite(bundle, read_manifest(bundle).stages)


def mistake(bundle: Path, stage: str, setting: str, other: str) -> None:
    """Make an engine take the input `other` for `setting`, as a wrong lowering of the sampling would."""
    engine = bundle / "stages" / stage / "engine.onnx"
    model = ir.load(engine)
    inputs = {value.name: value for value in model.graph.inputs}
    for node in list(model.graph.all_nodes()):
        for place, value in enumerate(node.inputs):
            if value is inputs[setting]:
                node.replace_input_with(place, inputs[other])
    manifest = read_manifest(bundle)  # before the file's size changes
    ir.save(model, engine)
    write_manifest(bundle, dataclasses.replace(manifest, hashes=hash_folder(bundle)))


def rewrite(bundle: Path, stages: dict[str, StageEntry]) -> None:
    """Write the manifest anew: `stages`, and the hashes of the files as they are."""
    write_manifest(
        bundle, dataclasses.replace(read_manifest(bundle), stages=stages, hashes=hash_folder(bundle))
    )


def with_interface(entry: StageEntry, **changed: Any) -> StageEntry:
    return dataclasses.replace(entry, interface=dataclasses.replace(entry.interface, **changed))


@pytest.fixture
def own_bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def test_verify_passes_for_every_stage_of_a_fresh_bundle(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    report = verify(tiny_bundle, tiny_checkpoint, layers=True)
    assert report.passed
    assert {row.stage for row in report.rows} == set(read_manifest(tiny_bundle).stages)
    assert all(
        row.worst < 1e-5 and row.cosine > 1 - 1e-6 and row.first_diverging_layer is None
        for row in report.rows
    )


@pytest.mark.parametrize(
    ("stage", "parameter", "layer"),
    [
        ("thinker", "layers.2.attention.output.weight", "layers.2"),
        ("talker", "layers.1.feed_forward.down", "layers.1"),
        ("predictor", "layers.1.attention.qkv.weight", "step 0, layers.1"),
    ],
)
def test_verify_fails_and_names_the_first_wrong_layer(
    own_bundle: Path, tiny_checkpoint: Path, stage: str, parameter: str, layer: str
) -> None:
    spoil(own_bundle, stage, parameter)
    report = verify(own_bundle, tiny_checkpoint, layers=True)
    assert not report.passed
    assert {row.stage for row in report.rows if not row.passed} == {stage}
    assert {row.first_diverging_layer for row in report.rows if row.stage == stage} == {layer}


def test_verify_fails_for_the_weights_of_another_checkpoint(tiny_bundle: Path, tmp_path: Path) -> None:
    other = new_checkpoint(tmp_path / "other", seed=1)
    assert {row.stage for row in verify(tiny_bundle, other).rows if not row.passed} == set(
        read_manifest(tiny_bundle).stages
    )


@pytest.mark.parametrize(
    ("name", "value", "difference"),
    [
        (
            "thinker_config.text_config.num_key_value_heads",
            1,
            "Stage thinker of .* has key.0 of shape .*, the checkpoint's is of shape",
        ),
        (
            "thinker_config.text_config.num_hidden_layers",
            3,
            "Stage thinker of .* has the state key.3, the checkpoint's has none",
        ),
        (
            "code2wav_config.num_hidden_layers",
            1,
            "Stage code2wav of .* has the state .*, the checkpoint's has none",
        ),
        (
            "thinker_config.audio_config.encoder_layers",
            5,
            "Stage audio_encoder of .* has [0-9,]+ weights, the checkpoint's has [0-9,]+",
        ),
        (
            "talker_config.code_predictor_config.num_hidden_layers",
            5,
            "Stage predictor of .* has [0-9,]+ weights, the checkpoint's has [0-9,]+",
        ),
    ],
)
def test_verify_refuses_a_checkpoint_of_another_shape(
    tiny_bundle: Path, tmp_path: Path, name: str, value: int, difference: str
) -> None:
    other = new_checkpoint(tmp_path / "other", overrides={name: value})
    with pytest.raises(
        AntiphonError, match=f"{difference}.*; give the checkpoint that the bundle was built from"
    ):
        verify(tiny_bundle, other)


def test_verify_refuses_a_bundle_with_fewer_layers_or_another_frame(
    own_bundle: Path, tiny_checkpoint: Path
) -> None:
    entries = read_manifest(own_bundle).stages
    rewrite(
        own_bundle,
        entries | {"thinker": with_interface(entries["thinker"], states=entries["thinker"].states[:-2])},
    )
    with pytest.raises(
        AntiphonError,
        match=r"Stage thinker of .* has no state key\.\d, the checkpoint's has one; give the checkpoint that",
    ):
        verify(own_bundle, tiny_checkpoint)
    rewrite(
        own_bundle,
        entries
        | {"predictor": with_interface(entries["predictor"], outputs=entries["predictor"].outputs[:-1])},
    )
    with pytest.raises(
        AntiphonError,
        match=(
            "Stage predictor of .* has no output logits, the checkpoint's has one; give the checkpoint that"
        ),
    ):
        verify(own_bundle, tiny_checkpoint)


def test_verify_names_the_stages_that_only_one_of_the_two_has(
    own_bundle: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    silent = Path(shutil.copytree(tiny_checkpoint, tmp_path / "silent"))
    config = json.loads((silent / "config.json").read_text())
    (silent / "config.json").write_text(json.dumps(config | {"enable_audio_output": False}))
    with pytest.raises(
        AntiphonError,
        match="has the stages code2wav, predictor, talker, which the checkpoint lacks; give the checkpoint",
    ):
        verify(own_bundle, silent)
    rewrite(
        own_bundle,
        {name: entry for name, entry in read_manifest(own_bundle).stages.items() if name != "thinker"},
    )
    with pytest.raises(
        AntiphonError, match="lacks the stage thinker, which the checkpoint has; give the checkpoint"
    ):
        verify(own_bundle, tiny_checkpoint)


@pytest.mark.parametrize(
    ("stage", "setting", "other"),
    [
        ("thinker", "suppressed", "penalised"),
        ("talker", "temperature", "top_p"),
        ("predictor", "temperature", "top_p"),
    ],
)
def test_verify_fails_for_wrong_sampling_alone(
    own_bundle: Path, tiny_checkpoint: Path, stage: str, setting: str, other: str
) -> None:
    mistake(own_bundle, stage, setting, other)
    assert [
        (row.stage, row.output) for row in verify(own_bundle, tiny_checkpoint).rows if not row.passed
    ] == [(stage, "token")]


def test_verify_fails_for_wrong_codes_of_the_codec_encoder_alone(
    hybrid_bundle: Path, hybrid_checkpoint: Path, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(hybrid_bundle, tmp_path / "bundle"))
    spoil(bundle, "codec_encoder", "acoustic.codebooks.0.entries")
    report = verify(bundle, hybrid_checkpoint, layers=True)
    rows = {(row.stage, row.output): row for row in report.rows}
    assert {row.stage for row in report.rows} == set(read_manifest(bundle).stages)
    assert [name for name, row in rows.items() if not row.passed] == [("codec_encoder", "codes")]
    codes = rows["codec_encoder", "codes"]
    assert WRONG_CODES == codes.tolerance < codes.worst <= 1 and rows["codec_encoder", "latents"].worst < 1e-5


def test_a_frame_of_codes_counts_to_its_first_wrong_one() -> None:
    expected = np.arange(12).reshape(1, 3, 4)
    found = expected.copy()
    found[0, 0, 3] = found[0, 1, 0] = found[0, 1, 2] = -1
    judged, given = until_wrong(expected, found)
    assert judged.tolist() == [0, 1, 2, 3, 4, 8, 9, 10, 11] and (judged != given).sum() == 2
