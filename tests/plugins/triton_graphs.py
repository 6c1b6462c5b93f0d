"""What PyTorch makes of the operators of antiphon_triton:
a program that traces them for a GPU that is not here and prints what it found as JSON.

A process of its own, with TRITON_INTERPRET=0: kernels decide when they are imported whether they are
interpreted, and PyTorch looks into compiled ones. Every launch is printed as `launch_facts` gives it, from
the contract (`expected`) and from PyTorch's graph (`found`).
"""

from __future__ import annotations

import ast
import builtins
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

import sympy  # type: ignore[import-untyped]
import torch
import triton
from torch._functorch.aot_autograd import aot_export_module
from torch._higher_order_ops.triton_kernel_wrap import kernel_side_table
from torch._inductor.codegen.wrapper import user_defined_triton_kernel_transitive_closure_source_code
from torch._inductor.fx_passes.reinplace import reinplace_inplaceable_ops_core
from torch._subclasses import FakeTensorMode
from torch.export import Dim
from torch.fx import GraphModule, Node
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from triton.backends.compiler import GPUTarget

from antiphon.plugins.registry import FOLDERS
from antiphon.plugins.tools.case import Case
from antiphon.plugins.tools.cases import cases
from antiphon.plugins.tools.programs import kernel_function
from antiphon.plugins.triton_ops import NAMESPACE, TritonOp, register, use_triton_ops
from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.kernels.contract import Launch, Program
from antiphon.runtime.kernels.expression import evaluate
from antiphon.runtime.kernels.invoke import bind, invoke, select

TARGET = "sm90"
SIZES = (2, 5, 17, 40, 1000)
"""Values of a dynamic size at which its graph is compared."""
GROWING = ("tokens", "rows", "batch")
"""The size that varies in use: the first of these that an op has."""


class Device:
    """What PyTorch asks of Triton's driver when it reads which tensors a kernel writes."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", int(TARGET[2:]), 32)


class Call(torch.nn.Module):
    def __init__(self, item: TritonOp, attributes: Mapping[str, int]) -> None:
        super().__init__()
        self.op = getattr(getattr(torch.ops, NAMESPACE), item.name).default
        self.attributes = [attributes[name] for name in item.attributes]

    def forward(self, *tensors: torch.Tensor) -> Any:
        return _tuple(self.op(*tensors, *self.attributes))


def main() -> None:
    triton.runtime.driver.set_active(Device())
    for folder in FOLDERS.values():
        import_module(f"antiphon.plugins.{folder}.torch_op")  # registers antiphon::FOLDER
    operators = register(TARGET, sys.argv[1:])
    found: dict[str, Any] = {
        "schemas": {
            name: str(getattr(getattr(torch.ops, NAMESPACE), name).default._schema) for name in operators
        }
    }
    found["static"] = [static_graph(item, case) for item, case in telling_cases(operators.values())]
    found["dynamic"] = [
        dynamic_graph(item, next(cases(item.programs[0])))
        for item in operators.values()
        if item.name == FOLDERS[item.op]
    ]
    found["captured"] = {"causal_conv_state": captured_conv(), "attention": captured_attention()}
    found["unresolved"] = {
        name: unresolved(kernel_function(name)) for name in sorted(kernels_of(operators.values()))
    }
    print(json.dumps(found))


def telling_cases(items: Iterable[TritonOp]) -> Iterator[tuple[TritonOp, Case]]:
    """Cases that together launch every kernel, each taken by its own program."""
    seen: set[str] = set()
    for item in items:
        for program in item.programs:
            kernels = {step.kernel for step in program.launches}
            for case in cases(program) if kernels - seen else ():
                shapes = {name: array.shape for name, array in case.inputs.items()}
                if _selected(item.programs, program, shapes, case.attributes) is program:
                    seen |= kernels
                    yield item, case
                    break


def kernels_of(items: Iterable[TritonOp]) -> set[str]:
    return {step.kernel for item in items for program in item.programs for step in program.launches}


def unresolved(kernel: Any) -> list[str]:
    """Names that the kernel reads and that are not in the source by itself,
    which is how Inductor compiles it: with the functions it calls, no imports.
    """
    tree = ast.parse(
        "import triton\nimport triton.language as tl\n"
        + user_defined_triton_kernel_transitive_closure_source_code(kernel)
    )
    known = {
        name.asname or name.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    } | set(dir(builtins))
    known |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)} | {
        node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)
    }
    known |= {
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    return sorted({node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - known)


def static_graph(item: TritonOp, case: Case) -> dict[str, Any]:
    """One operator at a case's sizes: launches, results and what the kernels were found to write."""
    shapes = {name: tuple(array.shape) for name, array in case.inputs.items()}
    with FakeTensorMode():
        tensors = [
            torch.empty(shapes[name], dtype=_dtype(case.program, name), device="cuda") for name in item.inputs
        ]
        results = Call(item, case.attributes)(*tensors)
        eager = (
            getattr(torch.ops.antiphon, item.name)(*tensors, *Call(item, case.attributes).attributes)
            if item.name == FOLDERS[item.op]
            else None
        )
    graph = lowered(Call(item, case.attributes), tensors)[0]
    program = _selected(item.programs, case.program, shapes, case.attributes)
    return {
        "op": item.op,
        "program": program.name,
        "expected": contract_launches(program, shapes, case.attributes),
        "found": graph_launches(graph, item, program),
        "unwritten": unwritten(graph, program),
        "results": [_described(tensor) for tensor in results],
        "promised": [
            [list(case.expected()[name].shape), program.tensor(name).dtype] for name in item.returned
        ],
        "eager": None
        if eager is None
        else [_described(_tuple(eager)[item.outputs.index(name)]) for name in item.returned],
    }


