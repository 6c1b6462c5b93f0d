"""A bundle that is not what was built: every file damaged or exchanged, every value of the manifest replaced.

One sentence, or the same answer.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

pytest.importorskip("torch")

from antiphon.runtime import omni as loading
from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.bundle.files import hash_folder
from antiphon.runtime.bundle.manifest import Manifest, check_hashes, read_manifest, seal, write_manifest
from antiphon.runtime.bundle.typed_json import typed
from antiphon.runtime.check_manifest import check_manifest
from antiphon.runtime.events import Reply
from antiphon.runtime.frontend.prompt.front_end import FrontEnd
from antiphon.runtime.omni import load
from antiphon.runtime.stages.voices import read_voice_table

from .bad_input import QUESTION, edit_manifest, is_clear
from .damage import DAMAGE, changed, one_change, places

FAMILIES = ["tiny_bundle", "hybrid_bundle"]
WEIGHTS = "weights.bin"


@pytest.fixture(params=FAMILIES)
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy to be damaged; weights are links to the shared bundle, and damage replaces a link."""
    return linked(request.getfixturevalue(request.param), tmp_path / "bundle")


def linked(folder: Path, destination: Path) -> Path:
    return Path(shutil.copytree(folder, destination, copy_function=os.link))


def own(path: Path) -> Path:
    """`path` with a file of its own: one that shares no content with another name."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    return path


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def refusal(action: Callable[[], object]) -> str:
    """The sentence with which `action` fails."""
    with pytest.raises(AntiphonError) as raised:
        action()
    assert is_clear(str(raised.value)), raised.value
    return str(raised.value)


def answer(folder: Path) -> Reply:
    with load(folder, threads=1) as omni:
        return omni.generate(QUESTION, greedy=True, max_text_tokens=4, max_frames=3)


@pytest.mark.parametrize("damage", DAMAGE)
def test_every_damaged_file_is_named_and_only_weights_need_to_be_asked_for(bundle: Path, damage: str) -> None:
    for name in files(bundle):
        path = own(bundle / name)
        before = path.read_bytes()
        DAMAGE[damage](path)
        always_seen = damage not in ("flipped", "of other weights") or path.name not in (
            WEIGHTS,
            "portable.onnx",
        )
        if always_seen:
            assert name in refusal(lambda: read_manifest(bundle))
        else:
            read_manifest(bundle)
        assert name in refusal(lambda: check_hashes(bundle))
        path.write_bytes(before)
    check_hashes(bundle)


@pytest.mark.parametrize("name", ["tiny_bundle", "hybrid_bundle"])
def test_every_file_of_the_other_family_is_refused(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    bundle = linked(request.getfixturevalue(name), tmp_path / "bundle")
    other = request.getfixturevalue(next(family for family in FAMILIES if family != name))
    same = {
        file
        for file in files(other)
        if (bundle / file).exists() and (bundle / file).read_bytes() == (other / file).read_bytes()
    }
    assert same <= {"frontend/tokenizer.json", "frontend/chat_template.jinja"}
    for file in sorted(set(files(other)) - same):
        if "stages/mtp/" in file or "codec_encoder" in file and name == "tiny_bundle":
            continue  # no place for it
        before = (bundle / file).read_bytes() if (bundle / file).exists() else None
        (bundle / file).unlink(missing_ok=True)
        shutil.copy(other / file, bundle / file)
        if (
            file == "manifest.json"
            or before is not None
            and len(before) != (other / file).stat().st_size
            or file.endswith(("engine.onnx", ".json", ".npy"))
        ):
            refusal(lambda: load(bundle))
        refusal(lambda: check_hashes(bundle))
        (bundle / file).unlink()
        if before is not None:
            (bundle / file).write_bytes(before)
    check_hashes(bundle)


def test_an_engine_of_another_stage_is_refused_also_with_its_hashes(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    bundle = linked(tiny_bundle, tmp_path / "bundle")
    manifest = read_manifest(bundle)
    for one, other in (("talker", "thinker"), ("predictor", "code2wav"), ("audio_encoder", "vision_encoder")):
        stages = dict(manifest.stages)
        stages[one] = dataclasses.replace(stages[one], artifacts=stages[other].artifacts)
        write_manifest(own_folder(bundle), dataclasses.replace(manifest, stages=stages))
        assert "and the manifest disagree about the inputs" in refusal(lambda: load(bundle))
        stages[one] = dataclasses.replace(manifest.stages[other], name=one)
        write_manifest(own_folder(bundle), dataclasses.replace(manifest, stages=stages))
        assert f"Stage {one} has other tensors than this Antiphon runs it with" in refusal(
            lambda: load(bundle)
        )


def own_folder(bundle: Path) -> Path:
    own(bundle / "manifest.json")
    return bundle


@pytest.mark.parametrize(
    "name",
    [
        "../outside",
        "/etc/hostname",
        "stages/../../outside",
        "stages//x",
        "",
        ".",
        "..",
        "a\\b",
        "a\0b",
        "stages/",
        "./x",
    ],
)
@pytest.mark.parametrize("place", ["hashes", "artifacts"])
def test_a_name_that_leads_out_of_the_bundle_is_refused(
    tiny_bundle: Path, tmp_path: Path, name: str, place: str
) -> None:
    bundle = linked(tiny_bundle, tmp_path / "bundle")
    (tmp_path / "outside").write_bytes((bundle / "stages/talker/engine.onnx").read_bytes())
    content = json.loads((bundle / "manifest.json").read_text())
    if place == "hashes":
        content["hashes"][name] = content["hashes"]["stages/talker/engine.onnx"]
    else:
        content["stages"]["talker"]["artifacts"] = [name]
    rewrite(bundle, content)
    assert "no path inside the bundle" in refusal(lambda: load(bundle))


def rewrite(bundle: Path, content: dict[str, Any]) -> None:
    """Write a manifest as if it had been built so."""
    own(bundle / "manifest.json").write_text(json.dumps(content | {"sha256": seal(content)}))


@pytest.mark.parametrize(
    "name",
    ["frontend/tokenizer.json", "stages/talker/weights.bin", "stages/talker/portable.onnx", "stages/talker"],
)
def test_a_link_out_of_the_bundle_is_refused_and_one_inside_is_not(
    tiny_bundle: Path, tmp_path: Path, name: str
) -> None:
    bundle = linked(tiny_bundle, tmp_path / "bundle")
    (bundle / name).rename(tmp_path / "moved")
    (bundle / name).symlink_to(tmp_path / "moved")
    assert "is a link that leads out of the bundle" in refusal(lambda: load(bundle))
    (bundle / name).unlink()
    (tmp_path / "moved").rename(bundle / "moved")
    (bundle / name).symlink_to(bundle / "moved")
    read_manifest(bundle)


@pytest.mark.parametrize(
    "name",
    [
        "frontend/frontend.json",
        "frontend/tokenizer.json",
        "frontend/chat_template.jinja",
        "engine.onnx",
        "weights.bin",
    ],
)
def test_a_file_that_is_read_must_have_a_hash(bundle: Path, name: str) -> None:
    content = json.loads((bundle / "manifest.json").read_text())
    for listed in [file for file in content["hashes"] if file.endswith(name)]:
        rewrite(
            bundle,
            content
            | {"hashes": {file: known for file, known in content["hashes"].items() if file != listed}},
        )
        assert f"The file {listed} is read and" in refusal(lambda: check_hashes(bundle))
    rewrite(bundle, content | {"hashes": {}})
    assert "is read and" in refusal(lambda: check_hashes(bundle))


def test_voices_that_no_build_put_there_are_not_read(
    tiny_bundle: Path, hybrid_bundle: Path, tmp_path: Path
) -> None:
    bundle = linked(tiny_bundle, tmp_path / "bundle")
    shutil.copy(hybrid_bundle / "frontend" / "voices.npy", bundle / "frontend")
    assert "The file frontend/voices.npy is read and" in refusal(lambda: load(bundle))
    (bundle / "frontend" / "notes.txt").write_text("nobody reads this")
    (bundle / "frontend" / "voices.npy").unlink()
    read_manifest(bundle)


@pytest.mark.parametrize("location", ["../weights.bin", "/dev/null", "..", "", "other.bin"])
def test_weights_outside_the_engines_folder_or_without_a_hash_are_refused(
    tiny_bundle: Path, tmp_path: Path, location: str
) -> None:
    onnx = pytest.importorskip("onnx")
    bundle = linked(tiny_bundle, tmp_path / "bundle")
    engine = own(bundle / "stages" / "talker" / "engine.onnx")
    model = onnx.load(engine, load_external_data=False)
    next(
        entry
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    ).value = location
    manifest = read_manifest(bundle)
    engine.write_bytes(model.SerializeToString())
    write_manifest(own_folder(bundle), dataclasses.replace(manifest, hashes=hash_folder(bundle)))
    found = refusal(lambda: load(bundle))
    assert "expected a file beside it" in found or "The file stages/talker/other.bin is read and" in found


def test_a_manifest_with_another_value_is_said_to_be_changed(bundle: Path) -> None:
    path = own(bundle / "manifest.json")
    content = json.loads(path.read_text())

    @given(other=one_change(content))
    @settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def check(other: dict[str, Any]) -> None:
        path.write_text(json.dumps(other))
        if json.dumps(other, sort_keys=True) == json.dumps(content, sort_keys=True):
            read_manifest(bundle)
        else:
            found = refusal(lambda: read_manifest(bundle))
            said = (
                "was changed after the build, or is damaged",
                "schema version",
                "holds half of a surrogate pair",
            )
            assert any(words in found for words in said)

    check()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_manifest_of_any_values_is_refused_in_one_sentence_or_fits_together(
    family: str, request: pytest.FixtureRequest
) -> None:
    """Without its seal and its files: what only the values themselves tell."""
    bundle = request.getfixturevalue(family)
    table = read_voice_table(bundle / "frontend")

    @given(other=one_change(json.loads((bundle / "manifest.json").read_text())))
    @settings(max_examples=300, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def check(other: dict[str, Any]) -> None:
        try:
            manifest: Manifest = typed(Manifest, other, "manifest.json")
            check_manifest(manifest, table)
        except AntiphonError as error:
            assert is_clear(str(error)), error

    check()


@pytest.fixture(scope="module", params=FAMILIES)
def sealed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, dict[str, Any], Reply]]:
    """A bundle whose manifest may be rewritten, its content, and its answer.

    Sessions are made once: files stay the same.
    """
    folder = linked(request.getfixturevalue(request.param), tmp_path_factory.mktemp("sealed") / "bundle")
    content = json.loads((folder / "manifest.json").read_text())
    yield folder, content, answer(folder)


@pytest.fixture
def one_session_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions are the slow part of loading, and depend on the file alone."""
    import antiphon.runtime.engines.onnxruntime.engine as engine

    made: dict[tuple[str, int], Any] = {}
    make = engine.make_session

    def once(path: Path, threads: int | None = None) -> Any:
        key = str(path), path.stat().st_ino
        if key not in made:
            made[key] = make(path, threads)
        return made[key]

    monkeypatch.setattr(engine, "make_session", once)


