"""What a stage is: a PyTorch module with explicit state, its tensors by name, and where its weights come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..runtime.bundle.specs import StageInterface, StateSpec, TensorSpec

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
class StageLoop:
    """How an engine runs the step of a stage `steps` times in one call: one kind unrolls it, another loops or captures it.

    The module, and the portable graph, are one step. A loop begins with empty states and keeps none. Names on the left
    are of the whole loop (`inputs`, `outputs`), names on the right of the step.
    """

    steps: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    """The interface of the whole loop."""
    counter: str
    """Step input int64 [1]: the number of the step, counted from 0."""
    first_rows: str
    """Input of both: rows [batch, size] that step 0 reads, as [batch, 1, size], before the row of its token; later steps
    read [batch, 0, size]. So `past_length` is 0 at step 0 and s + 1 at step s."""
    carried: tuple[str, str, str]
    """(input of the loop, input of the step, output of the step): step 0 reads the first, later steps what the step
    before them gave. All int64 [batch]."""
    columns: tuple[str, ...]
    """Inputs [batch, steps] of the loop; the step's input of the same name gets one column [batch]."""
    shared: tuple[str, ...]
    """Inputs [batch] that all steps read."""
    fixed: dict[str, float]
    """Step inputs that no caller sets: every element has this value."""
    gathered: str
    """Output int64 [batch, steps + 1]: the first carried value and those that the steps gave."""
    stacked: dict[str, str]
    """Outputs [batch, steps, ...]: an output of every step."""
    summed: tuple[str, str, str]
    """(output of the loop, output of the step, parameter): the sum of that output over all steps, and of the row of the
    parameter [(steps + 1) * n, size] that belongs to the last carried value: row steps * n + value."""
    indexed: tuple[str, ...]
    """Parameters [steps, ...] of which step s reads index s alone."""


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

    configuration: object
    """All of the checkpoint's configuration that decides the graph, as something with a complete `repr`."""

    constants: dict[str, int] = field(default_factory=dict)
    """Numbers the runtime needs beside the graph (hidden sizes, samples per frame, lost leading samples ...)."""

    loop: StageLoop | None = None
    """Where an engine of the stage runs its step several times a call."""

    @property
    def interface(self) -> StageInterface:
        """What an engine of the stage takes and gives: that of the loop, where there is one."""
        if self.loop is not None:
            return StageInterface(self.loop.inputs, self.loop.outputs, (), dict(self.constants))
        return StageInterface(self.inputs, self.outputs, self.states, dict(self.constants))

    def size(self, name: str) -> int:
        """The integer constant `name`."""
        return self.constants[name]
