"""The WAV file that grows."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.scripts.wav_file import WavFile

SAMPLES = np.linspace(-0.5, 0.5, 1000, dtype=np.float32)


def test_the_file_holds_all_packets_in_order(tmp_path: Path) -> None:
    with WavFile(tmp_path / "a.wav", 24000) as file:
        file.write(SAMPLES[:300])
        file.write(SAMPLES[300:])
    found, rate = soundfile.read(tmp_path / "a.wav", dtype="float32")
    assert rate == 24000
    np.testing.assert_allclose(found, SAMPLES, atol=2**-15)


def test_values_beyond_full_scale_are_clipped_not_wrapped(tmp_path: Path) -> None:
    with WavFile(tmp_path / "a.wav", 24000) as file:
        file.write(np.array([2.0, -2.0], np.float32))
    found, _ = soundfile.read(tmp_path / "a.wav")
    assert found[0] > 0.99 and found[1] < -0.99


def test_what_was_said_is_kept_when_interrupted(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), WavFile(tmp_path / "a.wav", 24000) as file:
        file.write(SAMPLES)
        raise KeyboardInterrupt
    assert soundfile.info(tmp_path / "a.wav").frames == len(SAMPLES)


@pytest.mark.parametrize("packets", [0, 1])
def test_an_older_file_stays_and_nothing_is_left_beside_it_after_an_error(
    tmp_path: Path, packets: int
) -> None:
    older = tmp_path / "a.wav"
    older.write_bytes(b"older")
    with pytest.raises(RuntimeError), WavFile(older, 24000) as file:
        file.write(SAMPLES[: packets * 100])
        raise RuntimeError
    assert older.read_bytes() == b"older" and list(tmp_path.iterdir()) == [older]


def test_no_file_without_a_sample(tmp_path: Path) -> None:
    with WavFile(tmp_path / "a.wav", 24000):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("a.mp3", "not a .wav"), ("nowhere/a.wav", "does not exist"), ("folder.wav", "is a folder")],
)
def test_a_path_that_cannot_become_a_wav_file_is_refused(tmp_path: Path, name: str, complaint: str) -> None:
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(AntiphonError, match=complaint):
        WavFile(tmp_path / name, 24000)


def test_a_link_stays_and_its_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link, target = tmp_path / "a.wav", tmp_path / "there" / "b.wav"
    link.symlink_to(target)
    with WavFile(link, 24000) as file:
        file.write(SAMPLES)
    assert (
        link.is_symlink()
        and soundfile.info(target).frames == len(SAMPLES)
        and list(target.parent.iterdir()) == [target]
    )


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of file sizes")
def test_a_disk_that_takes_no_more_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import resource, sys, numpy\nresource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))\n"
        "from pathlib import Path\nfrom antiphon.scripts import cli, wav_file\n"
        "def say():\n    with wav_file.WavFile(Path(sys.argv[1]), 24000) as file:\n"
        "        [file.write(numpy.zeros(9000)) for _ in range(9)]\n"
        "import typer\ntry:\n    cli._one_sentence(say)()\nexcept typer.Exit as ending:\n"
        "    sys.exit(ending.exit_code)"
    )
    path = tmp_path / "a.wav"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, env=environment
    )
    assert found.returncode == 2 and found.stderr.startswith(
        f"antiphon: Cannot write {path} (is the disk full?): "
    ), found.stderr
    assert found.stderr.count("\n") == 1 and list(tmp_path.iterdir()) == []


def test_a_rename_that_fails_is_said_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(Path, "replace", fail)
    with (
        pytest.raises(AntiphonError, match="Cannot write .*a.wav .*quota"),
        WavFile(tmp_path / "a.wav", 24000) as file,
    ):
        file.write(SAMPLES)
    assert list(tmp_path.iterdir()) == [] and not file.kept