def dynamic_graph(item: TritonOp, case: Case) -> dict[str, Any]:
    """One operator exported with one growing size, and its launches at several values of it beside those
    of the program that was taken.
    """
    program = case.program
    growing = next(
        name
        for name in GROWING
        if any(name in (size.removeprefix("*") for size in spec.shape) for spec in program.inputs)
    )
    shapes = {value: _shapes_at(case, {growing: value}) for value in SIZES}
    axes = {
        spec.name: {
            axis: Dim(growing, min=2, max=4096)
            for axis, size in enumerate(spec.shape)
            if size.removeprefix("*") == growing
        }
        for spec in program.inputs
    }
    with FakeTensorMode(shape_env=ShapeEnv()):
        tensors = tuple(
            torch.empty(shapes[5][name], dtype=_dtype(program, name), device="cuda") for name in item.inputs
        )
    exported = torch.export.export(
        Call(item, case.attributes),
        tensors,
        dynamic_shapes=(tuple(axes[name] or None for name in item.inputs),),
    )
    inputs = [node.meta["val"] for node in exported.graph.nodes if node.op == "placeholder"]
    graph = lowered(exported.graph_module, inputs)[0]
    environment = next(value.fake_mode for value in inputs).shape_env
    taken = next(
        member
        for member in item.programs
        if all(_fits(member, program, shapes[value], case.attributes) for value in SIZES)
    )
    return {
        "op": item.op,
        "growing": growing,
        "guards": [str(guard.expr) for guard in environment.guards if not _joins_axes(guard.expr)],
        "ranges": [[int(bound.lower), int(bound.upper)] for bound in exported.range_constraints.values()],
        "found": [graph_launches(graph, item, taken, value) for value in SIZES],
        "expected": [contract_launches(taken, shapes[value], case.attributes) for value in SIZES],
    }


def captured_conv() -> dict[str, Any]:
    """A module that calls antiphon::causal_conv_state, exported, its operator replaced,
    and lowered as far as kernels.
    """

    class Layer(torch.nn.Module):
        def forward(
            self, x: torch.Tensor, weight: torch.Tensor, past: torch.Tensor, query_length: torch.Tensor
        ) -> Any:
            y, present = torch.ops.antiphon.causal_conv_state(x, weight, past, query_length)
            return y * 2, present

    with FakeTensorMode(shape_env=ShapeEnv()):
        x, weight = (
            torch.empty(shape, dtype=torch.bfloat16, device="cuda") for shape in ((2, 5, 32), (32, 1, 4))
        )
        past, length = (
            torch.empty((2, 3, 32), dtype=torch.bfloat16, device="cuda"),
            torch.empty(2, dtype=torch.int64, device="cuda"),
        )
    exported = torch.export.export(
        Layer(),
        (x, weight, past, length),
        dynamic_shapes=({1: Dim("tokens", min=1, max=4096)}, None, None, None),
    )
    return _captured(exported)


