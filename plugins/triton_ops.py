"""The compiled ops in PyTorch: operators `antiphon_triton::FOLDER`, made by `torch.library.triton_op`.

An operator is made from the programs of an op. It takes the op's inputs, then its integer attributes, in the
order of the registry. It returns the outputs that have memory of their own; an aliased output is written in
place, over its input. Programs with further inputs become `FOLDER_with_INPUT...`. The kernels stay visible to
torch.export and AOTInductor, which compile them into the stage. `use_triton_ops` puts the operators into a
captured graph.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.library import triton_op, wrap_triton

from ..runtime.bundle.errors import AntiphonError, UnsupportedTarget, require_extra
from ..runtime.kernels.contract import GPU_TARGETS, Launch, Operand, Program
from ..runtime.kernels.expression import FUNCTIONS
from ..runtime.kernels.invoke import invoke, select
from .registry import FOLDERS, OPS
from .tools.programs import kernel_function, programs

NAMESPACE = "antiphon_triton"
_SYMBOLIC = {**FUNCTIONS, "min": torch.sym_min, "max": torch.sym_max}

Captured = TypeVar("Captured", ExportedProgram, GraphModule)


@dataclass(frozen=True)
class TritonOp:
    """One operator: the programs with the same signature."""

    op: str
    name: str
    """Its name in the namespace."""
    inputs: tuple[str, ...]
    attributes: tuple[str, ...]
    outputs: tuple[str, ...]
    aliases: Mapping[str, str]
    """By output written in place: the input whose memory it is.

    The operator does not return these outputs.
    """
    programs: tuple[Program, ...]

    @property
    def returned(self) -> tuple[str, ...]:
        return tuple(name for name in self.outputs if name not in self.aliases)


_REGISTERED: dict[str, tuple[TritonOp, Any]] = {}
"""The registered operators by name; PyTorch drops a registration when its definition is deleted."""


def register(target: str | None = None, ops: Iterable[str] = ()) -> dict[str, TritonOp]:
    """Register the operators of the named ops (default: all) with the programs for `target`; return them by
    name.

    The default target is that of this machine's GPU. Registering again is cheap and replaces the programs of
    another target. Raises AntiphonError without Triton, without a target or GPU, and for an unknown op or
    target.
    """
    require_extra("kernels", "The operators of antiphon_triton", "triton")
    found = {item.name: item for item in triton_ops(programs(target or _target_at_hand(), ops))}
    for name, item in found.items():
        if name not in _REGISTERED or _REGISTERED[name][0] != item:
            _REGISTERED[name] = (item, _define(item))
    return found


def triton_ops(available: Iterable[Program]) -> Iterator[TritonOp]:
    """The operators of these programs: one for each op and set of inputs.

    Raises AntiphonError if two programs of one operator differ in signature.
    """
    groups: dict[tuple[str, frozenset[str]], list[Program]] = {}
    for program in available:
        groups.setdefault((program.op, frozenset(spec.name for spec in program.inputs)), []).append(program)
    for (op, given), members in groups.items():
        known = OPS[op]
        inputs = _in_order(
            given, (name for name, _ in known.inputs), (spec.name for spec in members[0].inputs)
        )
        more = [name for name in inputs if name not in dict(known.inputs)]
        less = [name for name, _ in known.inputs if name not in given]
        name = "_".join(
            [FOLDERS[op], *(["with", *more] if more else []), *(["without", *less] if less else [])]
        )
        outputs = tuple(spec.name for spec in members[0].outputs)
        aliases = {spec.name: spec.alias for spec in members[0].outputs if spec.alias}
        for member in members:
            if {spec.name: spec.alias for spec in member.outputs} != {
                output: aliases.get(output, "") for output in outputs
            }:
                raise AntiphonError(
                    f"{op}: the programs {members[0].name} and {member.name} take the same inputs, "
                    "but differ in what they write in place."
                )
            if set(member.attributes) != set(members[0].attributes):
                raise AntiphonError(
                    f"{op}: the programs {members[0].name} and {member.name} take the same inputs, "
                    "but differ in their attributes."
                )
        attributes = _in_order(
            frozenset(members[0].attributes),
            (attribute for attribute, _ in known.attributes),
            members[0].attributes,
        )
        yield TritonOp(op, name, inputs, attributes, outputs, aliases, tuple(members))


def use_triton_ops(captured: Captured, target: str | None = None) -> Captured:
    """Replace every operator `antiphon::FOLDER` of a captured graph by `antiphon_triton::FOLDER`; return
    `captured`.

    The graph is changed in place. A state (an input that an aliased output overwrites) is updated in place if
    it is an input of the graph and nothing else reads it; else a copy is updated. Raises AntiphonError if no
    program fits the dtypes and sizes of a call: a varying size needs a program that accepts all its values.
    """
    module = captured.graph_module if isinstance(captured, ExportedProgram) else captured
    calls = [
        node for node in module.graph.nodes if node.op == "call_function" and _replaced_op(node) is not None
    ]
    registered = register(target, dict.fromkeys(str(_replaced_op(node)) for node in calls)) if calls else {}
    items = []
    for node in calls:  # all are checked before the first is replaced
        op = str(_replaced_op(node))
        if FOLDERS[op] not in registered:
            raise AntiphonError(f"No program of {op} takes exactly the op's own inputs.")
        items.append(registered[FOLDERS[op]])
        given = _arguments(node)
        _select(
            items[-1],
            {name: given[name].meta["val"] for name in items[-1].inputs},
            {name: int(given[name]) for name in items[-1].attributes},
        )
    for node, item in zip(calls, items, strict=True):
        _replace(captured, node, item)
    module.graph.lint()
    module.recompile()
    return captured


def _define(item: TritonOp) -> Any:
    kernels = {
        step.kernel: kernel_function(step.kernel) for program in item.programs for step in program.launches
    }

    def launch(step: Launch, grid: tuple[Any, Any, Any], arguments: list[Any]) -> None:
        bits = [
            value.view(torch.uint8)
            if isinstance(value, Tensor) and value.dtype == torch.float8_e4m3fn
            else value
            for value in arguments
        ]
        wrap_triton(kernels[step.kernel])[grid](
            *bits, **step.constants, num_warps=step.warps, num_stages=step.stages
        )

    def run(*positional: Any, **named: Any) -> Any:
        given = signature.bind(*positional, **named).arguments
        tensors = {name: _contiguous(item, name, given[name]) for name in item.inputs}
        attributes = {name: given[name] for name in item.attributes}
        program = _select(item, tensors, attributes)
        device = tensors[item.inputs[0]].device

        def allocate(spec: Operand, shape: tuple[Any, ...]) -> Tensor:
            # Scratch has one axis: with several, PyTorch compares a size with 1, which would fix a dynamic
            # size to its example.
            sizes = (math.prod(shape),) if spec in program.scratch else shape
            return torch.empty(sizes, dtype=getattr(torch, spec.dtype), device=device)

        outputs = invoke(
            program,
            tensors,
            attributes,
            shape_of=lambda tensor: tensor.shape,
            allocate=allocate,
            launch=launch,
            functions=_SYMBOLIC,
            holds=statically_known_true,
        )
        returned = tuple(_with_leading_axes(program, name, outputs[name], tensors) for name in item.returned)
        return returned if len(returned) > 1 else returned[0] if returned else None

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    returns: Any = {0: None, 1: Tensor}.get(len(item.returned), tuple[(Tensor,) * len(item.returned)])  # type: ignore[misc]
    signature = inspect.Signature(
        [
            inspect.Parameter(name, kind, annotation=Tensor if name in item.inputs else int)
            for name in (*item.inputs, *item.attributes)
        ],
        return_annotation=returns,
    )
    run.__signature__ = signature  # type: ignore[attr-defined]  # PyTorch infers the schema from it
    definition = triton_op(f"{NAMESPACE}::{item.name}", run, mutates_args=tuple(item.aliases.values()))
    # PyTorch finds an operator's kernels by name in its source, which does not name ours; torch.compile keys
    # its cache by them.
    torch._library.triton.triton_ops_to_kernels[f"{NAMESPACE}::{item.name}"] = list(kernels.values())
    return definition


def _select(item: TritonOp, tensors: Mapping[str, Tensor], attributes: Mapping[str, int]) -> Program:
    inputs = {
        name: (str(tensor.dtype).removeprefix("torch."), tensor.shape) for name, tensor in tensors.items()
    }
    return select(item.programs, item.op, inputs, attributes, _SYMBOLIC, statically_known_true)


def _contiguous(item: TritonOp, name: str, tensor: Tensor) -> Tensor:
    if name not in item.aliases.values():
        return tensor.contiguous()
    if not tensor.is_contiguous():
        raise AntiphonError(
            f"{NAMESPACE}::{item.name} writes {name} in place and needs it contiguous; "
            f"found strides {tuple(tensor.stride())}."
        )
    return tensor


def _with_leading_axes(program: Program, name: str, tensor: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
    """`tensor` with its first axis `rows` split into the axes of the first input that has several for it
    (`*rows`)."""
    rows = program.tensor(name).shape[:1]
    for spec in program.inputs:
        if rows and spec.shape[:1] == (f"*{rows[0]}",):
            return tensor.view(*tensors[spec.name].shape[: 1 - len(spec.shape) or None], *tensor.shape[1:])
    return tensor


def _in_order(wanted: frozenset[str], *orders: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for order in orders for name in order if name in wanted))


def _target_at_hand() -> str:
    if not torch.cuda.is_available():
        raise UnsupportedTarget(
            f"There is no GPU to choose kernels for; name the target, one of {', '.join(GPU_TARGETS)}."
        )
    major, minor = torch.cuda.get_device_capability()
    fitting = [target for target in GPU_TARGETS if int(target[2:-1]) == major and int(target[-1]) <= minor]
    if not fitting:
        raise UnsupportedTarget(
            f"There are no kernels for compute capability {major}.{minor}; "
            f"they are compiled for {', '.join(GPU_TARGETS)}."
        )
    return fitting[-1]


def _replaced_op(node: Node) -> str | None:
    """The op of ai.antiphon that a node calls as `antiphon::FOLDER`."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return None
    return next((op for op, folder in FOLDERS.items() if node.target.name() == f"antiphon::{folder}"), None)


