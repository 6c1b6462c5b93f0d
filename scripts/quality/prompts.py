"""Held-out prompts of the shipped model's domain: questions outside its training, with right answers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ...runtime.bundle.errors import AntiphonError

FILE = Path(__file__).with_name("prompts.json")
"""Made by `python -m antiphon.scripts.train_tiny.held_out`.

Any prefix of it has about the same shares of kinds.
"""


@dataclass(frozen=True)
class Prompt:
    """A question as typed and as spoken, and its right answer; `kind` is its part of the domain."""

    kind: str
    typed: str
    spoken: str
    answer: str


def read_prompts(count: int, path: Path = FILE) -> list[Prompt]:
    """The first `count` prompts of `path`. Raises AntiphonError if it holds fewer, or none."""
    try:
        prompts = [Prompt(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:100]
        raise AntiphonError(
            f"{path} is no list of objects with kind, typed, spoken and answer ({reason}); "
            "name another file with --prompt-file."
        ) from None
    if not 1 <= count <= len(prompts):
        raise AntiphonError(
            f"--prompts is {count}, expected 1 to {len(prompts)}: so many prompts are held out."
        )
    return prompts[:count]
