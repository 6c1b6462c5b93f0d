"""What a stage is: a PyTorch module with explicit state, its tensors by name, and where its weights come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..runtime.bundle.specs import StateSpec, TensorSpec

if TYPE_CHECKING:
    import torch


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

    weights: Callable[[Any], dict[str, WeightSource]]
    """From a Checkpoint (it decides the expert layout) to the source of every parameter of the module."""

    constants: dict[str, int] = field(default_factory=dict)
    """Numbers the runtime needs beside the graph (hidden sizes, samples per frame, lost leading samples ...)."""

    def size(self, name: str) -> int:
        """The integer constant `name`."""
        return self.constants[name]
