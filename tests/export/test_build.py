"""What `build` promises: nothing is built twice, everything is said,
and an interruption leaves the old bundle or none.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import antiphon
import antiphon.export.build as building
from antiphon.export.build import Progress, build
from antiphon.export.choice import choose_engines
from antiphon.export.stage_keys import engine_parts, portable_parts, stage_facts, weights_digest
from antiphon.graphs.checkpoints.checkpoint import Checkpoint
from antiphon.graphs.families.registry import stages
from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.bundle.files import hash_file
from antiphon.runtime.bundle.manifest import Manifest, check_hashes, read_manifest

STAGES = ["audio_encoder", "vision_encoder", "thinker", "talker", "predictor", "code2wav"]
HIT = "nothing that decides it has changed"


def copy_of(folder: Path, destination: Path) -> Path:
    """Copies, not links: ONNX refuses weights with several names."""
    return Path(shutil.copytree(folder, destination))


def replace(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def edit_json(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    replace(path, json.dumps(content).encode())


def flip_weight(checkpoint: Path, tensor: str) -> None:
    """Change one byte of `tensor`."""
    stored = Checkpoint(checkpoint)._find(tensor)
    content = bytearray(stored.shard.read_bytes())
    content[stored.begin] ^= 1
    replace(stored.shard, bytes(content))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def reasons(manifest: Manifest) -> dict[str, str]:
    return {name: record["reason"] for name, record in manifest.build["stages"].items()}


@pytest.mark.parametrize(
    "name", ["thinker.model.layers.3.self_attn.q_proj.bias", "talker.model.layers.2.mlp.gate.bias"]
)
def test_a_layer_tensor_that_the_graph_would_leave_out_is_refused(
    tiny_checkpoint: Path, tmp_path: Path, name: str
) -> None:
    """Biases that config.json does not state: another model than the one that was trained."""
    checkpoint = copy_of(tiny_checkpoint, tmp_path / "checkpoint")
    index = checkpoint / "model.safetensors.index.json"
    shard = sorted(checkpoint.glob("*.safetensors"))[0]
    content = shard.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header[name] = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    text = json.dumps(header).encode()
    replace(shard, len(text).to_bytes(8, "little") + text + content[8 + length :])
    edit_json(index, lambda listed: listed["weight_map"].update({name: shard.name}))
    with pytest.raises(AntiphonError, match=f"tensor {re.escape(name)} found, which config.json does not"):
        build(checkpoint, tmp_path / "bundle", cache=False)
    assert not (tmp_path / "bundle").exists()


def raise_at(step: str) -> Callable[[Progress], None]:
    """Ctrl-C at the first report of `step`."""

    def report(progress: Progress) -> None:
        if progress.step == step:
            raise KeyboardInterrupt

    return report


@pytest.fixture(scope="module")
def cache(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds the stages of the tiny checkpoint and nothing else.

    A test that spoils it takes a copy.
    """
    folder = tmp_path_factory.mktemp("cache")
    for name, entry in read_manifest(tiny_bundle).stages.items():
        copy_of(Path(os.environ["ANTIPHON_CACHE"]) / name / entry.key, folder / name / entry.key)
    return folder


@pytest.fixture(scope="module")
def rebuilt(
    tiny_checkpoint: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Manifest, Path, list[Progress]]:
    """A build after one weight of the predictor changed and one cached file was damaged:
    its manifest, its folder and its reports.
    """
    home = tmp_path_factory.mktemp("rebuilt")
    checkpoint, own_cache = copy_of(tiny_checkpoint, home / "checkpoint"), copy_of(cache, home / "cache")
    flip_weight(checkpoint, "talker.code_predictor.lm_head.3.weight")
    damaged = next((own_cache / "audio_encoder").iterdir()) / "weights.bin"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    replace(damaged, bytes(content))
    reports: list[Progress] = []
    return (
        build(checkpoint, home / "bundle", cache=own_cache, on_progress=reports.append),
        home / "bundle",
        reports,
    )


def test_an_unchanged_stage_is_not_built_again_and_bundles_share_it(
    tiny_checkpoint: Path, tiny_bundle: Path, cache: Path, tmp_path: Path
) -> None:
    manifest = build(tiny_checkpoint, tmp_path / "bundle", cache=cache)
    assert list(manifest.stages) == STAGES
    assert reasons(manifest) == dict.fromkeys(STAGES, HIT)
    assert all(record["cached"] for record in manifest.build["stages"].values())
    first = read_manifest(tiny_bundle)
    assert manifest.stages == first.stages and manifest.hashes == first.hashes
    assert all(path.stat().st_nlink == 1 for path in (tmp_path / "bundle").rglob("*") if path.is_file()), (
        "ONNX refuses weights with several names"
    )
    check_hashes(tmp_path / "bundle")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle"]


