from __future__ import annotations

import json

import pytest

from antiphon.runtime.bundle import Manifest, StageEntry, StateSpec, TensorSpec, check_hashes, hash_folder, read_manifest, write_manifest
from antiphon.runtime.errors import AntiphonError
from antiphon.runtime.sampling import SamplingParameters


@pytest.fixture
def bundle(tmp_path):
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "engine.onnx").write_bytes(b"weights")
    entry = StageEntry(
        "thinker", "onnxruntime", "stages/engine.onnx", "fp32", (TensorSpec("input_ids", "int64", ("batch", "tokens")),),
        (TensorSpec("token", "int64", ("rows",)),), (StateSpec("key.0", "kv", "float32", ("batch", 2, "capacity", 8)),), {"context": 64, "list": [1, 2]},
    )  # fmt: skip
    manifest = Manifest(
        "qwen3_omni_moe", "0.1", "cpu", "onnxruntime", "fp32", {"thinker": entry}, {"im_end": 2, "eos": [2, 3]}, {"thinker_context": 64, "x": 0.5},
        {"thinker": SamplingParameters(0.7, 20, 0.8, 1.0, 0, None)}, {"Ethan": 5}, "Ethan", {"onnx": "1"}, {"seconds": {"export": 1.5}}, hash_folder(tmp_path),
    )  # fmt: skip
    write_manifest(tmp_path, manifest)
    return tmp_path, manifest


def change(folder, **fields):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_manifest_reads_back_as_it_was_written(bundle):
    folder, manifest = bundle
    assert read_manifest(folder) == manifest
    check_hashes(folder)
    assert '"shape": ["batch", 2, "capacity", 8]' in (folder / "manifest.json").read_text(), "short lists stay on a line"


def test_a_folder_without_manifest_is_no_bundle(tmp_path):
    with pytest.raises(AntiphonError, match="No bundle at"):
        read_manifest(tmp_path)


def test_another_schema_version_is_refused(bundle):
    change(bundle[0], schema_version=99)
    with pytest.raises(AntiphonError, match="schema version 99"):
        read_manifest(bundle[0])


def test_another_target_is_refused(bundle):
    with pytest.raises(AntiphonError, match="built for cpu, not for sm90"):
        read_manifest(bundle[0], target="sm90")


def test_text_that_is_not_json_is_refused(bundle):
    (bundle[0] / "manifest.json").write_text("{")
    with pytest.raises(AntiphonError, match="not valid JSON"):
        read_manifest(bundle[0])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"voices": {"Ethan": "five"}}, "voices.Ethan is 'five'"),
        ({"stages": {"thinker": {"name": "thinker"}}}, "stages.thinker lacks the field engine"),
        ({"target": 3}, "target is 3"),
        ({"ids": []}, "ids is"),
        ({"sampling": {"thinker": {"temperature": -1}}}, "temperature is -1"),
    ],
)
def test_a_field_of_a_wrong_kind_is_named(bundle, fields, message):
    change(bundle[0], **fields)
    with pytest.raises(AntiphonError, match=message):
        read_manifest(bundle[0])


def test_a_missing_file_and_a_wrong_size_are_always_noticed(bundle):
    file = bundle[0] / "stages" / "engine.onnx"
    file.write_bytes(b"weight")
    with pytest.raises(AntiphonError, match="has 6 bytes, expected 7"):
        read_manifest(bundle[0])
    file.unlink()
    with pytest.raises(AntiphonError, match="lacks the file stages/engine.onnx"):
        read_manifest(bundle[0])


def test_a_flipped_byte_is_noticed_on_request(bundle):
    (bundle[0] / "stages" / "engine.onnx").write_bytes(b"weighty"[:7])
    read_manifest(bundle[0])
    with pytest.raises(AntiphonError, match="damaged"):
        check_hashes(bundle[0])
