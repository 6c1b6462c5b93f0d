"""What is written beside its place: living writers keep it, dead ones lose it,
and an older folder is never lost.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import antiphon
from antiphon.runtime.bundle import beside as writing
from antiphon.runtime.bundle.beside import file_beside, folder_beside, put_in_place, set_aside, sweep

WRITER = """
import os, sys, time
from pathlib import Path
from antiphon.runtime.bundle import beside
with beside.folder_beside(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("written")
    {before}
    print(folder, flush=True)
    time.sleep(60)
"""


def environment() -> dict[str, str]:
    return os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(antiphon.__file__).parent.parent), *sys.path])
    }


def writer(target: Path, before: str = "pass") -> subprocess.Popen[str]:
    """Another process that writes beside `target`, until it is ended."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER.format(before=before), str(target)],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline()
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def make(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "file").write_text(text)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=["exchanged", "renamed"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """With and without a file system that exchanges two names."""

    def cannot(*_: Any) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    if request.param == "renamed":
        monkeypatch.setattr(writing, "_exchange", cannot)
    yield request.param


def test_a_folder_takes_an_empty_place_and_nothing_is_left(tmp_path: Path) -> None:
    with folder_beside(tmp_path / "bundle") as folder:
        assert folder.parent == tmp_path and names(tmp_path) == [folder.name]
        (folder / "file").write_text("new")
        put_in_place(folder, tmp_path / "bundle")
    assert names(tmp_path) == ["bundle"] and (tmp_path / "bundle" / "file").read_text() == "new"


def test_a_folder_replaces_an_older_one_of_which_nothing_is_left(tmp_path: Path, way: str) -> None:
    make(tmp_path / "bundle", "old")
    with folder_beside(tmp_path / "bundle") as folder:
        (folder / "file").write_text("new")
        put_in_place(folder, tmp_path / "bundle")
    assert names(tmp_path) == ["bundle"] and (tmp_path / "bundle" / "file").read_text() == "new"


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError, ValueError])
def test_a_failure_leaves_the_older_folder_alone(tmp_path: Path, failure: type[BaseException]) -> None:
    make(tmp_path / "bundle", "old")
    with pytest.raises(failure), folder_beside(tmp_path / "bundle"):
        raise failure
    assert names(tmp_path) == ["bundle"] and (tmp_path / "bundle" / "file").read_text() == "old"


def test_of_writers_at_once_the_last_one_stays(tmp_path: Path, way: str) -> None:
    make(tmp_path / "bundle", "old")
    with folder_beside(tmp_path / "bundle") as one, folder_beside(tmp_path / "bundle") as other:
        assert one.is_dir() and other.is_dir() and one != other
        for folder in (one, other):
            (folder / "file").write_text(folder.name)
            put_in_place(folder, tmp_path / "bundle")
        last = other.name
    assert names(tmp_path) == ["bundle"] and (tmp_path / "bundle" / "file").read_text() == last


@pytest.mark.parametrize("races", [1, 200])
def test_another_writer_that_comes_in_between_is_replaced_or_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, races: int
) -> None:
    """The other puts its folder in place each time just after the older one was set aside;
    only renaming leaves such a gap.
    """
    target, replace, left = make(tmp_path / "bundle", "old"), os.replace, [races]

    def racing(source: Path, destination: Path) -> None:
        replace(source, destination)
        if source == target and left[0]:
            left[0] -= 1
            make(target, "other")

    def cannot(*_: Any) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(writing, "_exchange", cannot)
    monkeypatch.setattr(writing.os, "replace", racing)
    with folder_beside(target) as folder:
        (folder / "file").write_text("new")
        if races == 1:
            put_in_place(folder, target)
        else:
            with pytest.raises(OSError, match="File exists"):
                put_in_place(folder, target)
    assert names(tmp_path) == ["bundle"] and (target / "file").read_text() == (
        "new" if races == 1 else "other"
    )


def test_what_a_killed_writer_left_is_swept_by_the_next_and_a_living_one_keeps_its_own(
    tmp_path: Path,
) -> None:
    dead, living = writer(tmp_path / "bundle"), writer(tmp_path / "bundle")
    try:
        kill(dead)
        assert len(names(tmp_path)) == 2
        with folder_beside(tmp_path / "bundle") as mine:
            left = [name for name in names(tmp_path) if name != mine.name]
            assert len(left) == 1 and (tmp_path / left[0] / "half").exists()
        assert names(tmp_path) == left
    finally:
        kill(living)
    sweep(tmp_path, "bundle")
    assert names(tmp_path) == []


def test_a_sweep_leaves_other_names_links_and_other_peoples_files(tmp_path: Path) -> None:
    for name in (
        ".other.0123abcd.building",
        ".bundle.0123abcd",
        ".bundle.building",
        "bundle.0123abcd.building",
        ".bundle.0123abcg.building",
    ):
        make(tmp_path / name, "kept")
    (tmp_path / ".bundle.01234567.building").symlink_to(make(tmp_path / "elsewhere", "kept"))
    before = names(tmp_path)
    sweep(tmp_path, "bundle")
    assert names(tmp_path) == before
    sweep(tmp_path)
    assert names(tmp_path) == [name for name in before if name != ".other.0123abcd.building"]


def test_an_older_folder_that_a_killed_writer_set_aside_comes_back(tmp_path: Path) -> None:
    """The gap between two renames, where names cannot be exchanged."""
    make(tmp_path / "bundle", "old")
    kill(writer(tmp_path / "bundle", 'os.rename(sys.argv[1], folder.with_suffix(".old"))'))
    aside = set_aside(tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists() and aside is not None and (aside / "file").read_text() == "old"
    with pytest.raises(ValueError), folder_beside(tmp_path / "bundle"):
        raise ValueError
    assert names(tmp_path) == ["bundle"] and (tmp_path / "bundle" / "file").read_text() == "old"
    assert set_aside(tmp_path / "bundle") is None


def test_a_folder_that_was_set_aside_goes_where_its_place_is_taken(tmp_path: Path) -> None:
    make(tmp_path / "bundle", "new")
    make(tmp_path / ".bundle.0123abcd.old", "old")
    sweep(tmp_path, "bundle")
    assert names(tmp_path) == ["bundle"] and (tmp_path / "bundle" / "file").read_text() == "new"


def test_a_file_beside_is_locked_until_it_is_closed(tmp_path: Path) -> None:
    path, lock = file_beside(tmp_path / "a.wav")
    sweep(tmp_path, "a.wav")
    assert path.read_bytes() == b""
    os.close(lock)
    sweep(tmp_path, "a.wav")
    assert names(tmp_path) == []


def test_a_folder_that_a_sweep_took_before_it_was_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = writing._lock
    taken: list[Path] = []

    def late(path: Path, kind: int) -> int | None:
        if not taken:
            taken.append(path)
            shutil.rmtree(path)
        return lock(path, kind)

    monkeypatch.setattr(writing, "_lock", late)
    with folder_beside(tmp_path / "bundle") as folder:
        assert folder.is_dir() and folder != taken[0]


def test_without_locks_nothing_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(writing.fcntl, "flock", cannot)
    make(tmp_path / ".bundle.0123abcd.building", "whose?")
    with folder_beside(tmp_path / "bundle") as folder:
        assert names(tmp_path) == sorted([".bundle.0123abcd.building", folder.name])
    assert names(tmp_path) == [".bundle.0123abcd.building"]
