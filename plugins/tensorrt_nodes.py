"""A Program as a chain of TensorRT nodes: their names, inputs, outputs and sizes.

Plain data, without TensorRT.

A node is one launch. It knows only the shapes of its own inputs and integers that are fixed when the network
is made. This module derives every size of its grid, scalars and outputs from those, and refuses a launch
contract that TensorRT nodes cannot implement.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..runtime.bundle.errors import AntiphonError
from ..runtime.kernels.contract import Launch, Operand, Program
from ..runtime.kernels.expression import FUNCTIONS, evaluate, names


@dataclass(frozen=True)
class Node:
    """One launch of a program as a TensorRT node."""

    name: str
    """Name of the op in the namespace `antiphon`, from op, program, index of the launch and target."""
    program: Program
    launch: Launch
    attributes: tuple[str, ...]
    """Integers given when the network is made: attributes of the program, and the `fixed` sizes."""
    fixed: tuple[str, ...]
    """Sizes that no input shape of the node contains; they must be constant in the network."""
    symbols: Mapping[str, str]
    """Expressions of the needed sizes, from axes of the inputs (see `axes`) and attributes, in order of
    evaluation."""
    aliases: Mapping[str, int]
    """By output updated in place: the index of the input whose memory it is."""

    def sizes(
        self,
        shapes: Sequence[Sequence[Any]],
        attributes: Mapping[str, int],
        functions: Mapping[str, Any] = FUNCTIONS,
    ) -> dict[str, Any]:
        """The symbols of the contract's expressions for inputs of these shapes.

        Values are symbolic if `shapes` and `functions` are.
        """
        values: dict[str, Any] = dict(attributes)
        for name, shape in zip(self.launch.inputs, shapes, strict=True):
            values |= axes(self.program.tensor(name), shape)
        for name, text in self.symbols.items():
            values[name] = evaluate(text, values, functions)
        return values


def nodes(program: Program, target: str) -> tuple[Node, ...]:
    """The nodes of `program`, in order. Raises AntiphonError if TensorRT cannot run one launch per node."""
    _check(program)
    return tuple(_node(program, target, place, step) for place, step in enumerate(program.launches))


def fixed_sizes(
    program: Program, shapes: Mapping[str, Sequence[int]], attributes: Mapping[str, int]
) -> dict[str, int]:
    """The symbols of `program` that are constant for input shapes by name; an axis of -1 varies."""
    values: dict[str, int] = dict(attributes)
    for spec in program.inputs:
        values |= {name: size for name, size in axes(spec, shapes[spec.name]).items() if size >= 0}
    for name, text in _derived(program, program.inputs, attributes).items():
        if names(text) <= set(values):
            values[name] = evaluate(text, values)
    return values


def axes(spec: Operand, shape: Sequence[Any]) -> dict[str, Any]:
    """The sizes of a tensor as TENSOR__AXIS, where AXIS is the index in the contract's shape.

    Several leading axes in place of `*name` are multiplied. -1 stands for a varying size, and so does a
    product with it. Raises AntiphonError for a rank that does not fit.
    """
    leading = len(shape) - len(spec.shape) + 1
    if leading < 1 or leading > 1 and not "".join(spec.shape[:1]).startswith("*"):
        raise AntiphonError(
            f"{spec.name} is [{', '.join(spec.shape)}] in the launch contract; found {len(shape)} axes."
        )
    sizes = list(shape)
    if leading > 1:
        sizes[:leading] = [
            -1 if any(_varies(size) for size in shape[:leading]) else math.prod(shape[:leading])
        ]
    return {f"{spec.name}__{place}": size for place, size in enumerate(sizes)}


def _varies(size: Any) -> bool:
    return isinstance(size, int) and size < 0


def _node(program: Program, target: str, place: int, step: Launch) -> Node:
    created = [program.tensor(name) for name in step.outputs if not program.tensor(name).alias]
    wanted = [
        *step.grid,
        *(scalar.value for scalar in step.scalars),
        *(size for spec in created for size in spec.shape),
    ]
    derived = _derived(program, [program.tensor(name) for name in step.inputs], program.attributes)
    needed, found = set().union(*(names(text) for text in wanted)), dict[str, str]()
    for name in reversed(derived):
        if name in needed:
            needed |= names(derived[name])
            found[name] = derived[name]
    seen = {
        *derived,
        *(f"{name}__{axis}" for name in step.inputs for axis in range(len(program.tensor(name).shape))),
    }
    given = tuple(name for name in program.attributes if name in needed)
    fixed = tuple(sorted(needed - seen - set(program.attributes)))
    return Node(
        re.sub(r"\W", "_", f"{program.op}_{program.name}_{place}_{target}"),
        program,
        step,
        (*given, *fixed),
        fixed,
        dict(reversed(found.items())),
        {name: _source(program, step, name) for name in step.outputs if program.tensor(name).alias},
    )


def _derived(program: Program, specs: Iterable[Operand], attributes: Iterable[str]) -> dict[str, str]:
    """Expressions of every symbol that follows from the axes of `specs` and the attributes.

    Each uses earlier symbols only.
    """
    shown = [
        (f"{spec.name}__{place}", size.removeprefix("*"))
        for spec in specs
        for place, size in enumerate(spec.shape)
    ]
    known, found = set(attributes), dict[str, str]()

    def learn(name: str, text: str) -> None:
        if name not in known:
            found[name] = text
            known.add(name)

    before = -1
    while before < len(found):
        before = len(found)
        for axis, size in shown:
            if solved := _solved(size, axis, known):
                learn(*solved)
        for name, text in program.symbols.items():
            if names(text) <= known:
                learn(name, text)
            elif name in known and (solved := _solved(text, name, known)):
                learn(*solved)
    return found


def _solved(text: str, value: str, known: set[str]) -> tuple[str, str] | None:
    """The only unknown name in `text`, and its value if `text` equals `value`; None if undetermined."""
    match ast.parse(text, mode="eval").body:
        case ast.Name(id=name):
            return name, value
        case ast.BinOp(left=left, op=op, right=right):
            first, second = ast.unparse(left), ast.unparse(right)
            is_first = names(second) <= known
            if is_first == (names(first) <= known):
                return None
            unknown, other = (first, second) if is_first else (second, first)
            match op:
                case ast.Mult():
                    return _solved(unknown, f"({value}) // ({other})", known)
                case ast.Add():
                    return _solved(unknown, f"({value}) - ({other})", known)
                case ast.Sub():
                    return _solved(
                        unknown, f"({value}) + ({other})" if is_first else f"({other}) - ({value})", known
                    )
    return None


def _source(program: Program, step: Launch, output: str) -> int:
    """The index of the input that holds the memory of the aliased `output`; -1 if there is none.

    It is the aliased input, or the output if an earlier node wrote it.
    """
    return next(
        (place for place, name in enumerate(step.inputs) if name in (program.tensor(output).alias, output)),
        -1,
    )


def _check(program: Program) -> None:
    ready, written = {spec.name for spec in program.inputs}, set[str]()
    for step in program.launches:
        where = f"TensorRT cannot run {program.op} ({program.name}): {step.kernel}"
        for scalar in step.scalars:
            if scalar.dtype != "int32":
                raise AntiphonError(
                    f"{where} takes {scalar.name} as {scalar.dtype}, and a node's scalars are int32."
                )
        for name in step.inputs:
            if name not in ready:
                raise AntiphonError(f"{where} reads {name} before a launch has written it.")
        for name in step.outputs:
            alias = program.tensor(name).alias
            if alias and _source(program, step, name) < 0:
                raise AntiphonError(
                    f"{where} writes {name} in place and does not take {alias}; "
                    f"add {alias} to its inputs, where the kernel may ignore it."
                )
            if not alias and (name in written or name in step.inputs):
                raise AntiphonError(
                    f"{where} writes into {name} again, and every output of a node is memory of its own; "
                    "give it a tensor of its own."
                )
        written |= set(step.outputs)
        ready |= written
