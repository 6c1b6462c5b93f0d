"""A build that is ended, by whatever: the old bundle or none, and nothing of its own stays for long."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import antiphon
from antiphon.export.build import build
from antiphon.runtime.bundle.manifest import check_hashes, read_manifest

SLOW = """
import sys, time
from antiphon.export import build as building
real = building.hash_folder
def slow(folder):
    print("whole", flush=True)
    time.sleep(60)
building.hash_folder = slow
from antiphon.scripts.cli import main
main()
"""
"""The command, which stops before its bundle gets a manifest."""


def environment() -> dict[str, str]:
    """For a process that runs this very package."""
    return os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(antiphon.__file__).parent.parent), *sys.path]),
        "OMP_NUM_THREADS": "1",
    }


def start(checkpoint: Path, bundle: Path) -> subprocess.Popen[str]:
    """A build that has written all but its manifest, and waits."""
    command = [sys.executable, "-c", SLOW, "build", str(checkpoint), str(bundle)]
    process = subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "whole\n"
    return process


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_terminated_build_leaves_the_old_bundle_and_says_so_in_one_line(
    tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    old = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    process = start(tiny_checkpoint, old)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (143, "", "antiphon: Terminated.\n")
    check_hashes(old)
    assert names(tmp_path) == ["bundle"]


def test_what_a_killed_build_left_goes_with_the_next_and_two_builds_at_once_do_not_meet(
    tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    killed, living = start(tiny_checkpoint, tmp_path / "bundle"), start(tiny_checkpoint, tmp_path / "bundle")
    try:
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        assert len(names(tmp_path)) == 2
        build(tiny_checkpoint, tmp_path / "bundle")
        left = [name for name in names(tmp_path) if name != "bundle"]
        assert len(left) == 1 and (tmp_path / left[0] / "stages" / "code2wav" / "engine.onnx").exists(), (
            "that of the living one is whole"
        )
        assert read_manifest(tmp_path / "bundle").hashes == read_manifest(tiny_bundle).hashes
    finally:
        living.send_signal(signal.SIGTERM)
        living.communicate()
    assert living.returncode == 143 and names(tmp_path) == ["bundle"]


def test_builds_at_once_into_one_folder_all_end_with_a_whole_bundle(
    tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(lambda _: build(tiny_checkpoint, tmp_path / "bundle"), range(3)))
    check_hashes(tmp_path / "bundle")
    assert read_manifest(tmp_path / "bundle") in made and names(tmp_path) == ["bundle"]


DISKS = """
import json, os, subprocess, sys
from pathlib import Path
from typer.testing import CliRunner
from antiphon.export.cache import StageCache
from antiphon.scripts.cli import app
checkpoint, disk, stage = sys.argv[1:]

def with_disk(options, work):
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk]).returncode:
        sys.exit(77)
    try:
        found = work()
        return [*found, sorted(os.listdir(disk))]
    finally:
        subprocess.run(["umount", disk], check=True)

def build():
    result = CliRunner().invoke(app, ["build", checkpoint, disk + "/bundle"])
    return [result.exit_code, result.stdout, result.stderr]

def store():
    StageCache(Path(disk)).store("talker", {}, Path(stage), {})
    return os.listdir(disk + "/talker")

found = {size: with_disk(f"size={size}k", build) for size in (40, 200, 3000, 12000)}
print(json.dumps({**found, "read-only": with_disk("ro", build), "cache": with_disk("size=1000k", store)}))
"""
"""Builds on file systems of their own, which no other process sees."""


@pytest.fixture(scope="module")
def disks(
    tiny_checkpoint: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """Exit code, output, errors and what is left of a build on disks of some sizes in KiB and on a read-only
    one; what a full cache keeps.
    """
    disk = tmp_path_factory.mktemp("disk")
    if shutil.which("unshare") is None:
        pytest.skip("needs the program unshare, to mount a small file system")
    command = [
        "unshare",
        "--mount",
        sys.executable,
        "-c",
        DISKS,
        str(tiny_checkpoint),
        str(disk),
        str(tiny_bundle / "stages" / "talker"),
    ]
    found = subprocess.run(command, capture_output=True, text=True, env=environment())
    if found.returncode == 77 or found.stderr.startswith("unshare:"):
        pytest.skip(f"mounting a small file system is not allowed here: {found.stderr.strip()}")
    assert found.returncode == 0, found.stderr
    return disk / "bundle", json.loads(found.stdout)


@pytest.mark.parametrize("kilobytes", ["40", "200", "3000", "12000"])
def test_a_full_disk_is_said_and_leaves_nothing(disks: tuple[Path, dict[str, Any]], kilobytes: str) -> None:
    """It fills up in the front end, in a stage's weights, and between stages."""
    bundle, found = disks
    sentence = (
        f"No space left on the disk of {bundle} while building; "
        "free some (antiphon build --plan says how much) and try again."
    )
    assert found[kilobytes] == [2, "", f"antiphon: {sentence}\n", []]


def test_a_read_only_disk_is_said(disks: tuple[Path, dict[str, Any]]) -> None:
    bundle, found = disks
    sentence = f"Cannot write the bundle {bundle} (Read-only file system); give a folder that can be written."
    assert found["read-only"] == [2, "", f"antiphon: {sentence}\n", []]


def test_a_full_cache_keeps_nothing_and_fails_no_build(disks: tuple[Path, dict[str, Any]]) -> None:
    assert disks[1]["cache"] == [["talker"]]
