"""Benchmark: one op call at a dtype and shape of real use, and the PyTorch code it is compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Benchmark:
    """One op call at real shapes.

    Importing this needs no torch; `make` and `eager` run where torch and a GPU are.
    """

    name: str
    op: str
    attributes: Mapping[str, int]
    make: Callable[[torch.Generator], Mapping[str, torch.Tensor]]
    """Returns new inputs by name, on the generator's device; a timing rotates through several sets."""
    eager: Callable[[Mapping[str, torch.Tensor], Mapping[str, int]], Any]
    """The same computation as a user would write it in PyTorch; torch.compile gets it too."""
    bytes_moved: int
    """The least number of bytes to read and write."""
    operations: int
    """The least number of multiplications and additions."""
    aim: str = ""
    """The project's aim, in words; it is not enforced."""