def test_the_manifest_of_a_bundle_with_any_one_value_changed_never_makes_noise_or_another_error(
    sealed: tuple[Path, dict[str, Any], Reply], one_session_a_file: None
) -> None:
    """Sealed anew, as by a program that writes bundles: refused in one sentence, or an answer,
    which has the shape of one.
    """
    folder, content, _ = sealed
    loaded = 0

    @given(other=one_change(content))
    @settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def check(other: dict[str, Any]) -> None:
        nonlocal loaded
        try:
            rewrite(folder, other)
            reply = answer(folder)
        except AntiphonError as error:
            assert is_clear(str(error)), error
            return
        loaded += 1
        assert len(reply.token_ids) <= 4 and len(reply.codes) <= 3
        assert (
            reply.audio.dtype == np.float32
            and np.isfinite(reply.audio).all()
            and 1000 <= reply.sample_rate <= 768_000
        )

    check()
    assert loaded


CONTRADICTIONS: list[tuple[str, Any, str | None]] = [
    ("stages.thinker.interface.states.KV.shape.1", 3, "disagree about the inputs past.key."),
    ("stages.thinker.interface.states.KV.dtype", "float16", "disagree about the inputs past.key."),
    ("stages.thinker.interface.states.KV.kind", "conv", "has the conv state key."),
    ("stages.thinker.interface.states.KV.batch_axis", 2, "the batch on axis 2"),
    (
        "stages.thinker.interface.states.KV.shape",
        ["batch", 10**9, "capacity", 10**9],
        "disagree about the inputs past.key.",
    ),
    ("stages.talker.interface.inputs.1.shape.1", 64, "tensor hidden of float32"),
    ("stages.talker.interface.inputs.1.dtype", "float64", "tensor hidden of float64"),
    ("stages.code2wav.interface.inputs.0.shape.2", 8, "tensor codes of int64"),
    (
        "stages.code2wav.interface.constants.sample_rate",
        0,
        "sample_rate is 0, expected an integer from 1000 to 768000",
    ),
    ("stages.code2wav.interface.constants.samples_per_frame", 10**9, "samples_per_frame is 1000000000"),
    (
        "stages.code2wav.interface.constants.lead_samples",
        1920,
        "lead_samples is 1920, expected an integer from 0 to 1919",
    ),
    ("stages.code2wav", None, "only talker, predictor of the stages of speech"),
    ("stages.thinker", None, "has no stage thinker"),
    ("ids.im_end", 10**6, "ids.im_end is 1000000, expected an id from 0 to 2047"),
    ("ids.codec_bos", -1, "ids.codec_bos is -1, expected an id from 0 to"),
    ("ids.audio", 3, "ids.audio is 3, expected the id that frontend.json has"),
    ("ids.newline", None, "no single id 'newline'"),
    ("ids.eos", [], "ids.eos is a list of 0, expected one id"),
    ("constants.codebook_size", 128, "codebook_size is 128, expected 256"),
    ("constants.thinker_context", 2**31, "thinker_context is 2147483648, expected rows"),
    ("constants.talker_context", 0.5, "talker_context is 0.5, expected"),
    ("sampling.talker", None, "no sampling of the stage talker"),
    ("sampling.talker.top_p", 2.0, "top_p is 2.0"),
    (
        "sampling.thinker.repetition_penalty",
        1e-300,
        "repetition_penalty is 1e-300, expected a number from 0.01 to 100",
    ),
    ("voices.ethan", 10**6, None),
    ("default_voice", "nobody", "default_voice is 'nobody', expected one of the voices"),
    ("interleave", "adaptive:0", None),
]


