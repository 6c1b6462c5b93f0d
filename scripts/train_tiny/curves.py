"""Plots the curves of finished or running trainings in one figure.

python -m antiphon.scripts.train_tiny.curves OUT.svg [--codec RUN] [--vocoder RUN] [--talker RUN]
    [--thinker RUN [RUN]]

A run that began with the modules of another run is given after it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from ..plot import Line, line_plot
from .command import command

SHOWN = {
    "codec": ("codec: log-mel error, CTC / 10", {"log-mel": ("absolute", 1.0), "CTC / 10": ("text", 0.1)}),
    "vocoder": ("Code2Wav: error of spectra", {"log-magnitude": ("logarithm", 1.0), "log-mel": ("mel", 1.0)}),
    "talker": ("Talker: cross entropy of codes", {"first": ("first", 1.0), "residual": ("residual", 1.0)}),
    "thinker": ("Thinker: right, held out", {"typed": ("typed all", 1.0), "spoken": ("spoken all", 1.0)}),
}
"""By part: the label, and by line name the value in the curves and its factor."""
BEGINNING = 4
"""Number of first reports that are left out, because their losses are much larger."""


def panel(part: str, runs: Sequence[Path]) -> tuple[str, list[Line]]:
    """The panel of one training, from the curves of its consecutive runs."""
    label, lines = SHOWN[part]
    shown: list[dict[str, float]] = []
    for run in runs:
        rows = [json.loads(line) for line in (run / "curves.jsonl").read_text(encoding="utf-8").splitlines()]
        before = shown[-1]["step"] if shown else 0
        shown += [
            row | {"step": row["step"] + before} for row in (rows if part == "thinker" else rows[BEGINNING:])
        ]
    return label, [
        Line(name, [(row["step"], factor * row[key]) for row in shown if key in row])
        for name, (key, factor) in lines.items()
    ]


def main() -> None:
    """Write the figure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output", type=Path)
    for part in SHOWN:
        parser.add_argument(f"--{part}", type=Path, nargs="+", metavar="RUN")
    arguments = parser.parse_args()
    given = {part: getattr(arguments, part) for part in SHOWN if getattr(arguments, part)}
    arguments.output.write_text(
        line_plot([panel(part, runs) for part, runs in given.items()], "steps"), encoding="utf-8"
    )


if __name__ == "__main__":
    command(main)
