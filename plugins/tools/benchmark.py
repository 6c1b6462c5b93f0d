"""What is timed on a GPU, and beside what: one Benchmark per op, dtype and shape that a user would meet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Benchmark:
    """One op call at real shapes. Importing it needs no torch; `make` and `eager` run where torch and a GPU are."""

    name: str
    op: str
    attributes: Mapping[str, int]
    make: Callable[[torch.Generator], Mapping[str, torch.Tensor]]
    """The inputs by name, on the generator's device, new ones at every call: a timing rotates through several."""
    eager: Callable[[Mapping[str, torch.Tensor], Mapping[str, int]], Any]
    """The same computation as a user would write it in PyTorch; also what torch.compile gets."""
    bytes_moved: int
    """Bytes that must be read and written at least."""
    operations: int
    """Multiplications and additions that must be done at least."""
    aim: str = ""
    """What the project aims at, in words; a figure is a finding either way."""