def test_only_the_stages_of_a_changed_weight_or_a_damaged_file_are_built(
    rebuilt: tuple[Manifest, Path, list[Progress]],
) -> None:
    manifest, bundle, _ = rebuilt
    expected = dict.fromkeys(STAGES, HIT)
    expected |= {
        "predictor": "changed since the closest build: weights",
        "audio_encoder": "the cached file weights.bin was damaged",
    }
    assert reasons(manifest) == expected
    assert [name for name in STAGES if not manifest.build["stages"][name]["cached"]] == [
        "audio_encoder",
        "predictor",
    ]
    check_hashes(bundle)


def test_a_rebuilt_stage_is_what_it_was(
    rebuilt: tuple[Manifest, Path, list[Progress]], tiny_bundle: Path
) -> None:
    manifest, first = rebuilt[0], read_manifest(tiny_bundle)
    for name in ("weights.bin", "portable.onnx", "engine.onnx"):
        file = f"stages/audio_encoder/{name}"
        assert manifest.hashes[file] == first.hashes[file]
    assert manifest.hashes["stages/predictor/weights.bin"] != first.hashes["stages/predictor/weights.bin"]
    assert manifest.hashes["stages/predictor/engine.onnx"] == first.hashes["stages/predictor/engine.onnx"]


def test_progress_only_goes_on_and_comes_to_its_end(rebuilt: tuple[Manifest, Path, list[Progress]]) -> None:
    manifest, _, reports = rebuilt
    done, elapsed = [report.done for report in reports], [report.elapsed for report in reports]
    assert done == sorted(done) and elapsed == sorted(elapsed)
    assert {report.total for report in reports} == {
        4 * sum(stage.parameters for stage in manifest.stages.values())
    }
    assert (
        reports[0].remaining is None and reports[-1].done == reports[-1].total and reports[-1].remaining == 0
    )
    assert all(report.remaining is not None and report.remaining >= 0 for report in reports if report.done)
    assert {"reading weights", "exporting", "writing weights", "lowering"} <= {
        report.step for report in reports
    }
    assert list(dict.fromkeys(report.stage for report in reports)) == ["frontend", *STAGES, "bundle"]


@pytest.mark.parametrize(
    ("tensor", "users"),
    [
        ("thinker.model.embed_tokens.weight", ["thinker", "talker"]),
        ("thinker.model.layers.1.mlp.experts.3.down_proj.weight", ["thinker"]),
        ("thinker.audio_tower.proj2.bias", ["audio_encoder"]),
        ("thinker.visual.pos_embed.weight", ["vision_encoder"]),
        ("talker.hidden_projection.linear_fc1.weight", ["talker"]),
        ("talker.model.codec_embedding.weight", ["talker", "predictor"]),
        ("code2wav.decoder.1.block.1.conv.bias", ["code2wav"]),
    ],
)
def test_a_weight_decides_exactly_the_stages_that_use_it(
    tiny_checkpoint: Path, tmp_path: Path, tensor: str, users: list[str]
) -> None:
    checkpoint = copy_of(tiny_checkpoint, tmp_path / "checkpoint")
    before = keys(checkpoint)
    flip_weight(checkpoint, tensor)
    after = keys(checkpoint)
    assert [name for name in STAGES if before[name] != after[name]] == users
    assert all(
        {part for part in before[name] if before[name][part] != after[name][part]} == {"weights"}
        for name in users
    )


def keys(folder: Path) -> dict[str, dict[str, str]]:
    """What decides each stage of a checkpoint."""
    checkpoint = Checkpoint(folder)
    choice = choose_engines()
    found = {}
    for stage in stages(checkpoint.config):
        facts, weights = stage_facts(stage), weights_digest(checkpoint, stage.weights(checkpoint))
        builder, kind = choice.builder(stage.name), choice.kind(stage.name)
        found[stage.name] = engine_parts(
            facts, portable_parts(facts), weights, builder, kind, choice.target, choice.formats
        )
    return found


