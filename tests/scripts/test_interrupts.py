"""Ctrl-C at any moment of the command's process: one line, exit code 130,
and no effect on a program that only imports the package.

A finder of modules that the interpreter loads from `sitecustomize` writes into a pipe when the
package's first line imports its first module, so the delays count from there, however long a busy
machine takes until then.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

LINE = "antiphon: Interrupted.\n"
SIGNALS, SECONDS = 24, 0.5
MARKER = """
import os, sys
def mark():
    os.write(int(os.environ["MARK"]), b".")
class FirstLine:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("antiphon."):
            sys.meta_path.remove(self)
            mark()
if "MARK" in os.environ:
    {when}
"""
AT_THE_FIRST_LINE = "sys.meta_path.insert(0, FirstLine())"
# as installers write it
SCRIPT = (
    "import sys\nfrom antiphon.scripts.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n"
)
ENDING_SLOWLY = """
from antiphon.scripts.cli import app, main, _one_sentence
import atexit, sitecustomize, time
atexit.register(lambda: (sitecustomize.mark(), time.sleep(20)))
"""
Interrupted = Callable[..., tuple[int, str, str]]

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to one process")


@pytest.fixture
def interrupted(tmp_path: Path) -> Interrupted:
    """interrupted(program and arguments, delay=seconds from the mark, when=line of `MARKER`) -> exit code,
    standard output, standard error.
    """

    def call(*program: str, delay: float = 0.0, when: str = AT_THE_FIRST_LINE) -> tuple[int, str, str]:
        (tmp_path / "sitecustomize.py").write_text(MARKER.format(when=when))
        reading, writing = os.pipe()
        path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {"PYTHONPATH": path, "MARK": str(writing)}
        command = [sys.executable, *program]
        process = subprocess.Popen(
            command,
            env=environment,
            pass_fds=[writing],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        os.close(writing)
        assert os.read(reading, 1) == b"."
        os.close(reading)
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        output, error = process.communicate(timeout=120)
        return process.returncode, output, error

    return call


@pytest.fixture
def script(tmp_path: Path) -> str:
    """A console script."""
    (tmp_path / "speak").write_text(SCRIPT)
    return str(tmp_path / "speak")


@pytest.mark.parametrize(
    "command",
    [
        "--version",
        "inspect BUNDLE",
        "run BUNDLE hi",
        "build CHECKPOINT --plan",
        "new-checkpoint NEW",
        "plugins list",
        "verify BUNDLE CHECKPOINT",
    ],
)
def test_ctrl_c_after_the_first_line_is_one_line_and_130(
    command: str, interrupted: Interrupted, script: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    places = {"BUNDLE": str(bundle), "CHECKPOINT": str(tiny_checkpoint), "NEW": str(tmp_path / "new")}
    arguments = [places.get(word, word) for word in command.split()]
    for number in range(SIGNALS):
        program = [script] if number % 2 else ["-m", "antiphon"]
        code, output, error = interrupted(*program, *arguments, delay=SECONDS * number / (SIGNALS - 1))
        # it was faster than the signal, which may still have come between its own sentence and its end
        own_sentence = error.startswith("antiphon: ") and error.count("\n") == 1
        finished = number > 0 and LINE not in error and (code != 130 or own_sentence)
        assert finished or (code, error) == (130, LINE), (
            f"{program}, signal {number}: {code}\n{output}\n{error}"
        )
        assert "Traceback" not in error


def test_the_first_line_itself_is_interrupted_in_one_line(interrupted: Interrupted, script: str) -> None:
    for program in (["-m", "antiphon"], [script], ["-c", SCRIPT]):
        assert interrupted(*program, "--version") == (130, "", LINE)


def test_an_import_under_way_ends_before_the_command_is_interrupted(
    interrupted: Interrupted, tmp_path: Path
) -> None:
    """An extension that turns every error of its own import into an ImportError, as several do."""
    slow = "import os, time\ntry:\n    os.write(int(os.environ['MARK']), b'.')\n    time.sleep(0.5)\n"
    slow += "except BaseException:\n    raise ImportError('initialization failed')\n"
    (tmp_path / "extension.py").write_text(slow)
    code = (
        "from antiphon.scripts.cli import app, main, _one_sentence\n\n\ndef work():\n    try:\n"
        "        import extension\n"
    )
    code += (
        "        while True: pass\n    finally:\n        print('cleaned up')\n\n\n"
        "app.command('work')(_one_sentence(work))\nmain()\n"
    )
    assert interrupted("-c", code, "work", when="pass") == (130, "cleaned up\n", LINE)


def test_ctrl_c_while_the_interpreter_ends_is_one_line_and_loses_no_output(interrupted: Interrupted) -> None:
    code, output, error = interrupted("-c", f"{ENDING_SLOWLY}main()", "--version", when="pass")
    assert (code, error) == (130, LINE)
    assert len(output.splitlines()) == 1


def test_a_second_ctrl_c_prints_no_second_line(interrupted: Interrupted) -> None:
    code = (
        f"{ENDING_SLOWLY}def work():\n    raise KeyboardInterrupt\n\n\n"
        "app.command('work')(_one_sentence(work))\nmain()\n"
    )
    assert interrupted("-c", code, "work", when="pass") == (130, "", LINE)


@pytest.mark.parametrize(
    "program", ["import antiphon", "import antiphon.scripts.cli", "from antiphon.scripts import cli"]
)
def test_a_program_that_imports_the_package_keeps_its_handling_of_signals(
    program: str, tmp_path: Path
) -> None:
    check = "import signal\nassert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
    (tmp_path / "antiphon.exe").write_text(f"{program}\n{check}")
    (tmp_path / "host.py").write_text(f"{program}\n{check}")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    }
    for command in ([str(tmp_path / "antiphon.exe")], ["-m", "host"], ["-c", f"{program}\n{check}"]):
        subprocess.run([sys.executable, *command], env=environment, check=True)


def test_a_command_that_was_started_with_interrupts_ignored_ignores_them(interrupted: Interrupted) -> None:
    code, output, error = interrupted(
        "-m",
        "antiphon",
        "--version",
        when=f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); {AT_THE_FIRST_LINE}",
    )
    assert (code, error) == (0, "") and output
