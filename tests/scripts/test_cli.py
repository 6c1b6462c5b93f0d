"""The command as a whole: its commands, its exit codes, and that its reference page tells all of it."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.scripts import cli

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"
COMMANDS = {
    f"{name} {part}".strip(): command
    for name, found in typer.main.get_command(cli.app).commands.items()
    for part, command in (found.commands.items() if hasattr(found, "commands") else [("", found)])
}


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (
            AntiphonError("The checkpoint has no config.json."),
            2,
            "antiphon: The checkpoint has no config.json.\n",
        ),
        (
            MemoryError(),
            2,
            "antiphon: Out of memory; antiphon build CHECKPOINT --plan says how much each stage needs.\n",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", "answer.wav"),
            2,
            "antiphon: No space left on device: answer.wav.\n",
        ),
        (KeyboardInterrupt(), 130, "antiphon: Interrupted.\n"),
        (KeyboardInterrupt("Interrupted; a.wav is whole."), 130, "antiphon: Interrupted; a.wav is whole.\n"),
    ],
)
def test_what_goes_wrong_is_one_sentence_and_an_exit_code(
    error: BaseException, code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        raise error

    with pytest.raises(typer.Exit) as ending:
        cli._one_sentence(command)()
    assert ending.value.exit_code == code
    assert capsys.readouterr() == ("", sentence)


def test_an_error_of_our_own_making_keeps_its_traceback() -> None:
    def command() -> None:
        raise AssertionError("a bug")

    with pytest.raises(AssertionError):
        cli._one_sentence(command)()


def test_an_unknown_command_or_option_is_named_and_exits_with_2(antiphon) -> None:
    for arguments in (["sing"], ["run", "bundle", "--loud"], ["build"]):
        code, output, error = antiphon(*arguments)
        assert (code, output) == (2, "")
        assert "Traceback" not in error and "Error:" in error


def test_the_version_is_printed(antiphon) -> None:
    import antiphon as package

    assert antiphon("--version") == (0, f"{package.__version__}\n", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_what_it_does_and_what_its_options_mean(name: str, antiphon) -> None:
    code, output, _ = antiphon(*name.split(), "--help")
    assert code == 0
    assert all(
        getattr(parameter, "help", "")
        for parameter in COMMANDS[name].params
        if "--help" not in parameter.opts
    )
    assert f"antiphon {name}" in output


def test_the_reference_page_lists_exactly_the_commands_and_their_options() -> None:
    sections = re.split(
        r"^## antiphon ((?:plugins )?[\w-]+).*$",
        PAGE.read_text(encoding="utf-8").split("## Exit codes")[0],
        flags=re.M,
    )[1:]
    listed = {
        name: set(re.findall(r"`(--[\w-]+)`", "\n".join(re.findall(r"^\| (`--.*?) \|", text, re.M))))
        for name, text in zip(sections[::2], sections[1::2], strict=True)
    }
    options = {
        name: {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
        for name, command in COMMANDS.items()
    }
    assert listed == {name: found - {"--help"} for name, found in options.items()}


def test_a_terminal_that_is_not_utf_8_shows_question_marks() -> None:
    code = "from antiphon.scripts import cli\ncli.app = lambda: print('gr\\u00fcn \\udcff')\ncli.main()"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "ascii"}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (found.stdout, found.stderr) == ("gr?n ?\n", "")