def test_equal_keys_give_equal_files_also_where_the_portable_graph_is_cached(
    tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    for name in (f"{stage}{building.PORTABLE}" for stage in STAGES):
        copy_of(Path(os.environ["ANTIPHON_CACHE"]) / name, tmp_path / "cache" / name)
    manifest = build(tiny_checkpoint, tmp_path / "bundle", cache=tmp_path / "cache")
    assert {record["portable_cached"] for record in manifest.build["stages"].values()} == {True}
    assert manifest.hashes == read_manifest(tiny_bundle).hashes


def test_ids_and_voices_are_in_the_manifest_alone(
    tiny_checkpoint: Path, tiny_bundle: Path, cache: Path, tmp_path: Path
) -> None:
    checkpoint = copy_of(tiny_checkpoint, tmp_path / "checkpoint")
    first = read_manifest(tiny_bundle)
    bos, voice = first.id("codec_bos") + 40, first.voices["ethan"] + 1

    def change(config: Any) -> None:
        config["talker_config"]["codec_bos_id"] = bos
        config["talker_config"]["speaker_id"] = {"eve": voice}

    edit_json(checkpoint / "config.json", change)
    manifest = build(checkpoint, tmp_path / "bundle", cache=cache)
    assert reasons(manifest) == dict.fromkeys(STAGES, HIT)
    assert (
        manifest.id("codec_bos") == bos
        and manifest.voices == {"eve": voice}
        and manifest.default_voice == "eve"
    )


def test_without_a_cache_everything_is_built(
    tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    reports: list[Progress] = []

    def report(progress: Progress) -> None:
        reports.append(progress)
        raise_at("writing weights")(progress)

    with pytest.raises(KeyboardInterrupt):
        build(tiny_checkpoint, tmp_path / "bundle", cache=False, on_progress=report)
    assert [(report.stage, report.step) for report in reports[1:]] == [
        ("audio_encoder", step) for step in ("reading weights", "exporting", "writing weights")
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", ["reading weights", "writing", "hashing"])
def test_an_interruption_leaves_the_old_bundle_untouched_or_none(
    tiny_checkpoint: Path, tiny_bundle: Path, cache: Path, tmp_path: Path, step: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(tiny_checkpoint, tmp_path / "bundle", cache=cache, on_progress=raise_at(step))
    assert list(tmp_path.iterdir()) == []
    old = contents(copy_of(tiny_bundle, tmp_path / "bundle"))
    with pytest.raises(KeyboardInterrupt):
        build(tiny_checkpoint, tmp_path / "bundle", cache=cache, on_progress=raise_at(step))
    assert contents(tmp_path / "bundle") == old
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_an_interruption_while_the_old_bundle_is_removed_leaves_the_new_one(
    tiny_checkpoint: Path, tiny_bundle: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_of(tiny_bundle, tmp_path / "bundle")
    inode = (tmp_path / "bundle").stat().st_ino
    remove, interrupted = shutil.rmtree, []

    def interrupt(path: Path, **options: Any) -> None:
        if str(path).endswith(".building") and not interrupted:
            interrupted.append(path)
            raise KeyboardInterrupt
        remove(path, **options)

    monkeypatch.setattr(shutil, "rmtree", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build(tiny_checkpoint, tmp_path / "bundle", cache=cache)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert (tmp_path / "bundle").stat().st_ino != inode
    check_hashes(tmp_path / "bundle")


def test_a_build_replaces_the_older_bundle_also_behind_a_link(
    tiny_checkpoint: Path, tiny_bundle: Path, cache: Path, tmp_path: Path
) -> None:
    copy_of(tiny_bundle, tmp_path / "bundle")
    edit_json(tmp_path / "bundle" / "manifest.json", lambda manifest: manifest.update(schema_version=0))
    (tmp_path / "current").symlink_to("bundle")
    build(tiny_checkpoint, tmp_path / "current", cache=cache)
    check_hashes(tmp_path / "bundle")
    assert (tmp_path / "current").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "current"]


def fail_with(code: int) -> Callable[..., None]:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (errno.ENOSPC, "No space left on the disk of .*bundle while building; free some"),
        (errno.EDQUOT, "No space left on the disk of .*bundle while building; free some"),
        (
            errno.EROFS,
            r"Cannot write the bundle .*bundle \(Read-only file system\); give a folder that can be written",
        ),
    ],
)
@pytest.mark.parametrize("place", ["hash_folder", "write_frontend", "write_manifest"])
def test_a_full_or_read_only_disk_is_said_and_leaves_the_old_bundle(
    tiny_checkpoint: Path,
    tiny_bundle: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    code: int,
    sentence: str,
) -> None:
    old = contents(copy_of(tiny_bundle, tmp_path / "bundle"))
    monkeypatch.setattr(building, place, fail_with(code))
    with pytest.raises(AntiphonError, match=sentence):
        build(tiny_checkpoint, tmp_path / "bundle", cache=cache)
    assert contents(tmp_path / "bundle") == old
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_write_that_fails_in_the_middle_of_a_file_leaves_the_old_bundle(
    tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    """With a real failing write: the system lets this process write no file above 300,000 bytes."""
    old = contents(copy_of(tiny_bundle, tmp_path / "bundle"))
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))"
    code = f"{limit}\nfrom antiphon.scripts.cli import main\nmain()"
    arguments = ["build", str(tiny_checkpoint), str(tmp_path / "bundle"), "--no-cache"]
    found = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment()
    )
    assert (found.returncode, found.stdout) == (2, "")
    sentence = (
        f"A file of {tmp_path}/bundle grew beyond what the disk or ulimit -f allows; "
        "raise the limit or give another disk (see --plan)."
    )
    assert found.stderr == f"antiphon: {sentence}\n"
    assert contents(tmp_path / "bundle") == old
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def environment() -> dict[str, str]:
    """For a process that runs this very package."""
    return os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(antiphon.__file__).parent.parent), *sys.path]),
        "OMP_NUM_THREADS": "1",
    }


