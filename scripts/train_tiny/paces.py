"""Measures the frames of speech per text token of the model's voices, for generation_config.json.

    python -m antiphon.scripts.train_tiny.paces CORPUS CODES.npz OUT.json --checkpoint START

`frames_per_text` is the 5 % quantile of the voice with the lowest: R of the interleave `adaptive`.
`frames_per_token` is the median over all, which spreads the text cursor during an answer.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..studies.aria_simulation import Item, low_ratio
from .codes import load_codes
from .command import command
from .corpus import Corpus
from .shape import VOICES


def paces(corpus: Corpus, codes: Sequence[np.ndarray], tokenizer: Any) -> dict[str, float]:
    """Both keys, measured on the corpus' answers."""
    by_voice = [
        [
            Item(
                len(tokenizer.encode(corpus.items[number].text, add_special_tokens=False).ids),
                len(codes[number]),
            )
            for number in numbers
        ]
        for voice in VOICES
        if (numbers := corpus.where("answer", voice))
    ]
    median = statistics.median(item.frames / item.tokens for items in by_voice for item in items)
    return {"frames_per_text": min(map(low_ratio, by_voice)), "frames_per_token": round(median, 2)}


def main() -> None:
    """Measure from the command line."""
    from tokenizers import Tokenizer

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("codes", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--checkpoint", type=Path, required=True, help="from train_tiny.shape: tokenizer")
    arguments = parser.parse_args()
    corpus = Corpus(arguments.corpus)
    found = paces(
        corpus,
        load_codes(arguments.codes, corpus),
        Tokenizer.from_file(str(arguments.checkpoint / "tokenizer.json")),
    )
    arguments.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(", ".join(f"{name} {value:g}" for name, value in found.items()))


if __name__ == "__main__":
    command(main)
