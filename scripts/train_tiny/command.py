"""The end of a training on an error or an interruption: one sentence, and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable

from ...runtime.bundle.errors import AntiphonError
from ..console import interrupt_is_handled


def command(main: Callable[[], None]) -> None:
    """Run `main`. An AntiphonError prints its sentence with exit code 2; an interruption exits with 130."""
    try:
        main()
    except AntiphonError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        interrupt_is_handled()
        print(
            "Stopped. The same command goes on: a training where it was, anything else from its start.",
            file=sys.stderr,
        )
        sys.exit(130)
