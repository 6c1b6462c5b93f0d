"""A stage in ONNX Runtime.

ONNX Runtime is driven through IOBinding with arrays that stay where they are: a decode step costs a few
microseconds beside the kernels, and no cache row is ever copied.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ...bundle.errors import BrokenBundle
from ...bundle.files import ONNX
from ...bundle.said import short_path
from ...bundle.specs import StageEntry, StateSpec, TensorSpec
from ...scheduling.forks import never_free_in_forks
from ...states.arrays import Generation
from ...states.contiguous import ContiguousPool
from ...states.pool import UNLIMITED, Slot, StatePool, StateRows
from ..checks import axis_sizes, check_rows, check_run, closed
from .library import onnxruntime
from .sessions import make_session

_KEPT_SHAPES = 6  # bindings kept per set of state arrays: decode and the latest prefills
_DTYPES = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16"}
"""ONNX Runtime's words for a tensor's type where they are not NumPy's."""
_KEPT_BYTES = 2**24  # a binding with larger arrays (long audio, big images) is made anew each time
_Bindings = OrderedDict[Any, list["_Binding"]]


TARGETS = ("cpu",)
"""What engines of this kind are opened for."""


def open_engine(folder: Path, entry: StageEntry, threads: int | None = None) -> OnnxEngine:
    """See base.OpenEngine."""
    return OnnxEngine(folder / entry.artifacts[0], entry, threads)


class OnnxEngine:
    """A stage in ONNX Runtime.

    Raises AntiphonError when the file does not load or its tensors are not those of the manifest.
    """

    def __init__(self, path: Path, entry: StageEntry, threads: int | None = None) -> None:
        self.entry = entry
        if path.suffix != ONNX:
            raise BrokenBundle(
                f"Stage {entry.name}: {short_path(path)} is no file for ONNX Runtime, "
                f"whose names end in {ONNX}; build the bundle again."
            )
        self._inputs = tuple(spec.name for spec in entry.inputs)
        session = make_session(path, threads)
        self._session: onnxruntime.InferenceSession | None = session
        self._idle: _Bindings = OrderedDict()
        self._by_arrays: WeakKeyDictionary[Generation, _Bindings] = WeakKeyDictionary()
        _check_interface(
            path,
            "inputs",
            session.get_inputs(),
            [*entry.inputs, *(_tensor("past", spec) for spec in entry.states)],
        )
        _check_interface(
            path,
            "outputs",
            session.get_outputs(),
            [*entry.outputs, *(_tensor("present", spec) for spec in entry.states)],
        )

    def new_states(self, rows: int = 1, capacity: int = UNLIMITED) -> StatePool:
        """See Engine.new_states."""
        check_rows(self.entry, rows)
        return (
            StatePool(self.entry.states, 1, capacity)
            if rows == 1
            else ContiguousPool(self.entry.states, rows, capacity)
        )

    def run(
        self,
        feeds: Mapping[str, np.ndarray],
        slots: Sequence[Slot] = (),
        outputs: Sequence[str] | None = None,
    ) -> dict[str, np.ndarray]:
        """See Engine.run."""
        session = self._session
        if session is None:
            raise closed(self.entry)
        wanted = tuple(spec.name for spec in self.entry.outputs) if outputs is None else tuple(outputs)
        states: StateRows | None = slots[0] if slots else None
        if len(slots) > 1:  # what a run of one slot must keep is checked with its binding
            check_run(self.entry, axis_sizes(self.entry.inputs, feeds), slots)
            states = slots[0].pool.gather(slots)
        signature = (
            wanted,
            tuple([feeds[name].shape for name in self._inputs]),
            states.place if states else None,
        )
        cache = self._idle if states is None else self._by_arrays.setdefault(states.generation, OrderedDict())
        try:
            binding = cache[signature].pop()  # list.pop is atomic: two threads never share a binding
            cache.move_to_end(signature)
        except (KeyError, IndexError):
            binding = _Binding(session, self.entry, feeds, slots, states, wanted)
        result = binding.run(session, feeds)
        if states is not None:
            states.flip()
        if binding.bytes <= _KEPT_BYTES:
            cache.setdefault(signature, []).append(binding)
        while len(cache) > _KEPT_SHAPES:
            try:
                cache.popitem(last=False)
            except KeyError:  # another thread was faster
                break
        return result

    def close(self) -> None:
        """See Engine.close."""
        self._session = None
        self._idle.clear()
        self._by_arrays.clear()


