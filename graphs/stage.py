"""A stage: a PyTorch module with explicit state, its named tensors and the sources of its weights."""

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
    """A reader of a model's tensors by name: a Checkpoint, or a replacement in a test."""

    @property
    def path(self) -> Path:
        """The folder of the tensors, for error messages."""

    def has(self, name: str) -> bool:
        """Whether tensor `name` exists."""

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of tensor `name`. Raises AntiphonError if it is missing."""

    def expect_shape(self, name: str, shape: tuple[int, ...]) -> None:
        """Raise AntiphonError unless tensor `name` exists and has `shape`."""

    def read(self, name: str) -> np.ndarray:
        """The values of tensor `name`: float32 for every floating dtype, integers and booleans as stored."""


@dataclass(frozen=True)
class WeightSource:
    """The checkpoint tensors of one module parameter and the function that makes it from them."""

    tensors: tuple[str, ...]
    """Names of the checkpoint tensors, in the order of the arguments of `assemble`."""

    assemble: Callable[..., np.ndarray] = field(default=lambda tensor: tensor)
    """Maps those tensors (float32 arrays) to the parameter. The default returns its one tensor unchanged."""


def transposed(tensor: str) -> WeightSource:
    """A Linear weight [out, in] as a matrix [in, out], so that `x @ w` needs no transposition at run time."""
    return WeightSource((tensor,), lambda weight: np.ascontiguousarray(weight.T))


def columns(*tensors: str) -> WeightSource:
    """Several Linear weights [out_i, in] joined to one matrix [in, sum of out_i]."""
    return WeightSource(tensors, lambda *parts: np.ascontiguousarray(np.concatenate(parts).T))


def plain(tensor: str) -> WeightSource:
    """A tensor that the module uses as it is stored."""
    return WeightSource((tensor,))


@dataclass(frozen=True)
class StageLoop:
    """A loop over a stage: an engine runs the stage's step `steps` times in one call.

    The module and the portable graph compute one step. An engine unrolls the step, loops over it or captures
    it. The loop starts with empty states and returns none. Names "of the loop" are in `inputs` and `outputs`
    below; names "of the step" are in `Stage.inputs` and `Stage.outputs`.
    """

    steps: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    """The interface of the whole loop."""
    counter: str
    """Input of the step, int64 [1]: the index of the step, from 0."""
    first_rows: str
    """Input of the loop and of the step. The loop takes rows [batch, size]. Step 0 reads them as [batch, 1,
    size] and puts them before the row of its token. Later steps read an empty [batch, 0, size]. Step 0
    therefore adds two cache rows, later steps one: `past_length` is 0 at step 0 and s + 1 at step s."""
    carried: tuple[str, str, str]
    """(input of the loop, input of the step, output of the step), all int64 [batch]. Step 0 reads the input
    of the loop; each later step reads the output of the previous step."""
    columns: tuple[str, ...]
    """Inputs of the loop, [batch, steps]. Step s reads column s [batch] as its input of the same name."""
    shared: tuple[str, ...]
    """Inputs of the loop, [batch], that every step reads under the same name."""
    fixed: dict[str, float]
    """Constant inputs of the step: every element has this value."""
    gathered: str
    """Output of the loop, int64 [batch, steps + 1]: the initial carried value, then the one of each step."""
    stacked: dict[str, str]
    """Output of the loop [batch, steps, ...] -> output of the step [batch, ...], collected over all steps."""
    summed: tuple[str, str, str]
    """(output of the loop, output of the step, parameter). The output of the loop is the sum of the step's
    output over all steps, plus one row of the parameter [(steps + 1) * n, size]: row steps * n + the last
    carried value."""
    indexed: tuple[str, ...]
    """Parameters [steps, ...]; step s reads only index s."""


@dataclass(frozen=True)
class Stage:
    """One stage of a family, ready to be exported, verified or run as a module."""

    name: str
    """Name of the stage and of its folder in the bundle: audio_encoder, vision_encoder, thinker, mtp, talker,
    predictor, code2wav or codec_encoder."""

    make_module: Callable[[], torch.nn.Module]
    """Builds the module. Under `torch.device("meta")` it allocates no memory."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    states: tuple[StateSpec, ...]
    """The module takes (*inputs, *past states) and returns (*outputs, *present states), in this order."""

    example: Callable[[], dict[str, np.ndarray]]
    """Small valid inputs without states, to trace the export. Every dynamic axis has a size of 2 or more."""

    weights: Callable[[TensorSource], dict[str, WeightSource]]
    """Maps a checkpoint, whose tensor names tell the stored layout, to the source of every parameter."""

    configuration: object
    """All configuration values that determine the graph; the build cache hashes their `repr`."""

    constants: dict[str, int] = field(default_factory=dict)
    """Numbers that the runtime needs in addition to the graph, such as hidden sizes and samples per frame."""

    loop: StageLoop | None = None
    """Set if one call of the engine runs the step several times."""

    @property
    def interface(self) -> StageInterface:
        """Inputs, outputs and states of an engine of the stage: those of the loop if the stage has one."""
        if self.loop is not None:
            return StageInterface(self.loop.inputs, self.loop.outputs, (), dict(self.constants))
        return StageInterface(self.inputs, self.outputs, self.states, dict(self.constants))

    def size(self, name: str) -> int:
        """The integer constant `name`."""
        return self.constants[name]
