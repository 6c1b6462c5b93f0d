"""The cache of built stages: when it hits, what it says when it does not,
and that damage is never handed out.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import antiphon.export.cache as caching
from antiphon.export.cache import StageCache, default_cache, stage_key
from antiphon.runtime.bundle.errors import AntiphonError

from ..damage import one_change

PARTS = {"weights": "w0", "configuration": "c0", "antiphon code": "a0", "target": "cpu"}
ENTRY = {"name": "thinker", "bytes": 7}


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """The files of a stage that was just built."""
    folder = tmp_path / "built"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(bytes(range(256)) * 40)
    (folder / "engine.onnx").write_bytes(b"a graph")
    return folder


@pytest.fixture
def cache(tmp_path: Path, built: Path) -> StageCache:
    """A cache that holds it."""
    cache = StageCache(tmp_path / "cache")
    cache.store("thinker", PARTS, built, ENTRY)
    return cache


def fetch(
    cache: StageCache, destination: Path, **changes: str
) -> tuple[bool, str, dict[str, Any], list[str]]:
    destination.mkdir()
    found = cache.fetch("thinker", PARTS | changes, destination)
    return found.hit, found.reason, found.entry, sorted(path.name for path in destination.iterdir())


def home(cache: StageCache) -> Path:
    assert cache.folder is not None
    return cache.folder / "thinker" / stage_key(PARTS)


def test_equal_parts_hit_and_give_the_files_and_the_entry(
    cache: StageCache, built: Path, tmp_path: Path
) -> None:
    assert fetch(cache, tmp_path / "out") == (
        True,
        "nothing that decides it has changed",
        ENTRY,
        ["engine.onnx", "weights.bin"],
    )
    for file in built.iterdir():
        assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()


def test_a_change_in_a_bundle_never_reaches_the_cache(cache: StageCache, built: Path, tmp_path: Path) -> None:
    fetch(cache, tmp_path / "out")
    for folder in (built, tmp_path / "out"):
        with (folder / "weights.bin").open("r+b") as file:
            file.write(b"changed")
    assert fetch(cache, tmp_path / "again")[0]
    assert (tmp_path / "again" / "weights.bin").read_bytes() == bytes(range(256)) * 40


def test_a_miss_names_every_part_that_changed(cache: StageCache, tmp_path: Path) -> None:
    assert fetch(cache, tmp_path / "one", weights="w1") == (
        False,
        "changed since the closest build: weights",
        {},
        [],
    )
    assert (
        fetch(cache, tmp_path / "two", weights="w1", target="sm90")[1]
        == "changed since the closest build: target, weights"
    )
    assert (
        fetch(cache, tmp_path / "new", **{"version of onnx": "2"})[1]
        == "changed since the closest build: version of onnx"
    )


def test_a_miss_is_measured_against_the_closest_of_several_builds(
    cache: StageCache, built: Path, tmp_path: Path
) -> None:
    cache.store("thinker", PARTS | {"weights": "w1", "configuration": "c1"}, built, ENTRY)
    assert (
        fetch(cache, tmp_path / "out", weights="w1", configuration="c2")[1]
        == "changed since the closest build: configuration"
    )


def test_another_stage_is_another_matter(cache: StageCache, tmp_path: Path) -> None:
    found = cache.fetch("talker", PARTS, tmp_path / "out")
    assert (found.hit, found.reason) == (False, "this stage was never built with this cache")


@pytest.mark.parametrize("name", ["weights.bin", "engine.onnx", "entry.json"])
@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing", "a folder", "a link to nothing"])
def test_a_damaged_file_is_not_handed_out_and_is_forgotten(
    cache: StageCache, tmp_path: Path, name: str, damage: str
) -> None:
    file = home(cache) / name
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    file.unlink()
    if damage == "flipped":
        content[middle] ^= 1
    if damage == "a folder":
        file.mkdir()
    elif damage == "a link to nothing":
        file.symlink_to("nothing")
    elif damage != "missing":
        file.write_bytes(content[: middle if damage == "truncated" else None])
    assert fetch(cache, tmp_path / "out") == (False, f"the cached file {name} was damaged", {}, [])
    assert fetch(cache, tmp_path / "again")[1] == "this stage was never built with this cache"


def test_a_damaged_description_is_not_believed(cache: StageCache, tmp_path: Path) -> None:
    path = home(cache) / "entry.json"
    content = json.loads(path.read_text())
    content["stage"]["bytes"] = 8
    path.write_text(json.dumps(content))
    assert fetch(cache, tmp_path / "out") == (False, "the cached file entry.json was damaged", {}, [])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"parts": {}}', "\ufffd"])
def test_a_description_that_is_none_is_a_miss(cache: StageCache, tmp_path: Path, text: str) -> None:
    (home(cache) / "entry.json").write_text(text)
    assert fetch(cache, tmp_path / "out") == (False, "the cached file entry.json was damaged", {}, [])


def test_a_description_with_any_other_value_is_a_miss_also_with_a_digest_of_its_own(
    cache: StageCache, built: Path
) -> None:
    path = home(cache) / "entry.json"
    content = json.loads(path.read_text())

    @given(other=one_change(content), sealed=st.booleans())
    @settings(max_examples=100, deadline=None, database=None)
    def check(other: dict[str, Any], sealed: bool) -> None:
        path.write_text(json.dumps(other | {"sha256": caching._digest(other)} if sealed else other))
        with tempfile.TemporaryDirectory() as out:
            # what it says of files is true; of the rest the digest tells
            if cache.fetch("thinker", PARTS, Path(out)).hit:
                assert {name: (Path(out) / name).read_bytes() for name in other["files"]} == {
                    name: (built / name).read_bytes() for name in other["files"]
                }
                assert sealed or other == content
            else:
                assert not os.listdir(out)
        cache.store("thinker", PARTS, built, ENTRY)

    check()


@pytest.mark.parametrize("name", ["../outside", "/outside", "..", "a/b", ""])
def test_a_description_never_leads_out_of_its_folder(cache: StageCache, tmp_path: Path, name: str) -> None:
    path = home(cache) / "entry.json"
    content = json.loads(path.read_text())
    content["files"][name] = content["files"]["engine.onnx"]
    content["sha256"] = caching._digest(content)
    path.write_text(json.dumps(content))
    assert fetch(cache, tmp_path / "out") == (False, "the cached file entry.json was damaged", {}, [])


def test_what_a_killed_build_left_is_swept_by_the_next_one_of_any_key(cache: StageCache, built: Path) -> None:
    (home(cache).parent / f".{'0' * 32}.0123abcd.building").mkdir()
    cache.store("thinker", PARTS | {"weights": "w1"}, built, ENTRY)
    assert sorted(path.name for path in home(cache).parent.iterdir()) == sorted(
        [stage_key(PARTS), stage_key(PARTS | {"weights": "w1"})]
    )


def test_a_folder_of_the_cache_that_is_a_file_is_no_reason_to_fail(built: Path, tmp_path: Path) -> None:
    for name in ("thinker", f"other/thinker/{stage_key(PARTS)}"):
        (tmp_path / "cache" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cache" / name).write_text("a file")
    for folder in (tmp_path / "cache", tmp_path / "cache" / "other"):
        StageCache(folder).store("thinker", PARTS, built, ENTRY)
        assert not fetch(StageCache(folder), tmp_path / f"out-{folder.name}")[0]


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("ANTIPHON_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(AntiphonError, match="No home folder is known .*; set ANTIPHON_CACHE to a folder"):
        default_cache()


def test_a_damaged_entry_can_be_stored_again(cache: StageCache, built: Path, tmp_path: Path) -> None:
    (home(cache) / "entry.json").write_text("")
    fetch(cache, tmp_path / "out")
    cache.store("thinker", PARTS, built, ENTRY)
    assert fetch(cache, tmp_path / "again")[0]


def test_storing_twice_keeps_one_entry_and_no_stray_folder(cache: StageCache, built: Path) -> None:
    cache.store("thinker", PARTS, built, ENTRY)
    assert [path.name for path in home(cache).parent.iterdir()] == [stage_key(PARTS)]


def test_no_folder_keeps_nothing(built: Path, tmp_path: Path) -> None:
    cache = StageCache(None)
    cache.store("thinker", PARTS, built, ENTRY)
    assert fetch(cache, tmp_path / "out") == (False, "the cache is off", {}, [])


def test_a_cache_that_cannot_be_written_never_fails_a_build(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    cache = StageCache(tmp_path / "file")
    cache.store("thinker", PARTS, built, ENTRY)
    assert fetch(cache, tmp_path / "out")[1] == "the cache cannot be read (Not a directory)"

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(caching, "_copy", full)
    StageCache(tmp_path / "cache2").store("thinker", PARTS, built, ENTRY)
    assert list((tmp_path / "cache2" / "thinker").iterdir()) == []


def test_an_interrupted_store_leaves_no_stray_folder(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(caching, "hash_file", interrupt)
    with pytest.raises(KeyboardInterrupt):
        StageCache(tmp_path / "cache").store("thinker", PARTS, built, ENTRY)
    assert list((tmp_path / "cache" / "thinker").iterdir()) == []


def test_the_key_depends_on_every_part_but_not_on_their_order() -> None:
    assert stage_key(PARTS) == stage_key(dict(reversed(PARTS.items())))
    assert len({stage_key(PARTS), *(stage_key(PARTS | {name: "else"}) for name in PARTS)}) == 1 + len(PARTS)


def test_the_default_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    for named, caches, expected in (
        ("/a", "/b", "/a"),
        ("", "/b", "/b/antiphon"),
        ("", "", "/home/someone/.cache/antiphon"),
    ):
        monkeypatch.setenv("ANTIPHON_CACHE", named)
        monkeypatch.setenv("XDG_CACHE_HOME", caches)
        assert default_cache() == Path(expected)