def captured_attention() -> dict[str, Any]:
    """The same of antiphon::attention, whose caches are the caller's:
    one is read again afterwards, one is not.
    """

    class Layer(torch.nn.Module):
        def forward(
            self,
            query: torch.Tensor,
            key: torch.Tensor,
            value: torch.Tensor,
            past_key: torch.Tensor,
            past_value: torch.Tensor,
            at: torch.Tensor,
        ) -> Any:
            y, present_key, present_value = torch.ops.antiphon.attention(
                query, key, value, past_key, past_value, at, at, 4, 2
            )
            return y, present_key, present_value, past_value.sum()

    with FakeTensorMode(shape_env=ShapeEnv()):
        query, key, value, past_key, past_value = (
            torch.empty(shape, dtype=torch.bfloat16, device="cuda")
            for shape in ((1, 3, 512), (1, 3, 256), (1, 3, 256), (1, 2, 96, 128), (1, 2, 96, 128))
        )
        at = torch.empty(1, dtype=torch.int64, device="cuda")
    return _captured(torch.export.export(Layer(), (query, key, value, past_key, past_value, at)))


def _captured(exported: torch.export.ExportedProgram) -> dict[str, Any]:
    before = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
    results = [_described(value) for value in _results(exported.graph_module)]
    use_triton_ops(exported, TARGET)
    exported.validate()
    inputs = [node.meta["val"] for node in exported.graph.nodes if node.op == "placeholder"]
    graph, signature = lowered(exported.module(check_guards=False), inputs)
    before_reuse = written(graph)
    reinplace_inplaceable_ops_core(graph.graph)
    return {
        "before": before,
        "after": [str(node.target) for node in exported.graph.nodes if node.op == "call_function"],
        "outputs": [spec.arg.name for spec in exported.graph_signature.output_specs],
        "lowered": [str(node.target) for node in graph.graph.nodes if node.op == "call_function"],
        "mutated": list(signature.user_inputs_to_mutate.values()),
        "written": before_reuse,
        "copied": written(graph),
        "same_results": results == [_described(value) for value in _results(exported.graph_module)],
    }


def lowered(module: torch.nn.Module, inputs: Sequence[torch.Tensor]) -> tuple[GraphModule, Any]:
    """The module as AOTAutograd hands it to Inductor, kernels in place of operators, with its signature."""
    graph, signature = aot_export_module(module, inputs, trace_joint=False)
    assert isinstance(graph, GraphModule)
    return graph, signature


def contract_launches(
    program: Program, shapes: Mapping[str, Sequence[int]], attributes: Mapping[str, int]
) -> list[dict[str, Any]]:
    """The launches of `program` by the contract; tensors stand as their names,
    an aliased output as its input.
    """
    launches: list[dict[str, Any]] = []

    def launch(step: Launch, grid: tuple[int, int, int], arguments: list[Any]) -> None:
        values = [value[0] if isinstance(value, tuple) else value for value in arguments]
        launches.append(
            launch_facts(step.kernel.split(".")[1], grid, values, step.constants, step.warps, step.stages)
        )

    held = {name: (name, shape) for name, shape in shapes.items()}
    invoke(
        program,
        held,
        attributes,
        shape_of=lambda held: held[1],
        allocate=lambda spec, shape: (spec.name, shape),
        launch=launch,
    )
    return launches


def graph_launches(
    graph: GraphModule, item: TritonOp, program: Program, growing: int = 0
) -> list[dict[str, Any]]:
    """The launches in a lowered graph, in the same form, with `growing` for the dynamic size."""
    names = iter([spec.name for spec in (*program.outputs, *program.scratch) if not spec.alias])
    inputs = iter(item.inputs)
    held: dict[Node, Any] = {}
    launches = []

    def value(given: Any) -> Any:
        if isinstance(given, Node):
            return held[given] if given in held else value(given.meta["val"])
        if isinstance(given, torch.SymInt):
            expression = given.node.expr
            return int(expression.subs({symbol: growing for symbol in expression.free_symbols}))
        return given

    for node in graph.graph.nodes:
        if node.op == "placeholder":
            held[node] = next(inputs)
        elif node.target is torch.ops.aten.empty.memory_format:
            held[node] = next(names)
        elif node.target in (torch.ops.aten.view.dtype, torch.ops.aten.view.default):
            held[node] = held[node.args[0]]
        elif node.target is torch.ops.higher_order.triton_kernel_wrapper_functional:
            kernel: Any = kernel_side_table.get_kernel(node.kwargs["kernel_idx"])
            given = {
                **node.kwargs["kwargs"],
                **kernel_side_table.get_constant_args(node.kwargs["constant_args_idx"]),
            }
            held[node] = {name: value(argument) for name, argument in given.items()}
            config, constants = (
                kernel.configs[0],
                {parameter.name for parameter in kernel.fn.params if parameter.is_constexpr},
            )
            ordered = [held[node][name] for name in kernel.fn.arg_names if name not in constants]
            grid = [value(size) for size in node.kwargs["grid"][0]]
            launches.append(
                launch_facts(
                    kernel.fn.__name__,
                    grid,
                    ordered,
                    {name: given[name] for name in constants},
                    config.num_warps,
                    config.num_stages,
                )
            )
        elif (
            node.target is not None
            and getattr(node.target, "__name__", "") == "getitem"
            and node.args[0] in held
        ):
            held[node] = held[node.args[0]][node.args[1]]
    return launches


