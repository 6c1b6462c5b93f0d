"""What a stage is to the runtime, as data: its tensors and states, what its engine can do,
and in which numbers it computes.

The runtime allocates, binds, batches, snapshots and rewinds by these descriptions alone; it knows no model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .errors import BrokenBundle
from .said import short

StateKind = Literal["kv", "conv", "recurrent", "window", "overlap", "counter"]
Axis = int | str


@dataclass(frozen=True)
class TensorSpec:
    """A graph input or output.

    `dtype` is a NumPy name; `shape` mixes sizes and symbols (batch, tokens, capacity ...).
    """

    name: str
    dtype: str
    shape: tuple[Axis, ...]


@dataclass(frozen=True)
class StateSpec:
    """A state: the graph reads `past.NAME` and writes `present.NAME`, both of `shape` and `dtype`.

    kind: kv (grows along the axis `capacity`, written in place at past_length), conv (left context of a
    convolution), window (the last rows of a sliding window), overlap (unfinished output of a transposed
    convolution), recurrent, counter. All start as zeros.
    """

    name: str
    kind: StateKind
    dtype: str
    shape: tuple[Axis, ...]
    batch_axis: int = 0


@dataclass(frozen=True)
class StageInterface:
    """The tensors of a stage, in the order of its graph,
    and the integers that its callers need beside them.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    states: tuple[StateSpec, ...] = ()
    constants: dict[str, int] = field(default_factory=dict)
    """Sizes and rates by name: code2wav has samples_per_frame, lead_samples and sample_rate."""


@dataclass(frozen=True)
class Capabilities:
    """What the engine of a stage can do, for whoever forms batches for it."""

    max_rows: int | None = None
    """Most rows (batch) of one run; None: as many as memory holds."""
    ragged_decode: bool = True
    """Rows of unlike past lengths may share a run of one new token each."""
    chunked_batch: bool = True
    """Several rows may share a run of more than one new token where their caches are not empty."""
    contiguous_slots: bool = False
    """The rows of a run lie side by side in one array a state and share one capacity."""
    rows_exact: bool = False
    """The result of a row does not depend, in any bit, on the number of rows beside it."""
    chunks_exact: bool = False
    """The result of a row does not depend, in any bit, on how its tokens are cut into runs."""
    buckets: tuple[int, ...] = ()
    """The batch sizes that the engine is built for; (): any."""
    states_on: Literal["host", "device", "engine"] = "host"
    """Where states live: in NumPy arrays, in device memory, or inside the engine."""
    samples: Literal["graph", "engine"] = "graph"
    """Who draws tokens: the graph (SampleToken) or the engine library."""
    device: str = "cpu"
    """Where the engine computes: cpu, cuda ..."""


@dataclass(frozen=True)
class Precision:
    """Number formats of a stage, as NumPy or ONNX names:
    of stored weights, of activations, and of kv states.
    """

    weights: str = "float32"
    activations: str = "float32"
    cache: str = "float32"


@dataclass(frozen=True)
class StageEntry:
    """One stage as it was built."""

    name: str
    """thinker, mtp, talker, predictor, code2wav, codec_encoder, audio_encoder, vision_encoder."""
    kind: str
    """Engine kind: a name of runtime.engines.registry."""
    target: str
    """What it was compiled for: cpu, sm80, sm90 ..."""
    artifacts: tuple[str, ...]
    """Files of the engine, relative to the bundle; the first is the one that the engine opens."""
    interface: StageInterface
    capabilities: Capabilities = field(default_factory=Capabilities)
    precision: Precision = field(default_factory=Precision)
    parameters: int = 0
    """Number of weights."""
    bytes: int = 0
    """Size of all files of the stage."""
    key: str = ""
    """Hash of everything that decided the engine: portable graph, weights, engine kind, target, tools."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Of the interface."""
        return self.interface.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Of the interface."""
        return self.interface.outputs

    @property
    def states(self) -> tuple[StateSpec, ...]:
        """Of the interface."""
        return self.interface.states

    def constant(self, name: str) -> int:
        """The integer constant `name`. Raises BrokenBundle where the stage has none."""
        value = self.interface.constants.get(name)
        if value is None:
            raise BrokenBundle(f"Stage {self.name} has no constant {short(name)}; build the bundle again.")
        return value
