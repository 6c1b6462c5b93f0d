"""antiphon run without a question: a conversation on the terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ..runtime.bundle.errors import AntiphonError
from ..runtime.omni import Omni
from .answer import Printer, print_reply


def chat(
    omni: Omni, system: str | None, output: Path | None, options: dict[str, Any], printer: Printer
) -> None:
    """Read and answer lines until an empty line, the end of input or Ctrl-C.

    Speech goes to answer-1.wav, answer-2.wav ...
    """
    conversation = omni.conversation(system, options.pop("voice", None), options.pop("style", None))
    turn = 0
    while line := _ask():
        try:
            conversation.append(text=line)
            turn += 1
            target = None if output is None else output.with_name(f"{output.stem}-{turn}{output.suffix}")
            print_reply(conversation.reply(**options), omni.sample_rate, target, printer)
        except AntiphonError as error:  # a failed line or answer does not end the conversation
            print(f"antiphon: {error}", file=sys.stderr)


def _ask() -> str:
    print("> ", end="", file=sys.stderr, flush=True)
    line = sys.stdin.buffer.readline()
    # The message check refuses undecodable characters, and the next line is read.
    return line.decode(sys.stdin.encoding, "surrogateescape").strip()
