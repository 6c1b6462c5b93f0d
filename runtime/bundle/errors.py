"""The errors that a user of Antiphon sees, by kind, and how a missing extra is found."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager


class AntiphonError(Exception):
    """What went wrong, said in one sentence: what, expected, found, what to do. One that is of none of the kinds below is of this class itself.

    The command line prints the sentence and exits with code 2; a traceback is never shown for it.
    """


class InvalidInput(AntiphonError):
    """A message, a piece of media, an option or the order of calls is not what it has to be: the same call fails again."""


class ContextFull(AntiphonError):
    """What was asked for does not fit into the context of the Thinker or the Talker: a shorter one may."""


class Busy(AntiphonError):
    """Other work takes the place that this needs: the same call may succeed later."""


class Closed(AntiphonError):
    """The Omni, the conversation or the reply has ended, or belongs to the process that this one was forked from: load the bundle again."""


class BrokenBundle(AntiphonError):
    """There is no whole bundle in the folder, or what it holds contradicts itself: copy or build it again."""


class UnsupportedTarget(AntiphonError):
    """The target, the engine kind or the precision is none that this Antiphon, this machine or this bundle has."""


class MissingExtra(AntiphonError):
    """A package of an optional extra is not installed."""


EXTRAS: dict[str, tuple[str, ...]] = {
    "build": ("torch", "onnx", "onnx_ir", "onnxscript", "safetensors", "yaml"),
    "media": ("PIL", "av"),
    "kernels": ("triton", "cuda.core", "cuda.bindings", "ml_dtypes"),
    "tensorrt": ("tensorrt",),
}
"""What the extras are imported as that parts of Antiphon look for."""


def require_extra(extra: str, purpose: str, *packages: str) -> None:
    """Raise MissingExtra for the first of `packages` (import names; all of the extra where none is given) that is not installed; nothing is imported.

    `purpose` is what needs them, as the subject of the sentence.
    """
    for package in packages or EXTRAS[extra]:
        if not is_installed(package):
            raise MissingExtra(f'{purpose} needs the package {package}, which is not installed; run: pip install "antiphon[{extra}]"')


def is_installed(package: str) -> bool:
    """Whether there is something to import under the name `package`; only the packages above a dotted one are imported."""
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # of what stands above it
        return False
    except ValueError:  # imported, by something that gives it no spec
        return True


@contextmanager
def as_broken_bundle() -> Iterator[None]:
    """Let what is invalid, or of no kind, inside the block be the bundle's fault: it raises BrokenBundle with the same sentence."""
    try:
        yield
    except AntiphonError as error:
        if type(error) in (AntiphonError, InvalidInput):
            raise BrokenBundle(str(error)) from error.__cause__
        raise
