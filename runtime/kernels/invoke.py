"""Turn an op call into launches. All executors share this walk through a Program."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from ..bundle.errors import AntiphonError
from .contract import Launch, Operand, Program
from .expression import FUNCTIONS, evaluate

T = TypeVar("T")


class Array(Protocol):
    """The property of a tensor that `invoke` needs; each executor has its own tensors."""

    @property
    def shape(self) -> Sequence[int]: ...


def invoke(
    program: Program,
    tensors: Mapping[str, T],
    attributes: Mapping[str, int],
    *,
    shape_of: Callable[[T], Sequence[Any]],
    allocate: Callable[[Operand, tuple[Any, ...]], T],
    launch: Callable[[Launch, tuple[Any, Any, Any], list[Any]], None],
    given: Mapping[str, T] | None = None,
    functions: Mapping[str, Callable[[Any, Any], Any]] = FUNCTIONS,
    holds: Callable[[Any], bool] = bool,
) -> dict[str, T]:
    """Runs `program` on `tensors`, by input name, and returns its outputs by name.

    `allocate` makes an output or scratch tensor of a shape. Outputs in `given` are written in place, and
    aliased outputs are their input. `launch` gets each Launch with its grid and its arguments: input tensors,
    scalars, output tensors. Sizes may be symbolic if `functions` accept them; then `holds` tells whether a
    symbolic condition is known to be true.
    """
    symbols = bind(
        program, {name: shape_of(tensor) for name, tensor in tensors.items()}, attributes, functions, holds
    )
    held: dict[str, T] = dict(tensors)
    for spec in (*program.outputs, *program.scratch):
        if spec.alias:
            held[spec.name] = tensors[spec.alias]
        elif given and spec.name in given:
            held[spec.name] = given[spec.name]
        else:
            held[spec.name] = allocate(spec, tuple(evaluate(size, symbols, functions) for size in spec.shape))
    for step in program.launches:
        x, y, z = (evaluate(size, symbols, functions) for size in step.grid)
        # nothing to do, and a driver refuses an empty grid
        if any(holds(blocks == 0) for blocks in (x, y, z)):
            continue
        scalars = [evaluate(scalar.value, symbols, functions) for scalar in step.scalars]
        launch(
            step,
            (x, y, z),
            [*(held[name] for name in step.inputs), *scalars, *(held[name] for name in step.outputs)],
        )
    return {spec.name: held[spec.name] for spec in program.outputs}


def bind(
    program: Program,
    shapes: Mapping[str, Sequence[Any]],
    attributes: Mapping[str, int],
    functions: Mapping[str, Callable[[Any, Any], Any]] = FUNCTIONS,
    holds: Callable[[Any], bool] = bool,
) -> dict[str, Any]:
    """The program's symbols for inputs of these shapes.

    Raises AntiphonError if names, ranks or sizes are known not to fit.
    """
    wanted = {spec.name for spec in program.inputs}
    if set(shapes) != wanted or set(attributes) != set(program.attributes):
        found, expected = sorted({*shapes, *attributes}), sorted({*wanted, *program.attributes})
        raise AntiphonError(
            f"{program.op} ({program.name}) takes {', '.join(expected)}; found {', '.join(found)}."
        )
    symbols: dict[str, Any] = dict(attributes)
    expressions: list[tuple[Operand, str, Any]] = []
    for spec in program.inputs:
        for size, found in zip(spec.shape, _sizes(program, spec, shapes[spec.name]), strict=True):
            name = size.removeprefix("*")
            if name.isidentifier() and name not in symbols:
                symbols[name] = found
            else:
                expressions.append((spec, name, found))
    for name, text in program.symbols.items():
        symbols[name] = evaluate(text, symbols, functions)
    for spec, size, found in expressions:
        expected = evaluate(size, symbols, functions)
        if holds(expected != found):
            raise AntiphonError(
                f"{program.op} ({program.name}): "
                f"{spec.name} has {found} where {size} = {expected} is expected."
            )
    return symbols


def select(
    programs: Iterable[Program],
    op: str,
    inputs: Mapping[str, tuple[str, Sequence[Any]]],
    attributes: Mapping[str, int],
    functions: Mapping[str, Callable[[Any, Any], Any]] = FUNCTIONS,
    holds: Callable[[Any], bool] = bool,
) -> Program:
    """The first program of `op` that accepts inputs of these (dtype, shape) and attributes.

    Raises AntiphonError with the reasons if there is none. With symbolic sizes, a program's condition must be
    known to hold, so that the selected program serves all sizes.
    """
    reasons = []
    for program in programs:
        if program.op != op:
            continue
        reason = _misfit(program, inputs, attributes, functions, holds)
        if reason is None:
            return program
        reasons.append(f"{program.name}: {reason}")
    if not reasons:
        raise AntiphonError(f"No kernels of {op} are compiled here; antiphon plugins list shows what is.")
    raise AntiphonError(
        f"No compiled kernel of {op} fits: "
        f"{'; '.join(reasons[:4])}{f'; and {len(reasons) - 4} more' if len(reasons) > 4 else ''}."
    )


def _misfit(
    program: Program,
    inputs: Mapping[str, tuple[str, Sequence[Any]]],
    attributes: Mapping[str, int],
    functions: Mapping[str, Callable[[Any, Any], Any]],
    holds: Callable[[Any], bool],
) -> str | None:
    dtypes = {spec.name: spec.dtype for spec in program.inputs}
    if set(dtypes) != set(inputs):
        return f"takes {', '.join(dtypes)}, found {', '.join(inputs)}"
    for name, (dtype, _) in inputs.items():
        if dtype != dtypes[name]:
            return f"{name} is {dtypes[name]}, found {dtype}"
    try:
        symbols = bind(
            program, {name: shape for name, (_, shape) in inputs.items()}, attributes, functions, holds
        )
    except AntiphonError as error:
        return str(error).rstrip(".")
    if not holds(evaluate(program.when, symbols, functions)):
        return f"is for {program.when}"
    return None


def _sizes(program: Program, spec: Operand, shape: Sequence[Any]) -> list[Any]:
    if spec.shape and spec.shape[0].startswith("*"):
        leading = len(shape) - len(spec.shape) + 1
        if leading >= 1:
            return [math.prod(shape[:leading]), *shape[leading:]]
    elif len(shape) == len(spec.shape):
        return list(shape)
    raise AntiphonError(
        f"{program.op} ({program.name}): {spec.name} is [{', '.join(spec.shape)}]; found {list(shape)}."
    )
