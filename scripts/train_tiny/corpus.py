"""The spoken training data: made once into a folder, read as arrays.

    python -m antiphon.scripts.train_tiny.corpus DATA [--hours 3] [--processes 2]

DATA/items.jsonl has one line per utterance (text, voice, role, kind, first sample, samples); DATA/audio.i16
holds all samples, int16 at 24 kHz. The model's two voices speak the answers; those and many variants speak
the prompts. No held-out content (domain.HELD_OUT) is included.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from ...runtime.bundle.errors import AntiphonError
from ..quality.synthesisers import RATE, SEEN_VARIANTS, synthesise
from .command import command
from .domain import draw

SHARES = {
    ("answer", "joe"): 0.54,
    ("answer", "espeak"): 0.1,
    ("prompt", "joe"): 0.13,
    ("prompt", "many"): 0.23,
}
"""Shares of the hours, by role and voice."""
BATCH = 32


@dataclass(frozen=True)
class Item:
    """One utterance; `start` and `samples` index the audio file."""

    role: str
    voice: str
    kind: str
    text: str
    seed: int
    start: int = 0
    samples: int = 0


class Corpus:
    """The utterances of a folder; audio is memory-mapped."""

    def __init__(self, folder: str | Path) -> None:
        """Raises AntiphonError for a folder without a corpus."""
        path = Path(folder)
        try:
            self.items = [
                Item(**json.loads(line))
                for line in (path / "items.jsonl").read_text(encoding="utf-8").splitlines()
            ]
            self._audio = np.memmap(path / "audio.i16", np.int16, "r")
        except OSError as error:
            raise AntiphonError(
                f"{path} holds no corpus ({error.strerror}); "
                f"make one with python -m antiphon.scripts.train_tiny.corpus {path}."
            ) from None

    def audio(self, number: int) -> np.ndarray:
        """Samples float32 of item `number`."""
        item = self.items[number]
        return self._audio[item.start : item.start + item.samples].astype(np.float32) / 32767

    def where(self, role: str, voice: str | None = None) -> list[int]:
        """Numbers of the items of a role, and of one voice if it is given."""
        return [
            number
            for number, item in enumerate(self.items)
            if item.role == role and voice in (None, item.voice)
        ]


def texts(role: str, voice: str) -> Iterator[Item]:
    """Endless training utterances, always the same; a voice may speak an answer again only if it is drawn
    again."""
    choice = draws(role, voice)
    while True:
        exchange = draw(choice, held_out=False)
        name = choice.choice(SEEN_VARIANTS) if voice == "many" else voice
        yield Item(
            role,
            name,
            exchange.kind,
            exchange.answer if role == "answer" else exchange.spoken,
            choice.randrange(2**31),
        )


def draws(role: str, voice: str) -> random.Random:
    """The random generator of the texts of a role and a voice; drawing again (hearing_data.prompt_answers)
    gives the same texts."""
    return random.Random(f"{role} {voice} 0")


def _spoken(item: Item) -> np.ndarray:
    return np.round(synthesise(item.text, item.voice, item.seed) * 32767).astype(np.int16)


def main() -> None:
    """Make the corpus; it is written under a temporary name and renamed when complete."""

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--hours", type=float, default=3.0)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    total = 0
    lines = []
    with (
        get_context("spawn").Pool(arguments.processes) as pool,
        (arguments.folder / "audio.part").open("wb") as audio,
    ):
        for (role, voice), share in SHARES.items():
            stream, budget, used = texts(role, voice), share * arguments.hours * 3600 * RATE, 0
            while used < budget:
                batch = [next(stream) for _ in range(BATCH)]
                for item, samples in zip(batch, pool.map(_spoken, batch, chunksize=4), strict=True):
                    lines.append(json.dumps(asdict(item) | {"start": total, "samples": len(samples)}))
                    audio.write(samples.tobytes())
                    total += len(samples)
                    used += len(samples)
            print(f"{role} {voice}: {used / RATE / 3600:.2f} h")
    (arguments.folder / "items.part").write_text("\n".join(lines) + "\n", encoding="utf-8")
    # The items come last: a folder with items is complete.
    (arguments.folder / "audio.part").rename(arguments.folder / "audio.i16")
    (arguments.folder / "items.part").rename(arguments.folder / "items.jsonl")
    print(f"{len(lines)} utterances, {total / RATE / 3600:.2f} h")


if __name__ == "__main__":
    command(main)
