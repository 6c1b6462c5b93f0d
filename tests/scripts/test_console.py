"""Units, tables and the progress bar."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from antiphon.scripts import console


def test_units_are_for_people() -> None:
    assert [console.seconds(value) for value in (None, 0.0123, 1.5, 125.0)] == [
        "-",
        "12.3 ms",
        "1.50 s",
        "2 min 5 s",
    ]
    assert [console.size(value) for value in (None, 17, 2048, 5 * 2**20, 3 * 2**30)] == [
        "-",
        "17 B",
        "2.0 KiB",
        "5.0 MiB",
        "3.0 GiB",
    ]
    assert [console.count(value) for value in (17, 1500, 2_000_000, 30_500_000_000)] == [
        "17",
        "1.5 k",
        "2.0 M",
        "30.5 B",
    ]


def test_a_table_in_a_pipe_is_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    reason = "changed since the closest build: weights, configuration, antiphon code, version of torch"
    console.print_table("title", ("stage", "why"), [["thinker", reason]])
    assert reason in capsys.readouterr().out


def test_cells_are_printed_as_they_are_and_not_as_markup(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_table("", ("path",), [["[bold]folder[/bold]"]])
    assert "[bold]folder[/bold]" in capsys.readouterr().out


def test_a_pipe_sees_nothing_of_the_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress_bar() as report:
        report("thinker: writing weights", 1, 2, 3.0)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_sees_what_is_done_and_the_time_to_go(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    with console.progress_bar() as report:
        report("thinker: writing weights", 1, 2, 3.0)
    output, error = capsys.readouterr()
    assert output == ""
    assert "thinker: writing weights" in error and "50 %" in error and "3.00 s to go" in error


def test_an_interrupt_out_of_source_text_does_not_decide_the_exit_code(tmp_path: Path) -> None:
    lines = (
        "import sys\nfrom antiphon.scripts.console import interrupt_is_handled\ntry:\n"
        "    exec('raise KeyboardInterrupt')\nexcept KeyboardInterrupt:\n"
    )
    (tmp_path / "interrupted.py").write_text(lines + "    interrupt_is_handled()\n    sys.exit(130)\n")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    }
    assert subprocess.run([sys.executable, "-m", "interrupted"], env=environment).returncode == 130
