"""Engines: a lowered stage behind one small interface, whatever library runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from ..bundle.specs import StageEntry
from ..states.pool import Slot, StatePool


class Engine(Protocol):
    """What the pipeline knows of a stage."""

    entry: StageEntry
    """The description of inputs, outputs, states and constants, and what the engine can do."""

    def new_states(self, rows: int = 1, capacity: int = ...) -> StatePool:
        """A pool of at most `rows` slots, each with a length of its own,
        of up to `capacity` rows of context (default: no limit).

        A pool and its slots are used by one thread at a time. Raises InvalidInput for more rows
        than the engine can run.
        """

    def run(
        self,
        feeds: Mapping[str, np.ndarray],
        slots: Sequence[Slot] = (),
        outputs: Sequence[str] | None = None,
    ) -> dict[str, np.ndarray]:
        """Run once.

        `feeds` holds every input of the entry but the states; `outputs` names what is wanted (None: all).

        slots[i] has the states of row i of the feeds (axis `batch`); they are distinct and of one pool. A
        stage without states takes none, and any batch. The run reads the states of the slots and replaces
        them; the caller reserves room before and advances the lengths after. Returned arrays belong to the
        caller. May be called from several threads with slots of different pools.
        Raises InvalidInput, before anything runs, for a batch that the capabilities of the entry rule out,
        and Closed after `close`.
        """

    def close(self) -> None:
        """Free what the engine library holds. Closing twice is fine.

        An Omni does not close its engines, which several may share: they go with the last reference.
        """


class OpenEngine(Protocol):
    """How an engine kind opens a stage of a bundle."""

    def __call__(self, folder: Path, entry: StageEntry, threads: int | None = None) -> Engine:
        """The engine of `entry`, whose artifacts are relative to the bundle `folder`.

        `threads` work on one run (None: the kind's default). Raises AntiphonError where the artifacts do not
        load or are not what `entry` says.
        """
