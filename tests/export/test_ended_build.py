"""A build that is ended, by whatever: the old bundle or none, and nothing of its own stays for long."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

import antiphon  # noqa: E402
from antiphon.export.build import build  # noqa: E402
from antiphon.runtime.bundle import check_hashes, read_manifest  # noqa: E402

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
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(antiphon.__file__).parent.parent), *sys.path]), "OMP_NUM_THREADS": "1"}


def start(checkpoint: Path, bundle: Path) -> subprocess.Popen[str]:
    """A build that has written all but its manifest, and waits."""
    command = [sys.executable, "-c", SLOW, "build", str(checkpoint), str(bundle)]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "whole\n"
    return process


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("number", "code", "line"), [(signal.SIGTERM, 143, "Terminated."), (signal.SIGHUP, 129, "The terminal hung up.")])
def test_a_terminated_build_leaves_the_old_bundle_and_says_so_in_one_line(
    tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path, number: signal.Signals, code: int, line: str
) -> None:
    old = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    process = start(tiny_checkpoint, old)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (code, "", f"antiphon: {line}\n")
    check_hashes(old)
    assert names(tmp_path) == ["bundle"]


def test_what_a_killed_build_left_goes_with_the_next_and_two_builds_at_once_do_not_meet(tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    killed, living = start(tiny_checkpoint, tmp_path / "bundle"), start(tiny_checkpoint, tmp_path / "bundle")
    try:
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        assert len(names(tmp_path)) == 2
        build(tiny_checkpoint, tmp_path / "bundle")
        left = [name for name in names(tmp_path) if name != "bundle"]
        assert len(left) == 1 and (tmp_path / left[0] / "stages" / "code2wav" / "engine.onnx").exists(), "that of the living one is whole"
        assert read_manifest(tmp_path / "bundle").hashes == read_manifest(tiny_bundle).hashes
    finally:
        living.send_signal(signal.SIGTERM)
        living.communicate()
    assert living.returncode == 143 and names(tmp_path) == ["bundle"]


def test_builds_at_once_into_one_folder_all_end_with_a_whole_bundle(tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "antiphon", "build", str(tiny_checkpoint), str(tmp_path / "bundle")]
    both = [subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ended = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    check_hashes(tmp_path / "bundle")
    assert names(tmp_path) == ["bundle"]


def mounted(tmp_path: Path, options: str, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run `command` where `tmp_path`/disk is a file system of its own, which no other process sees; then list it. Skips where nobody may mount."""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = 'mount -t tmpfs -o "$1" tmpfs "$0" || exit 77; shift; "$@"; code=$?; ls -A "$0"; exit $code'
    found = subprocess.run(["unshare", "--mount", "sh", "-c", script, str(disk), options, *command], capture_output=True, text=True, env=environment())
    if found.returncode == 77 or "unshare" in found.stderr:
        pytest.skip(f"mounting a small file system is not allowed here: {found.stderr.strip()}")
    return found


needs_mount = pytest.mark.skipif(shutil.which("unshare") is None, reason="needs the program unshare to mount a small file system")


@needs_mount
@pytest.mark.parametrize("kilobytes", [40, 200, 3000, 12000])
def test_a_full_disk_is_said_and_leaves_nothing(tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path, kilobytes: int) -> None:
    command = [sys.executable, "-m", "antiphon", "build", str(tiny_checkpoint), str(tmp_path / "disk" / "bundle")]
    found = mounted(tmp_path, f"size={kilobytes}k", command)
    sentence = f"No space left on the disk of {tmp_path}/disk/bundle while building; free some (antiphon build --plan says how much) and try again."
    assert (found.returncode, found.stdout, found.stderr) == (2, "", f"antiphon: {sentence}\n")


@needs_mount
def test_a_full_disk_while_a_stage_is_made_is_said_and_leaves_nothing(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Without the cache: the exporter and the writer of graphs meet the full disk."""
    command = [sys.executable, "-m", "antiphon", "build", str(tiny_checkpoint), str(tmp_path / "disk" / "bundle"), "--no-cache"]
    found = mounted(tmp_path, "size=880k", command)  # the weights fit, the graphs do not
    assert (found.returncode, found.stdout) == (2, "") and found.stderr.startswith("antiphon: No space left on the disk of "), found.stderr


@needs_mount
def test_a_full_cache_is_no_reason_to_fail_a_build(tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from antiphon.export.cache import StageCache\n"
        "source = Path(sys.argv[2])\nStageCache(Path(sys.argv[1])).store('talker', {}, source, {})\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "disk"), str(tiny_bundle / "stages" / "talker")]
    found = mounted(tmp_path, "size=1000k", command)
    assert (found.returncode, found.stdout, found.stderr) == (0, "talker\n", "")


@needs_mount
def test_a_read_only_disk_is_said(tiny_checkpoint: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "antiphon", "build", str(tiny_checkpoint), str(tmp_path / "disk" / "bundle")]
    found = mounted(tmp_path, "ro", command)
    sentence = f"Cannot write the bundle {tmp_path}/disk/bundle (Read-only file system); give a folder that can be written."
    assert (found.returncode, found.stdout, found.stderr) == (2, "", f"antiphon: {sentence}\n")
