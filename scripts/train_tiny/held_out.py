"""Writes the held-out prompts of `scripts/evaluate.py`, shipped as scripts/quality/prompts.json.

    python -m antiphon.scripts.train_tiny.held_out [FILE] [--prompts 240] [--seed 0]

Kinds have their shares; of a kind with few held-out contents (colours, small talk) all are used. An answer
that no training wording has is left out, because it cannot be learnt.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from ..quality.prompts import FILE, Prompt
from .command import command
from .domain import KINDS, draw

ATTEMPTS = 2000
"""Draws without a new prompt after which a kind counts as exhausted."""
LEARNT_BY_HEART = ("color", "talk")
"""Kinds whose answers can only be known from training."""


def prompts(count: int, seed: int = 0) -> list[Prompt]:
    """`count` different held-out prompts, shuffled."""
    choice = random.Random(f"prompts {seed}")
    known = {
        draw(choice, held_out=False, kind=kind).answer for kind in LEARNT_BY_HEART for _ in range(ATTEMPTS)
    }
    streams = {kind: _different(choice, kind, known) for kind in KINDS}
    taken = [
        prompt
        for kind, (_, share) in KINDS.items()
        for prompt, _ in zip(streams[kind], range(round(count * share)), strict=False)
    ]
    while len(taken) < count:  # fill up what the small kinds lack
        kind = choice.choices(list(KINDS), [share for _, share in KINDS.values()])[0]
        taken += [prompt for prompt in [next(streams[kind], None)] if prompt is not None]
    choice.shuffle(taken)
    return taken[:count]


def _different(choice: random.Random, kind: str, known: set[str]) -> Iterator[Prompt]:
    seen: set[str] = set()
    misses = 0
    while misses < ATTEMPTS:
        exchange = draw(choice, held_out=True, kind=kind)
        misses += 1
        if exchange.typed not in seen and (kind not in LEARNT_BY_HEART or exchange.answer in known):
            seen.add(exchange.typed)
            misses = 0
            yield Prompt(exchange.kind, exchange.typed, exchange.spoken, exchange.answer)


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", type=Path, nargs="?", default=FILE)
    parser.add_argument("--prompts", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    lines = ",\n".join(json.dumps(asdict(prompt)) for prompt in prompts(arguments.prompts, arguments.seed))
    arguments.file.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    command(main)
