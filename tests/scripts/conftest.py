"""Running the command line inside the test's process."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from typer.testing import CliRunner

from antiphon.scripts.cli import app

Result = tuple[int, str, str]


@pytest.fixture
def antiphon(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """antiphon(*arguments, stdin="") -> exit code, standard output, standard error."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object, stdin: str | bytes = "") -> Result:
        result = CliRunner().invoke(
            app, [str(argument) for argument in arguments], input=stdin, prog_name="antiphon"
        )
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return call