def _arguments(node: Node) -> dict[str, Any]:
    """The arguments of an operator call, by name."""
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}


def _replace(captured: ExportedProgram | GraphModule, node: Node, item: TritonOp) -> None:
    """Turns `node` into a call of `item`; users of an aliased output then use the state itself."""
    graph, given = node.graph, _arguments(node)
    for state in item.aliases.values():
        if not _is_ours_to_change(captured, given[state], node):
            with graph.inserting_before(node):
                copied = graph.call_function(
                    torch.ops.aten.clone.default, (given[state],), {"memory_format": torch.contiguous_format}
                )
            copied.meta["val"] = given[state].meta["val"].clone()
            given[state] = copied
    node.args = (*(given[name] for name in item.inputs), *(int(given[name]) for name in item.attributes))
    node.kwargs = {}
    node.target = getattr(getattr(torch.ops, NAMESPACE), item.name).default
    if not item.aliases:
        return
    before: Sequence[Any] = node.meta["val"] if len(item.outputs) > 1 else (node.meta["val"],)
    after = tuple(before[item.outputs.index(name)] for name in item.returned)
    node.meta["val"] = after if len(after) > 1 else after[0] if after else None
    for user in list(node.users) if len(item.outputs) > 1 else [node]:
        name = item.outputs[user.args[1]] if user is not node else item.outputs[0]  # type: ignore[index]
        if name in item.aliases or len(after) == 1:
            heir = given[item.aliases[name]] if name in item.aliases else node
            user.replace_all_uses_with(heir)
            if isinstance(captured, ExportedProgram):
                captured.graph_signature.replace_all_uses(user.name, heir.name)
            if user is not node:
                graph.erase_node(user)
        else:
            user.args = (node, item.returned.index(name))


def _is_ours_to_change(captured: ExportedProgram | GraphModule, state: Any, reader: Node) -> bool:
    if state.op != "placeholder" or set(state.users) != {reader}:
        return False
    return not isinstance(captured, ExportedProgram) or state.name in captured.graph_signature.user_inputs
