"""Antiphon: Thinker-Talker models compiled into engines and chained into streaming conversations.

    bundle = antiphon.build("checkpoint", "bundle")
    with antiphon.load("bundle") as omni:
        reply = omni.generate([{"role": "user", "content": "Hello"}])

Importing this package imports neither an engine library nor torch: every name below is
fetched when it is first used.
"""

# built into the interpreter and loaded with it: importing it runs nothing
import _signal  # type: ignore[import-not-found]

# Ctrl-C waits until somebody heeds it: raised in the midst of the import system it can be printed and lost.
_mask = getattr(_signal, "pthread_sigmask", lambda how, signals: signals)  # Windows has none
try:
    _before = _mask(getattr(_signal, "SIG_BLOCK", 0), ())
    try:
        _mask(getattr(_signal, "SIG_BLOCK", 0), (_signal.SIGINT,))
        from .scripts import interrupts

        interrupts.heed()
    finally:
        _mask(getattr(_signal, "SIG_SETMASK", 0), _before)
except KeyboardInterrupt:  # it came before it was made to wait, or the process is not the command
    from .scripts import interrupts

    if interrupts.is_the_command():
        interrupts.leave()
    raise

from importlib import import_module  # noqa: E402

from .runtime.bundle.version import VERSION as __version__  # noqa: E402

TYPE_CHECKING = False  # as type checkers read it, without the 5 ms of importing typing
if TYPE_CHECKING:
    from .export.build import build
    from .export.verify.verify import verify
    from .graphs.random.new_checkpoint import new_checkpoint
    from .runtime.bundle.errors import (
        AntiphonError,
        BrokenBundle,
        Busy,
        Closed,
        ContextFull,
        InvalidInput,
        MissingExtra,
        UnsupportedTarget,
    )
    from .runtime.events import AudioDelta, Done, Reply, TextDelta
    from .runtime.frontend.media.media_policy import MediaPolicy
    from .runtime.omni import Omni, load

__all__ = [
    "AntiphonError",
    "AudioDelta",
    "BrokenBundle",
    "Busy",
    "Closed",
    "ContextFull",
    "Done",
    "InvalidInput",
    "MediaPolicy",
    "MissingExtra",
    "Omni",
    "Reply",
    "TextDelta",
    "UnsupportedTarget",
    "__version__",
    "build",
    "load",
    "new_checkpoint",
    "verify",
]

_HOMES = {
    "AntiphonError": "runtime.bundle.errors",
    "AudioDelta": "runtime.events",
    "BrokenBundle": "runtime.bundle.errors",
    "Busy": "runtime.bundle.errors",
    "Closed": "runtime.bundle.errors",
    "ContextFull": "runtime.bundle.errors",
    "Done": "runtime.events",
    "InvalidInput": "runtime.bundle.errors",
    "MediaPolicy": "runtime.frontend.media.media_policy",
    "MissingExtra": "runtime.bundle.errors",
    "Omni": "runtime.omni",
    "Reply": "runtime.events",
    "TextDelta": "runtime.events",
    "UnsupportedTarget": "runtime.bundle.errors",
    "build": "export.build",
    "load": "runtime.omni",
    "new_checkpoint": "graphs.random.new_checkpoint",
    "verify": "export.verify.verify",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if _HOMES[name].startswith("export."):
        from .runtime.bundle.errors import require_extra

        require_extra("build", f"antiphon.{name}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
