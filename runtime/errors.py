"""The one error a user of Antiphon sees for bad input."""

from __future__ import annotations


class AntiphonError(Exception):
    """Bad input, said in one sentence: what, expected, found, what to do.

    The command line prints the sentence and exits with code 2; a traceback is never shown for it.
    """


def missing_extra(package: str, extra: str, purpose: str) -> AntiphonError:
    """The error for an optional dependency that is not installed.

    `package` is the import name, `extra` the Antiphon extra that brings it, `purpose` what needs it.
    """
    return AntiphonError(f'{purpose} needs the package {package}, which is not installed; run: pip install "antiphon[{extra}]"')
