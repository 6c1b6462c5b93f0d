"""Chooses the codec prompts of the model's voices: one recording of each, as codes.

    python -m antiphon.scripts.train_tiny.voices CORPUS CODES.npz OUT.npz

For each voice it takes the answer of about two seconds whose codes are the most typical of the voice: the
highest mean log-frequency. The choice depends on the codes alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from .codes import load_codes
from .command import command
from .corpus import Corpus
from .shape import VOICES

FRAMES = (22, 30)
"""Minimum and maximum frames; the Talker is trained on 12 to 32."""


def typical(codes: list[np.ndarray], size: int = 256) -> np.ndarray:
    """The most typical of utterances int64 [frames, groups]: the highest mean log-frequency of its codes in
    all of `codes`."""
    frames = np.concatenate(codes)
    groups = np.arange(frames.shape[1])
    counts = np.ones((frames.shape[1], size))
    for group in groups:
        counts[group] += np.bincount(frames[:, group], minlength=size)
    surprise = -np.log(counts / counts.sum(1, keepdims=True))
    candidates = [rows for rows in codes if FRAMES[0] <= len(rows) <= FRAMES[1]] or codes
    best: np.ndarray = min(candidates, key=lambda rows: float(surprise[groups, rows].mean()))
    return best.astype(np.int64)


def main() -> None:
    """Choose the prompts and write them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("codes", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    corpus = Corpus(arguments.corpus)
    codes = load_codes(arguments.codes, corpus)
    prompts = {
        voice: typical([codes[number] for number in corpus.where("answer", voice)]) for voice in VOICES
    }
    np.savez(arguments.output, **prompts)  # type: ignore[arg-type]


if __name__ == "__main__":
    command(main)
