"""Ctrl-C in the process of the command: one line and exit code 130, from the first line of the package to the end of the interpreter.

A process has three times, and each needs its answer. While it starts, it imports: a KeyboardInterrupt comes out of a C extension's import as another
error or not at all, and nothing is half-written, so the process says its line and ends on the spot. While a command works, it may have files to take
away: KeyboardInterrupt is raised, but not inside an import, if that takes no more than seconds. When the command is over, the process ends on the spot again.

A program that imports the package as a library keeps its own handling of signals: nothing here has an effect in it, nor where SIGINT is ignored (a shell's
background job) or handled by somebody else. The first line of the package imports this module, so it imports only what every interpreter has loaded.
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
_PATIENCE_SECONDS = 5.0  # after which an import is interrupted all the same

_is_ours = False  # whether this process is the command and heeds Ctrl-C as told above
_line = b"antiphon: Interrupted.\n"
_waits_since: float | None = None  # when Ctrl-C came inside the import that is under way


def heed() -> None:
    """From now on Ctrl-C ends the process on the spot, if it is the command and SIGINT is handled as Python does by itself."""
    global _is_ours
    if not is_the_command():
        return
    import atexit
    import signal

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
        # Registered first, this runs last. The interpreter takes its handlers away next, and a Ctrl-C would kill a process that has done everything.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
        _is_ours = True


def is_the_command() -> bool:
    """Whether this process is `python -m antiphon` or a console script of any name; asked while the package is being imported."""
    arguments = getattr(sys, "argv", None)
    if arguments and arguments[0] == "-m":  # until runpy has found the module
        return sys.orig_argv[-len(arguments)] in ("antiphon", "-mantiphon")
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_globals.get("__name__") != "__main__":
        frame = frame.f_back
    # what installers write into a console script: from antiphon.scripts.cli import main
    return frame is not None and {"antiphon.scripts.cli", "main"} <= set(frame.f_code.co_names)


def leave() -> None:
    """Say the line and end the process, with what standard output still holds."""
    _leave(0, None)


def is_said() -> None:
    """The command has said by itself why it ends: another Ctrl-C prints nothing."""
    global _line
    _line = b""


class Handling:
    """A `with` block that `handler` is called in at SIGINT; without effect in a process that is not the command."""

    def __init__(self, handler: "Handler") -> None:
        self._handler = handler

    def __enter__(self) -> None:
        if _is_ours:
            import signal
            import threading  # noqa: F401  # not for the first time inside a handler

            self._before = signal.signal(signal.SIGINT, self._handler)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None") -> None:
        if _is_ours:
            import signal

            signal.signal(signal.SIGINT, self._before)


def raised() -> Handling:
    """A command at work: Ctrl-C raises KeyboardInterrupt, as soon as no import is under way or after five seconds of waiting for one."""
    return Handling(_raise)


def ending_at_once() -> Handling:
    """A command before its work, importing what that needs: Ctrl-C ends the process on the spot. Nothing may be half-written or half-drawn."""
    return Handling(_leave)


def _leave(number: int, frame: "FrameType | None") -> None:
    try:
        os.write(2, _line)
        sys.stdout.flush()
    except (AttributeError, OSError, RuntimeError, ValueError):  # closed, full, or just being flushed: the process ends all the same
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
