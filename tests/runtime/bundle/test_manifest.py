from __future__ import annotations

import json

import pytest

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.bundle.files import FRONT_END, hash_folder
from antiphon.runtime.bundle.manifest import (
    Manifest,
    ModelConstants,
    check_hashes,
    read_manifest,
    seal,
    write_manifest,
)
from antiphon.runtime.bundle.sampling import SamplingParameters
from antiphon.runtime.bundle.specs import (
    Capabilities,
    Precision,
    StageEntry,
    StageInterface,
    StateSpec,
    TensorSpec,
)


@pytest.fixture
def bundle(tmp_path):
    for name in ("stages", "frontend"):
        (tmp_path / name).mkdir()
    for name in FRONT_END:
        (tmp_path / name).write_bytes(b"text")
    (tmp_path / "stages" / "engine.plan").write_bytes(b"a graph")
    (tmp_path / "stages" / "weights.bin").write_bytes(b"weights")
    entry = StageEntry(
        "thinker",
        "onnxruntime",
        "cpu",
        ("stages/engine.plan",),
        StageInterface(
            (TensorSpec("input_ids", "int64", ("batch", "tokens")),),
            (TensorSpec("token", "int64", ("rows",)),),
            (StateSpec("key.0", "kv", "float32", ("batch", 2, "capacity", 8)),),
            {"context": 64},
        ),
        Capabilities(max_rows=4, contiguous_slots=True, buckets=(1, 2)),
        Precision("int8", "float32", "float32"),
    )
    manifest = Manifest(
        "qwen3_omni_moe",
        "0.1",
        "cpu",
        "fp32",
        {"thinker": entry},
        {"im_end": 2, "eos": [2, 3]},
        ModelConstants(64, frames_per_text=0.5),
        {"thinker": SamplingParameters(0.7, 20, 0.8, 1.0, 0, None)},
        {"Ethan": 5},
        "Ethan",
        {"onnx": "1"},
        {"seconds": {"export": 1.5}},
        hash_folder(tmp_path),
    )
    write_manifest(tmp_path, manifest)
    return tmp_path, manifest


def change(folder, **fields):
    """Other fields, as if it had been built so."""
    path = folder / "manifest.json"
    content = json.loads(path.read_text()) | fields
    path.write_text(json.dumps(content | {"sha256": seal(content)}))


def test_a_manifest_reads_back_as_it_was_written(bundle):
    folder, manifest = bundle
    assert read_manifest(folder) == manifest
    check_hashes(folder)
    assert '"shape": ["batch", 2, "capacity", 8]' in (folder / "manifest.json").read_text(), (
        "short lists stay on a line"
    )


def test_a_folder_without_manifest_is_no_bundle(tmp_path):
    with pytest.raises(AntiphonError, match="No bundle at"):
        read_manifest(tmp_path)


def test_another_schema_version_is_refused(bundle):
    change(bundle[0], schema_version=99)
    with pytest.raises(AntiphonError, match="schema version 99"):
        read_manifest(bundle[0])


def test_text_that_is_not_json_is_refused(bundle):
    (bundle[0] / "manifest.json").write_text("{")
    with pytest.raises(AntiphonError, match="not valid JSON"):
        read_manifest(bundle[0])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"voices": {"Ethan": "five"}}, "voices.Ethan is 'five'"),
        ({"stages": {"thinker": {"name": "thinker"}}}, "stages.thinker lacks the field kind"),
        ({"target": 3}, "target is 3"),
        ({"ids": []}, "ids is"),
        ({"sampling": {"thinker": {"temperature": -1}}}, "temperature is -1"),
    ],
)
def test_a_field_of_a_wrong_kind_is_named(bundle, fields, message):
    change(bundle[0], **fields)
    with pytest.raises(AntiphonError, match=message):
        read_manifest(bundle[0])


@pytest.mark.parametrize("name", ["stages/weights.bin", "stages/engine.plan", "frontend/tokenizer.json"])
def test_a_missing_file_and_a_wrong_size_are_always_noticed(bundle, name):
    file = bundle[0] / name
    size = file.stat().st_size
    file.write_bytes(b"x")
    with pytest.raises(AntiphonError, match=f"has 1 bytes, expected {size}"):
        read_manifest(bundle[0])
    file.unlink()
    with pytest.raises(AntiphonError, match=f"lacks the file {name}"):
        read_manifest(bundle[0])


def test_a_flipped_byte_of_the_weights_is_noticed_on_request(bundle):
    (bundle[0] / "stages" / "weights.bin").write_bytes(b"weighty")
    read_manifest(bundle[0])
    with pytest.raises(AntiphonError, match="weights.bin is damaged"):
        check_hashes(bundle[0])


@pytest.mark.parametrize(
    ("name", "content"), [("stages/engine.plan", b"b graph"), ("frontend/frontend.json", b"test")]
)
def test_a_flipped_byte_of_any_other_file_is_always_noticed(bundle, name, content):
    (bundle[0] / name).write_bytes(content)
    with pytest.raises(AntiphonError, match=f"{name} is damaged"):
        read_manifest(bundle[0])


def test_a_manifest_that_was_edited_is_told_from_one_that_was_built(bundle):
    path = bundle[0] / "manifest.json"
    text = path.read_text()
    path.write_text(" " + text.replace("\n", "\n\n"))  # laid out otherwise, it says the same
    assert read_manifest(bundle[0]) == bundle[1]
    path.write_text(text.replace('"Ethan": 5', '"Ethan": 6'))
    with pytest.raises(
        AntiphonError,
        match=(
            "manifest.json was changed after the build, or is damaged; "
            "copy the bundle again, or make it anew with antiphon build"
        ),
    ):
        read_manifest(bundle[0])


def test_a_bundle_that_a_killed_build_set_aside_is_named(bundle):
    aside = bundle[0].parent / ".gone.0123abcd.old"
    aside.mkdir()
    with pytest.raises(
        AntiphonError,
        match="a build that was to replace it was killed; build again, or give .*0123abcd.old the name gone",
    ):
        read_manifest(bundle[0].parent / "gone")
    aside.rmdir()
