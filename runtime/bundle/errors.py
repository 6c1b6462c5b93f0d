"""The errors that a user of Antiphon sees, by kind, and the check for missing extras."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager


class AntiphonError(Exception):
    """An error described in one sentence: what, expected, found, what to do. The base class is used if no
    kind below fits.

    The command line prints the sentence without a traceback and exits with code 2.
    """


class InvalidInput(AntiphonError):
    """A message, a piece of media, an option or the order of calls is invalid: the same call fails again."""


class ContextFull(AntiphonError):
    """The request does not fit into the context of the Thinker or the Talker: a shorter one may fit."""


class Busy(AntiphonError):
    """Other work uses what this call needs: the same call may succeed later."""


class Closed(AntiphonError):
    """The Omni, the conversation or the reply has ended, or belongs to the parent process of a fork: load the
    bundle again.
    """


class BrokenBundle(AntiphonError):
    """The folder has no complete bundle, or its content contradicts itself: copy or build it again."""


class UnsupportedTarget(AntiphonError):
    """This Antiphon, this machine or this bundle does not have the target, the engine kind or the
    precision.
    """


class MissingExtra(AntiphonError):
    """A package of an optional extra is not installed."""


EXTRAS: dict[str, tuple[str, ...]] = {
    "build": ("torch", "onnx", "onnx_ir", "onnxscript", "safetensors", "yaml"),
    "media": ("PIL", "av"),
    "kernels": ("triton", "cuda.core", "cuda.bindings", "ml_dtypes"),
    "tensorrt": ("tensorrt",),
}
"""Import names of the packages of each extra that parts of Antiphon check for."""


def require_extra(extra: str, purpose: str, *packages: str) -> None:
    """Raise MissingExtra for the first of `packages` that is not installed; nothing is imported.

    `packages`: import names; without any, all of the extra. `purpose`: what needs them, as the subject of the
    sentence.
    """
    for package in packages or EXTRAS[extra]:
        if not is_installed(package):
            raise MissingExtra(
                f"{purpose} needs the package {package}, which is not installed; run: "
                f'pip install "antiphon[{extra}]"'
            )


def is_installed(package: str) -> bool:
    """Whether the import name `package` exists. Only the parents of a dotted name are imported."""
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # raised for a missing parent
        return False
    except ValueError:  # already imported, but without a spec
        return True


@contextmanager
def as_broken_bundle() -> Iterator[None]:
    """Turn InvalidInput, and a plain AntiphonError, of the block into BrokenBundle with the same sentence."""
    try:
        yield
    except AntiphonError as error:
        if type(error) in (AntiphonError, InvalidInput):
            raise BrokenBundle(str(error)) from error.__cause__
        raise
