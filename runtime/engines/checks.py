"""What every engine kind checks of a run before it begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..bundle.errors import Closed, InvalidInput
from ..bundle.specs import StageEntry, TensorSpec
from ..states.pool import Slot

MOST_THREADS = 1024
"""An engine library starts them all at once; more than a machine has cores only wait for each other."""


def axis_sizes(specs: Sequence[TensorSpec], arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
    """The size of every symbol in the input shapes; a symbol with two sizes is a mistake of the caller."""
    sizes: dict[str, int] = {}
    for spec in specs:
        found = arrays[spec.name].shape
        assert len(found) == len(spec.shape), f"{spec.name} has shape {found}, expected {spec.shape}"
        for axis, size in zip(spec.shape, found, strict=True):
            expected = sizes.setdefault(axis, size) if isinstance(axis, str) else axis
            assert expected == size, f"{spec.name} has shape {found}, expected {spec.shape} with {sizes}"
    return sizes


def check_rows(entry: StageEntry, rows: int) -> None:
    """Raise InvalidInput for more rows than the engine of `entry` can run."""
    most = entry.capabilities.max_rows
    if rows < 1 or most is not None and rows > most:
        expected = "1 or more" if most is None else "1" if most == 1 else f"1 to {most}"
        raise InvalidInput(
            f"Stage {entry.name} was asked for {rows} rows, expected {expected}; run them in parts."
        )


def check_run(entry: StageEntry, sizes: Mapping[str, int], slots: Sequence[Slot]) -> None:
    """Raise InvalidInput for a run of `slots` with feeds of `sizes` (see axis_sizes) that the
    capabilities of `entry` rule out.
    """
    can, batch = entry.capabilities, sizes.get("batch", 1)
    if len(slots) != (batch if entry.states else 0):
        expected = "one slot for each row" if entry.states else "no slots, because it has no states"
        raise InvalidInput(
            f"Stage {entry.name} was given slots for {len(slots)} rows and feeds for "
            f"{batch}, expected {expected}."
        )
    check_rows(entry, batch)
    if can.buckets and batch not in can.buckets:
        raise InvalidInput(
            f"Stage {entry.name} was given {batch} rows, expected one of {', '.join(map(str, can.buckets))}; "
            "fill the batch up."
        )
    if batch == 1:
        return
    lengths = {slot.length for slot in slots}
    if sizes.get("tokens", 1) > 1 and lengths != {0} and lengths and not can.chunked_batch:
        raise InvalidInput(
            f"Stage {entry.name} takes {batch} rows of several tokens only where all are at their start; "
            "run them one by one."
        )
    if len(lengths) > 1 and not can.ragged_decode:
        raise InvalidInput(
            f"Stage {entry.name} takes rows of one length only, found {len(lengths)} lengths; "
            "run them one by one."
        )


def closed(entry: StageEntry) -> Closed:
    """What a run after `close` raises."""
    return Closed(f"The engine of stage {entry.name} is closed; load the bundle again.")
