"""The command `antiphon`: one module per command, and one place that decides exit codes.

Exit codes: 0 success; 1 a verification found an output out of tolerance; 2 bad input, with one sentence on
stderr; 130 interrupted, 143 terminated, 129 hung up.
"""

from __future__ import annotations

import functools
import io
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from .. import __version__
from ..runtime.bundle.errors import AntiphonError
from . import bench, build, inspect, interrupts, new_checkpoint, plugins, run, speak, verify
from .console import interrupt_is_handled
from .signals import ending, heed_signals

app = typer.Typer(
    name="antiphon",
    help="Compile omni-modal Thinker-Talker models into engines and run them as streaming conversations.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Entry point of the console script.

    A character that the terminal's encoding lacks is printed as a question mark.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    app()


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


def _one_sentence(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with errors turned into one sentence and an exit code: bad input, a full disk, missing
    memory, Ctrl-C, SIGTERM."""

    @functools.wraps(command)
    @heed_signals()
    def checked(*arguments: Any, **options: Any) -> None:
        try:
            with interrupts.raised():
                command(*arguments, **options)
                # A full disk is reported here, and Ctrl-C during the interpreter's exit loses no output.
                sys.stdout.flush()
        except AntiphonError as error:
            _fail(str(error), 2)
        except MemoryError:
            _fail("Out of memory; antiphon build CHECKPOINT --plan says how much each stage needs.", 2)
        except BrokenPipeError:  # the reader of the pipe is gone: typer ends quietly
            raise
        except OSError as error:
            _fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}.", 2)
        except KeyboardInterrupt as interrupt:  # its text, if any, tells what was kept
            interrupt_is_handled()
            _fail(*ending(interrupt))

    return checked


def _fail(sentence: str, code: int) -> None:
    print(f"antiphon: {sentence}", file=sys.stderr, flush=True)
    interrupts.is_said()  # a command prints one line, also if Ctrl-C follows
    raise typer.Exit(code)


app.command("new-checkpoint")(_one_sentence(new_checkpoint.new_checkpoint))
app.command("build")(_one_sentence(build.build))
app.command("run")(_one_sentence(run.run))
app.command("speak")(_one_sentence(speak.speak))
app.command("inspect")(_one_sentence(inspect.inspect))
app.command("verify")(_one_sentence(verify.verify))
app.command("bench")(_one_sentence(bench.bench))
plugins_app = typer.Typer(help="The ops of ai.antiphon as GPU kernels.", no_args_is_help=True)
plugins_app.command("list")(_one_sentence(plugins.list_plugins))
plugins_app.command("compile")(_one_sentence(plugins.compile_plugins))
plugins_app.command("check")(_one_sentence(plugins.check_plugins))
app.add_typer(plugins_app, name="plugins")