def test_a_destination_below_a_file_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    with pytest.raises(
        AntiphonError, match="/file is a file, so .*/file/bundle cannot be made below it; give another path"
    ):
        build(tiny_checkpoint, tmp_path / "file" / "bundle")


def test_a_destination_that_is_a_file_is_refused_and_kept(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle").write_text("text")
    with pytest.raises(AntiphonError, match="bundle is a file, expected a folder"):
        build(tiny_checkpoint, tmp_path / "bundle")
    assert (tmp_path / "bundle").read_text() == "text"


@pytest.mark.parametrize("name", ["notes.txt", "manifest.json", "bundle and notes"])
def test_a_destination_with_other_things_is_refused_and_kept(
    tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path, name: str
) -> None:
    home = tmp_path / "home"
    if name == "bundle and notes":
        (copy_of(tiny_bundle, home) / "notes.txt").write_text("mine")
    else:
        home.mkdir()
        (home / name).write_text('{"name": "a web site"}')
    before = contents(home)
    with pytest.raises(AntiphonError, match="holds files but is no bundle; give a new folder"):
        build(tiny_checkpoint, home)
    assert contents(home) == before


@pytest.mark.parametrize(
    ("name", "value"), [("target", "sm90"), ("engine", "tensorrt"), ("precision", "int3")]
)
def test_what_cannot_be_built_is_refused_by_name(
    tiny_checkpoint: Path, tmp_path: Path, name: str, value: str
) -> None:
    with pytest.raises(AntiphonError, match=f"Unknown {name} '{value}'; expected one of"):
        build(tiny_checkpoint, tmp_path / "bundle", **{name: value})  # type: ignore[arg-type]


def test_a_missing_tensor_is_said_before_any_work(tiny_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = copy_of(tiny_checkpoint, tmp_path / "checkpoint")
    edit_json(
        checkpoint / "model.safetensors.index.json",
        lambda index: index["weight_map"].pop("code2wav.decoder.1.block.1.conv.bias"),
    )
    reports: list[Progress] = []
    with pytest.raises(AntiphonError, match="tensor code2wav.decoder.1.block.1.conv.bias is missing"):
        build(checkpoint, tmp_path / "bundle", cache=False, on_progress=reports.append)
    assert reports == [] and not (tmp_path / "bundle").exists()


def test_ctrl_c_ends_the_command_with_130_and_leaves_nothing(tiny_checkpoint: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "antiphon",
        "build",
        str(tiny_checkpoint),
        str(tmp_path / "bundle"),
        "--no-cache",
    ]
    process = subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not any(tmp_path.glob(".bundle.*.building/stages/audio_encoder")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (130, "", "antiphon: Interrupted.\n")
    assert list(tmp_path.iterdir()) == []


def test_weights_of_a_bundle_are_those_of_the_checkpoint(tiny_checkpoint: Path, tiny_bundle: Path) -> None:
    onnx = pytest.importorskip("onnx")
    checkpoint = Checkpoint(tiny_checkpoint)
    folder = tiny_bundle / "stages" / "thinker"
    model = onnx.load(folder / "engine.onnx", load_external_data=False)
    found = {
        tensor.name: {entry.key: entry.value for entry in tensor.external_data}
        for tensor in model.graph.initializer
        if tensor.external_data
    }
    place = found["embedding"]
    stored = np.fromfile(
        folder / place["location"], np.float32, int(place["length"]) // 4, offset=int(place["offset"])
    )
    np.testing.assert_array_equal(stored, checkpoint.read("thinker.model.embed_tokens.weight").ravel())
    assert (
        hash_file(folder / "weights.bin") == read_manifest(tiny_bundle).hashes["stages/thinker/weights.bin"]
    )