def launch_facts(
    kernel: str,
    grid: Sequence[int],
    arguments: Sequence[Any],
    constants: Mapping[str, Any],
    warps: int,
    stages: int,
) -> dict[str, Any]:
    return {
        "kernel": kernel,
        "grid": list(grid),
        "arguments": list(arguments),
        "constants": dict(sorted(constants.items())),
        "warps": warps,
        "stages": stages,
    }


def written(graph: GraphModule) -> list[list[str]]:
    """Per launch the kernel's parameters that PyTorch, reading the kernel,
    takes to be written (and copies first, until it finds that it need not).
    """
    return [
        list(node.kwargs["tensors_to_clone"])
        for node in graph.graph.nodes
        if node.target is torch.ops.higher_order.triton_kernel_wrapper_functional
    ]


def unwritten(graph: GraphModule, program: Program) -> list[str]:
    """Outputs of launches that PyTorch, reading the kernels, does not see written."""
    nodes = [
        node
        for node in graph.graph.nodes
        if node.target is torch.ops.higher_order.triton_kernel_wrapper_functional
    ]
    missed = []
    for step, node in zip(program.launches, nodes, strict=True):
        kernel: Any = kernel_side_table.get_kernel(node.kwargs["kernel_idx"])
        first = len(step.inputs) + len(step.scalars)
        missed += [
            name
            for name in kernel.fn.arg_names[first : first + len(step.outputs)]
            if name not in node.kwargs["tensors_to_clone"]
        ]
    return missed


def _described(tensor: torch.Tensor) -> list[Any]:
    return [list(tensor.shape), str(tensor.dtype).removeprefix("torch.")]


def _results(module: GraphModule) -> Iterator[torch.Tensor]:
    output = next(node for node in module.graph.nodes if node.op == "output")
    return (node.meta["val"] for node in output.args[0])


def _shapes_at(case: Case, sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    program = case.program
    symbols = {
        **bind(program, {name: array.shape for name, array in case.inputs.items()}, case.attributes),
        **sizes,
    }
    for name, text in program.symbols.items():
        symbols[name] = evaluate(text, symbols)
    return {
        spec.name: tuple(evaluate(size.removeprefix("*"), symbols) for size in spec.shape)
        for spec in program.inputs
    }


def _selected(
    programs: Sequence[Program],
    like: Program,
    shapes: Mapping[str, Sequence[int]],
    attributes: Mapping[str, int],
) -> Program:
    return select(
        programs, like.op, {spec.name: (spec.dtype, shapes[spec.name]) for spec in like.inputs}, attributes
    )


def _fits(
    program: Program, like: Program, shapes: Mapping[str, Sequence[int]], attributes: Mapping[str, int]
) -> bool:
    try:
        return _selected([program], like, shapes, attributes) is program
    except AntiphonError:
        return False


def _joins_axes(guard: sympy.Basic) -> bool:
    """Whether a guard only says that axes that were exported under one name are equal."""
    return isinstance(guard, sympy.Eq) and guard.lhs.is_Symbol and guard.rhs.is_Symbol


def _dtype(program: Program, name: str) -> torch.dtype:
    return getattr(torch, program.tensor(name).dtype)


def _tuple(results: Any) -> tuple[torch.Tensor, ...]:
    return results if isinstance(results, tuple) else () if results is None else (results,)


if __name__ == "__main__":
    main()