class _Binding:
    """One set of bound arrays: inputs written in place,
    outputs of known shape preallocated, states where they live.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        entry: StageEntry,
        feeds: Mapping[str, np.ndarray],
        slots: Sequence[Slot],
        states: StateRows | None,
        wanted: Sequence[str],
    ) -> None:
        sizes = axis_sizes(entry.inputs, feeds)
        check_run(entry, sizes, slots)
        self._io = session.io_binding()
        # its values lie in the session's arena, whose lock another thread may hold at the fork
        never_free_in_forks(self)
        self._inputs = {
            spec.name: np.array(feeds[spec.name], np.dtype(spec.dtype), order="C") for spec in entry.inputs
        }
        self._outputs: dict[str, np.ndarray | None] = {}
        self._values: list[onnxruntime.OrtValue] = []  # keeps the arrays behind the binding alive
        for name, array in self._inputs.items():
            self._io.bind_ortvalue_input(name, self._value(array))
        specs = {spec.name: spec for spec in entry.outputs}
        for name in wanted:
            shape = _shape(specs[name], sizes)
            if shape is None:
                self._outputs[name] = None
                self._io.bind_output(name, "cpu")
            else:
                self._outputs[name] = array = np.zeros(shape, np.dtype(specs[name].dtype))
                self._io.bind_ortvalue_output(name, self._value(array))
        if states is not None:
            for state in entry.states:
                past, present = states.past(state.name), states.present(state.name)
                value = self._value(past)
                self._io.bind_ortvalue_input(f"past.{state.name}", value)
                self._io.bind_ortvalue_output(
                    f"present.{state.name}", value if present is past else self._value(present)
                )

    @property
    def bytes(self) -> int:
        """Memory of the bound inputs and outputs; states belong to the stream."""
        return sum(
            array.nbytes for array in (*self._inputs.values(), *self._outputs.values()) if array is not None
        )

    def run(
        self, session: onnxruntime.InferenceSession, feeds: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        for name, array in self._inputs.items():
            array[...] = feeds[name]
        session.run_with_iobinding(self._io)
        fetched: list[Any] = (
            self._io.get_outputs() if any(array is None for array in self._outputs.values()) else []
        )
        # outputs come in the order of binding, so those allocated by the library are found by place
        return {
            name: (fetched[place].numpy() if array is None else array).copy()
            for place, (name, array) in enumerate(self._outputs.items())
        }

    def _value(self, array: np.ndarray) -> onnxruntime.OrtValue:
        value = onnxruntime.OrtValue.ortvalue_from_numpy(array)
        self._values.append(value)
        return value


def _tensor(side: str, state: StateSpec) -> TensorSpec:
    return TensorSpec(f"{side}.{state.name}", state.dtype, state.shape)


def _check_interface(path: Path, side: str, nodes: Sequence[Any], specs: Sequence[TensorSpec]) -> None:
    """Raise AntiphonError unless the graph's own `nodes` are what the manifest describes,
    in name, dtype and every axis.
    """
    found = {
        node.name: (_DTYPES.get(node.type, node.type[len("tensor(") : -1]), tuple(node.shape))
        for node in nodes
    }
    said = {spec.name: (spec.dtype, spec.shape) for spec in specs}
    wrong = sorted(name for name in {*found, *said} if found.get(name) != said.get(name))
    if wrong or len(said) < len(specs):
        raise BrokenBundle(
            f"{short_path(path)} and the manifest disagree about the {side} {', '.join(wrong)[:100]}; "
            "build the bundle again."
        )


def _shape(spec: TensorSpec, sizes: Mapping[str, int]) -> tuple[int, ...] | None:
    """The shape of an output when the inputs determine it, else None."""
    shape = [axis if isinstance(axis, int) else sizes.get(axis) for axis in spec.shape]
    return None if None in shape else tuple(size for size in shape if size is not None)