@pytest.mark.parametrize(
    ("place", "value", "sentence"), CONTRADICTIONS, ids=[place for place, *_ in CONTRADICTIONS]
)
def test_a_value_that_contradicts_the_engines_or_another_is_found_by_load(
    sealed: tuple[Path, dict[str, Any], Reply],
    one_session_a_file: None,
    place: str,
    value: Any,
    sentence: str | None,
) -> None:
    folder, content, _ = sealed
    growing = next(
        index
        for index, state in enumerate(content["stages"]["thinker"]["interface"]["states"])
        if state["kind"] == "kv"
    )
    keys = tuple(int(key) if key.isdigit() else key for key in place.replace("KV", str(growing)).split("."))
    if place == "ids.codec_bos" or keys in set(places(content)):
        rewrite(folder, changed(content, keys, value) if value is not None else without(content, keys))
        found = refusal(lambda: load(folder, threads=1))
        assert sentence is None or sentence in found


def without(content: Any, keys: tuple[str | int, ...]) -> Any:
    from .damage import DELETED

    return changed(content, keys, DELETED)


@pytest.mark.parametrize("family", FAMILIES)
def test_constants_of_the_front_end_with_any_value_are_refused_or_used(
    family: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(request.getfixturevalue(family) / "frontend", tmp_path / "frontend"))
    content = json.loads((folder / "frontend.json").read_text())
    sound = np.zeros(1600, np.float32)

    @given(other=one_change(content))
    @settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def check(other: Any) -> None:
        (folder / "frontend.json").write_text(json.dumps(other))
        try:
            front_end = FrontEnd(folder)
            assert front_end.prompt(QUESTION).token_ids.ndim == 1
            front_end.prompt(
                [
                    {
                        "role": "user",
                        "content": [
                            {"type": "input_audio", "input_audio": {"data": sound, "sample_rate": 16000}}
                        ],
                    }
                ]
            )
        except AntiphonError as error:
            assert is_clear(str(error)), error

    check()


@pytest.mark.parametrize("version", [1, 2])
def test_a_manifest_of_an_older_schema_is_refused_with_the_command_that_builds_it_again(
    tiny_bundle: Path, tmp_path: Path, version: int
) -> None:
    bundle = linked(tiny_bundle, tmp_path / "bundle")
    edit_manifest(bundle, "schema_version", version)
    assert f"antiphon build CHECKPOINT {bundle}" in refusal(lambda: load(bundle))


def test_a_manifest_that_is_huge_or_deep_is_refused(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = linked(tiny_bundle, tmp_path / "bundle")
    path = own(bundle / "manifest.json")
    path.write_text('{"x": ' + "[" * 5000 + "]" * 5000 + "}")
    assert "nested deeper than" in refusal(lambda: loading.load(bundle))
    with path.open("wb") as file:
        file.truncate(2**30)
    assert "has more than 67,108,864 bytes" in refusal(lambda: loading.load(bundle))
