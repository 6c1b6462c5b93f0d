"""Ctrl-C in the process of the command: one line and exit code 130, at any time of the process.

A process has three phases. At the start it imports: a KeyboardInterrupt in the import of a C extension
appears as another error or is lost. Nothing is half-written yet, so the process prints its line and ends at
once. While a command works, it may have files to remove: KeyboardInterrupt is raised, but not inside an
import, unless that takes longer than a few seconds. When the command is over, Ctrl-C again ends the process
at once.

A program that imports the package as a library keeps its own handling of signals: nothing here affects it.
The same holds where SIGINT is ignored (a shell's background job) or has another handler. The first line of
the package imports this module, so it imports only modules that every interpreter has loaded.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType

    Handler = Callable[[int, FrameType | None], None]

EXIT_CODE = 130
_IMPORT_SYSTEM = "<frozen importlib._bootstrap>"
_RETRY_SECONDS = 0.02
_PATIENCE_SECONDS = 5.0  # then an import is interrupted after all

_is_ours = False  # whether this process is the command and handles Ctrl-C as described above
_line = b"antiphon: Interrupted.\n"
_waits_since: float | None = None  # time of a Ctrl-C during the current import


def heed() -> None:
    """From now on Ctrl-C ends the process at once, if it is the command and SIGINT has Python's default
    handler."""
    global _is_ours
    if not is_the_command():
        return
    import atexit
    import signal

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
        # Registered first, so it runs last. Then the interpreter removes its handlers, and a Ctrl-C would
        # kill a process that is already done.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
        _is_ours = True


def is_the_command() -> bool:
    """Whether this process is `python -m antiphon` or a console script of any name.

    Called during the package's import.
    """
    arguments = getattr(sys, "argv", None)
    if arguments and arguments[0] == "-m":  # until runpy has found the module
        return sys.orig_argv[-len(arguments)] in ("antiphon", "-mantiphon")
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_globals.get("__name__") != "__main__":
        frame = frame.f_back
    # Installers write into a console script: from antiphon.scripts.cli import main
    return frame is not None and {"antiphon.scripts.cli", "main"} <= set(frame.f_code.co_names)


def leave() -> None:
    """Print the line, flush standard output and end the process."""
    _leave(0, None)


def is_said() -> None:
    """Record that the command has printed why it ends: another Ctrl-C prints nothing."""
    global _line
    _line = b""


class Handling:
    """A `with` block in which `handler` handles SIGINT; it has no effect in a process that is not the
    command."""

    def __init__(self, handler: "Handler") -> None:
        self._handler = handler

    def __enter__(self) -> None:
        if _is_ours:
            import signal
            import threading  # noqa: F401  # a handler must not be the first to import it

            self._before = signal.signal(signal.SIGINT, self._handler)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        if _is_ours:
            import signal

            signal.signal(signal.SIGINT, self._before)


def raised() -> Handling:
    """For a command at work: Ctrl-C raises KeyboardInterrupt, after the current import but at most five
    seconds later."""
    return Handling(_raise)


def ending_at_once() -> Handling:
    """For a command that imports before its work: Ctrl-C ends the process at once.

    Nothing may be half-written or half-drawn.
    """
    return Handling(_leave)


def _leave(number: int, frame: "FrameType | None") -> None:
    try:
        os.write(2, _line)
        sys.stdout.flush()
    except (AttributeError, OSError, RuntimeError, ValueError):  # closed, full or being flushed
        pass
    os._exit(EXIT_CODE)


def _raise(number: int, frame: "FrameType | None") -> None:
    global _waits_since
    import _thread
    import time
    from threading import Timer

    _waits_since = _waits_since or time.monotonic()
    while frame is not None and time.monotonic() < _waits_since + _PATIENCE_SECONDS:
        if frame.f_code.co_filename == _IMPORT_SYSTEM:
            Timer(_RETRY_SECONDS, _thread.interrupt_main).start()
            return
        frame = frame.f_back
    _waits_since = None
    raise KeyboardInterrupt
