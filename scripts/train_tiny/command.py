"""How the trainings end when something is wrong, or when they are stopped: one sentence, and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable

from ...runtime.bundle.errors import AntiphonError
from ..console import interrupt_is_handled


def command(main: Callable[[], None]) -> None:
    """Run `main`; exit code 2 with the sentence of an AntiphonError, 130 when interrupted."""
    try:
        main()
    except AntiphonError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        interrupt_is_handled()
        print("Stopped. The same command goes on: a training where it was, anything else from its start.", file=sys.stderr)
        sys.exit(130)
