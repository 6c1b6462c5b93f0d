"""Engines: a lowered stage behind one small interface, whatever library runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from ..bundle.specs import StageEntry
from ..states.pool import StateSet


class Engine(Protocol):
    """What the pipeline knows of a stage."""

    entry: StageEntry
    """The description of inputs, outputs, states and constants."""

    def run(self, feeds: Mapping[str, np.ndarray], states: StateSet | None = None, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Run once. `feeds` holds every input of the entry but the states; `outputs` names what is wanted (None: all).

        Reads `states.past(name)`, writes `states.present(name)` and flips; the caller reserves room before and advances the length
        after. Returned arrays belong to the caller. May be called from several threads with different states.
        """


class OpenEngine(Protocol):
    """How an engine kind opens a stage of a bundle."""

    def __call__(self, folder: Path, entry: StageEntry, threads: int | None = None) -> Engine:
        """The engine of `entry`, whose artifacts are relative to the bundle `folder`. `threads` work on one run (None: the
        kind's default). Raises AntiphonError where the artifacts do not load or are not what `entry` says."""
