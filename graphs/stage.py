"""What a stage is: a PyTorch module with explicit state, its tensors by name, and where its weights come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..runtime.bundle.manifest import StateSpec, TensorSpec

if TYPE_CHECKING:
    import torch


class TensorSource(Protocol):
    """Where the tensors of a model are read by name: a Checkpoint, or what a test puts in its place."""

    @property
    def path(self) -> Path:
        """The folder that an error sentence names."""

    def has(self, name: str) -> bool:
        """Whether there is a tensor `name`."""

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of tensor `name`. Raises AntiphonError where it is missing."""

    def expect_shape(self, name: str, shape: tuple[int, ...]) -> None:
        """Raise AntiphonError unless tensor `name` is there and has `shape`."""

    def read(self, name: str) -> np.ndarray:
        """The values of tensor `name`: float32 for every floating dtype, integers and booleans as stored."""


@dataclass(frozen=True)
class WeightSource:
    """How one module parameter is made from checkpoint tensors."""

    tensors: tuple[str, ...]
    """Names of the checkpoint tensors read, in the order `assemble` takes them."""

    assemble: Callable[..., np.ndarray] = field(default=lambda tensor: tensor)
    """From those tensors (float32 arrays) to the parameter; the identity for a single tensor stored as it is used."""


def transposed(tensor: str) -> WeightSource:
    """A Linear weight [out, in] stored as the [in, out] matrix that `x @ w` takes without a transposition at run time."""
    return WeightSource((tensor,), lambda weight: np.ascontiguousarray(weight.T))


def columns(*tensors: str) -> WeightSource:
    """Linear weights [out_i, in] side by side as one matrix [in, sum of out_i]."""
    return WeightSource(tensors, lambda *parts: np.ascontiguousarray(np.concatenate(parts).T))


def plain(tensor: str) -> WeightSource:
    """A tensor used as it is stored."""
    return WeightSource((tensor,))


@dataclass(frozen=True)
class Stage:
    """One stage of a family, ready to be exported, verified or run as a module."""

    name: str
    """Folder name in the bundle: audio_encoder, vision_encoder, thinker, mtp, talker, predictor, code2wav, codec_encoder."""

    make_module: Callable[[], torch.nn.Module]
    """Builds the module; under `torch.device("meta")` it allocates nothing."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    states: tuple[StateSpec, ...]
    """The module is called as module(*inputs, *past states) and returns (*outputs, *present states), in these orders."""

    example: Callable[[], dict[str, np.ndarray]]
    """Small valid inputs (without states) that show every dynamic axis with a size of 2 or more; used to trace the export."""

    weights: Callable[[TensorSource], dict[str, WeightSource]]
    """From a checkpoint (its names decide the stored layout) to the source of every parameter of the module."""

    constants: dict[str, int | float | list[int]] = field(default_factory=dict)
    """Numbers the runtime needs beside the graph (hidden sizes, samples per frame, lost leading samples ...)."""

    def size(self, name: str) -> int:
        """The integer constant `name`."""
        value = self.constants[name]
        assert isinstance(value, int), f"constant {name} of stage {self.name} is {value!r}, expected an integer"
        return value
