"""Programs as TensorRT plugins: the real Python half of tensorrt.plugin over a stand-in for its compiled half, and what comes out against the contract."""

from __future__ import annotations

import dataclasses
import random
import re
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.plugins import tensorrt_plugins
from antiphon.plugins.registry import FOLDERS
from antiphon.plugins.tensorrt_nodes import axes, fixed_sizes, nodes
from antiphon.plugins.tensorrt_plugins import add_program, register_program
from antiphon.plugins.tools.programs import programs
from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.kernels.contract import GPU_TARGETS, Image, Launch, Operand, Program, Scalar, image_key, parameters
from antiphon.runtime.kernels.expression import evaluate
from antiphon.runtime.kernels.invoke import invoke

from . import fake_tensorrt
from .fake_tensorrt import DataType, Network, Step

TARGET = "sm89"
TYPES = {
    "bfloat16": DataType.BF16, "float16": DataType.HALF, "float32": DataType.FLOAT, "float8_e4m3fn": DataType.FP8, "int64": DataType.INT64,
    "int32": DataType.INT32, "int8": DataType.INT8, "uint8": DataType.INT8, "bool": DataType.INT8,
}  # fmt: skip


@dataclass(frozen=True)
class Library:
    """Images of some programs; where they were not compiled, what a contract says of them."""

    images: Mapping[str, Image]
    texts: Mapping[str, str]
    target: str = TARGET

    def ptx(self, key: str) -> str:
        return self.texts[key]


@dataclass(eq=False)
class Block:
    """A tensor's memory, told from others of the same shape."""

    shape: tuple[int, ...]


@pytest.fixture(scope="module")
def module() -> Iterator[ModuleType]:
    folder = fake_tensorrt.plugin_sources()
    if folder is None:
        pytest.skip("needs the Python sources of tensorrt.plugin: pip install --no-deps tensorrt-cu13-bindings==11.4.0.106")
    with fake_tensorrt.real_plugin_module(folder) as found:
        yield found


@pytest.fixture
def plugin(module: ModuleType) -> ModuleType:
    """tensorrt.plugin without the ops of other tests."""
    forget(module)
    return module


def forget(module: ModuleType) -> None:
    tensorrt_plugins._registered.clear()
    if hasattr(module.op, "antiphon"):
        delattr(module.op, "antiphon")


SMALL = Program(
    op="MoE", name="small-test",
    inputs=(Operand("x", "bool", ("*rows", "width")), Operand("past", "float16", ("rows * heads", "2 * width"))),
    outputs=(Operand("y", "bool", ("rows", "width + heads")), Operand("present", "float16", ("rows * heads", "2 * width"), alias="past")),
    launches=(
        Launch("a.first", ("x", "past", "x"), (Scalar("left", "17 - width"),), ("z", "present"), ("ceil_div(width, 2)", "max(2, rows)", "1"), warps=2),
        Launch("a.second", ("past", "z"), (Scalar("rows", "rows"), Scalar("sum", "min(rows, 3) + width // heads")), ("y",), ("48 // (width + 1)", "1", "rows")),
    ),
    attributes=("heads",), scratch=(Operand("z", "float32", ("rows * heads", "width - 1")),), when="width <= 16",
)  # fmt: skip
"""Every operation, an output in place that the next launch reads by the input's name, a tensor taken twice, several leading axes."""


def richest(op: str) -> Program:
    return max(programs(TARGET, [op]), key=lambda program: len(program.launches))


def compiled(compiler: ProcessPoolExecutor, program: Program) -> Library:
    from antiphon.plugins.tools.compile_worker import Job, compile_kernel

    jobs = {image_key(program, step): Job(image_key(program, step), TARGET, parameters(program, step), step) for step in program.launches}
    made = list(compiler.map(compile_kernel, jobs.values()))
    return Library({one.key: one.image for one in made}, {one.key: one.ptx for one in made})


def uncompiled(program: Program, entry: str = "entry") -> Library:
    """Images as the contract alone tells them."""
    images = {
        image_key(program, step): Image(entry, TARGET, parameters(program, step), step.warps, 512 * place, 0, 0, "", entry)
        for place, step in enumerate(program.launches)
    }
    return Library(images, dict.fromkeys(images, "// PTX"))


def drawn_sizes(program: Program, chance: random.Random) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    """Shapes of all inputs, with two leading axes for `*name`, and attributes, for which no launch is empty."""
    bare = {size.removeprefix("*") for spec in program.inputs for size in spec.shape}
    unbound = sorted({name for name in bare if name.isidentifier() and name not in program.attributes and name not in program.symbols})
    while True:
        attributes = {name: chance.choice((1, 2, 4, 8)) for name in program.attributes}
        symbols: dict[str, int] = attributes | {name: chance.choice((1, 2, 3, 5, 16, 33, 128)) for name in unbound}
        try:
            for name, text in program.symbols.items():
                symbols[name] = evaluate(text, symbols)
        except ZeroDivisionError:
            continue
        shapes = {}
        for spec in program.inputs:
            sizes = tuple(evaluate(size.removeprefix("*"), symbols) for size in spec.shape)
            shapes[spec.name] = (1, *sizes) if spec.shape and spec.shape[0].startswith("*") else sizes
        if len(contract_launches(program, {name: Block(shape) for name, shape in shapes.items()}, attributes)) == len(program.launches):
            return shapes, attributes


def build(library: Library, program: Program, shapes: Mapping[str, tuple[int, ...]], attributes: Mapping[str, int]) -> tuple[Network, dict[str, Any]]:
    """A network of `program` alone, all axes varying but those that it needs to be fixed."""
    network = Network()
    fixed = {name for node in nodes(program, TARGET) for name in node.fixed}
    inputs = {}
    for spec in program.inputs:
        shape = shapes[spec.name] if fixed else [-1] * len(shapes[spec.name])
        inputs[spec.name] = network.add_input(spec.name, TYPES[spec.dtype], shape)
    return network, add_program(network, library, program, inputs, attributes)


def contract_launches(program: Program, blocks: Mapping[str, Block], attributes: Mapping[str, int]) -> list[tuple[Launch, tuple[int, ...], list[Any]]]:
    """What our own launcher would launch."""
    found: list[Any] = []
    invoke(
        program, blocks, attributes, shape_of=lambda block: block.shape, allocate=lambda spec, shape: Block(shape),
        launch=lambda step, grid, arguments: found.append((step, grid, arguments)),
    )  # fmt: skip
    return found


def check_steps(program: Program, library: Library, steps: list[Step], shapes: Mapping[str, tuple[int, ...]], attributes: Mapping[str, int]) -> None:
    """The engine launches what the contract does: same kernels, grids and scalars, on the same memory."""
    blocks = {name: Block(shape) for name, shape in shapes.items()}
    memory: dict[str, Block] = dict(blocks)
    launches = iter(contract_launches(program, blocks, attributes))
    for step, expected in zip(steps, program.launches, strict=True):
        launch, grid, arguments = next(launches)
        image = library.images[image_key(program, expected)]
        assert launch is expected and tuple(size.at(shapes) for size in step.grid) == grid
        assert tuple(size.at(shapes) for size in step.block) == (32 * image.warps, 1, 1) and step.shared_bytes.at(shapes) == image.shared_bytes
        assert step.kernel == image.entry and step.ptx == library.ptx(image_key(program, expected)).encode()
        first, last = len(launch.inputs), len(launch.inputs) + len(launch.scalars)
        assert [memory[tensor.name] for tensor in step.inputs] == arguments[:first]
        assert [scalar.at(shapes) for scalar in step.scalars] == arguments[first:last]
        for tensor, alias, block in zip(step.outputs, step.aliases, arguments[last:], strict=True):
            assert block not in memory.values() if alias < 0 else memory[step.inputs[alias].name] is block
            memory[tensor.name] = block
        for tensor, name in zip((*step.inputs, *step.outputs), (*launch.inputs, *launch.outputs), strict=True):
            assert tensor.dtype is TYPES[program.tensor(name).dtype]
            assert _flat(program.tensor(name), [size.at(shapes) for size in tensor.sizes]) == _flat(program.tensor(name), memory[tensor.name].shape)


def _flat(spec: Operand, shape: Any) -> list[int]:
    return list(axes(spec, shape).values())


@pytest.mark.parametrize("op", list(FOLDERS))
def test_every_program_launches_in_an_engine_as_by_the_contract(plugin: ModuleType, op: str) -> None:
    chance = random.Random(0)
    for program in programs(TARGET, [op]):
        program = dataclasses.replace(program, when="0 == 0")
        library = uncompiled(program)
        for _ in range(3):
            shapes, attributes = drawn_sizes(program, chance)
            network, outputs = build(library, program, shapes, attributes)
            assert list(outputs) == [spec.name for spec in program.outputs]
            check_steps(program, library, network.steps, shapes, attributes)


def test_engine_of_a_small_program_keeps_every_rule_of_the_contract(plugin: ModuleType) -> None:
    library = uncompiled(SMALL)
    network, outputs = build(library, SMALL, {"x": (2, 3, 9), "past": (24, 18)}, {"heads": 4})
    check_steps(SMALL, library, network.steps, {"x": (2, 3, 9), "past": (24, 18)}, {"heads": 4})
    check_steps(SMALL, library, network.steps, {"x": (1, 1, 2), "past": (4, 4)}, {"heads": 4})
    assert outputs["y"].dtype is DataType.INT8 and network.steps[0].aliases == [-1, 1]
    assert network.steps[1].inputs[0] is outputs["present"]
    assert [tensor.name for tensor in network.steps[0].inputs] == ["x", "past", "x"]


EXPRESSIONS = st.recursive(
    st.sampled_from(("rows", "width", "heads", "3", "16")),
    lambda part: st.one_of(
        st.tuples(part, st.sampled_from("+-*"), part).map(" ".join).map("({})".format),
        st.tuples(part, st.integers(1, 9)).map(lambda both: f"({both[0]} // {both[1]})"),
        st.tuples(part, st.integers(1, 9)).map(lambda both: f"ceil_div({both[0]}, {both[1]})"),
        st.tuples(st.sampled_from(("min", "max")), part, part).map(lambda three: f"{three[0]}({three[1]}, {three[2]})"),
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=40)
@given(text=EXPRESSIONS, rows=st.integers(1, 9), width=st.integers(1, 9), heads=st.integers(1, 9))
def test_tensorrt_calculates_any_size_as_the_contract_does(module: ModuleType, text: str, rows: int, width: int, heads: int) -> None:
    forget(module)
    step = Launch("a.b", ("x",), (Scalar("size", text), Scalar("heads", "heads")), ("y",), ("1", "1", "1"))
    program = dataclasses.replace(SMALL, inputs=SMALL.inputs[:1], outputs=(Operand("y", "int8", (text,)),), launches=(step,), scratch=())
    network, _ = build(uncompiled(program), program, {"x": (rows, 1, width)}, {"heads": heads})
    expected = evaluate(text, {"rows": rows, "width": width, "heads": heads})
    assert [scalar.at({"x": (rows, 1, width)}) for scalar in network.steps[0].scalars] == [expected, heads]
    assert network.steps[0].outputs[0].sizes[0].at({"x": (rows, 1, width)}) == expected


@pytest.mark.parametrize("op", list(FOLDERS))
def test_no_node_needs_a_size_that_its_inputs_do_not_show(op: str) -> None:
    assert [(program.name, node.name, node.fixed) for program in programs(TARGET, [op]) for node in nodes(program, TARGET) if node.fixed] == []


@pytest.mark.parametrize("op", list(FOLDERS))
def test_compiled_kernel_of_a_node_takes_what_tensorrt_passes(plugin: ModuleType, compiler: ProcessPoolExecutor, op: str) -> None:
    program = dataclasses.replace(programs(TARGET, [op])[0], when="0 == 0")
    library, (shapes, attributes) = compiled(compiler, program), drawn_sizes(program, random.Random(1))
    network, _ = build(library, program, shapes, attributes)
    check_steps(program, library, network.steps, shapes, attributes)
    for step in network.steps:
        text = step.ptx.decode()
        entry = re.search(rf"\.visible \.entry {step.kernel}\((.*?)\n\)(.*?)\{{", text, re.S)
        assert entry and ".target sm_89" in text
        widths = [int(width) for width in re.findall(r"\.param \.[ubs](\d+)", entry[1])]
        assert widths == [64] * len(step.inputs) + [32] * len(step.scalars) + [64] * len(step.outputs)
        assert int(re.search(r"\.reqntid (\d+)", entry[2])[1]) == step.block[0].at({})  # type: ignore[index]


@pytest.mark.parametrize("op", list(FOLDERS))
def test_nodes_run_one_by_one_give_the_reference_result(plugin: ModuleType, op: str) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("triton")
    from antiphon.plugins.tools import interpreter
    from antiphon.plugins.tools.cases import cases, errors

    program = richest(op)
    case = next(cases(program))
    network, outputs = build(uncompiled(program), program, {name: value.shape for name, value in case.inputs.items()}, case.attributes)
    interpreter._patch_interpreter()

    def tensor(name: str, shape: Any) -> Any:
        return torch.full(tuple(shape), 77, dtype=torch.uint8).to(interpreter._TORCH[program.tensor(name).dtype])  # outputs begin as garbage

    memory, shapes = {}, {name: value.shape for name, value in case.inputs.items()}
    for name, value in case.inputs.items():
        memory[name] = tensor(name, value.shape).copy_(torch.from_numpy(np.ascontiguousarray(value)))
    for step, launch in zip(network.steps, program.launches, strict=True):
        for made, alias, name in zip(step.outputs, step.aliases, launch.outputs, strict=True):
            memory[made.name] = tensor(name, [size.at(shapes) for size in made.sizes]) if alias < 0 else memory[step.inputs[alias].name]
        arguments = [*(memory[one.name] for one in step.inputs), *(one.at(shapes) for one in step.scalars), *(memory[one.name] for one in step.outputs)]
        interpreter._launch(launch, tuple(size.at(shapes) for size in step.grid), arguments)  # type: ignore[arg-type]
    worst = errors(case, {name: interpreter._numpy(memory[found.name]) for name, found in outputs.items()})
    assert worst and max(worst.values()) <= case.tolerance


@pytest.mark.parametrize("target", GPU_TARGETS)
def test_names_of_nodes_are_identifiers_and_distinct(target: str) -> None:
    found = [node.name for program in programs(target) for node in nodes(program, target)]
    assert len(set(found)) == len(found) and all(name.isidentifier() and name.isascii() and len(name) < 100 for name in found)


def test_registering_again_keeps_the_op_and_refuses_another_version(plugin: ModuleType) -> None:
    library = uncompiled(SMALL)
    assert register_program(library, SMALL) == register_program(library, SMALL)
    with pytest.raises(AntiphonError, match="start a new process"):
        register_program(uncompiled(SMALL, "another"), SMALL)


def test_program_outside_the_library_is_refused(plugin: ModuleType) -> None:
    with pytest.raises(AntiphonError, match="antiphon plugins compile --target sm89"):
        register_program(Library({}, {}), SMALL)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": None}, "takes heads, past, x; found heads, past"),
        ({"x": (DataType.BOOL, (2, 3, 9))}, "takes x as DataType.INT8; found DataType.BOOL"),
        ({"x": (DataType.INT8, (9,))}, "found 1 axes"),
        ({"x": (DataType.INT8, (2, 3, 20))}, "is for width <= 16."),
    ],
)
def test_inputs_that_do_not_fit_are_refused(plugin: ModuleType, change: dict[str, Any], message: str) -> None:
    network = Network()
    wanted = {"x": (DataType.INT8, (2, 3, 9)), "past": (DataType.HALF, (24, 18))} | change
    inputs = {name: network.add_input(name, *facts) for name, facts in wanted.items() if facts}
    with pytest.raises(AntiphonError, match=re.escape(message)):
        add_program(network, uncompiled(SMALL), SMALL, inputs, {"heads": 4})


def test_size_that_no_input_of_a_node_shows_must_be_constant_in_the_network(plugin: ModuleType) -> None:
    blind = dataclasses.replace(SMALL, launches=(SMALL.launches[0], dataclasses.replace(SMALL.launches[1], inputs=("flag",))), inputs=(
        *SMALL.inputs, Operand("flag", "int32", ("1",))))  # fmt: skip
    assert [node.fixed for node in nodes(blind, TARGET)] == [(), ("rows", "width")]
    for size in (6, -1):
        network = Network()
        inputs = {
            "x": network.add_input("x", DataType.INT8, (size, 9)), "past": network.add_input("past", DataType.HALF, (-1, -1)),
            "flag": network.add_input("flag", DataType.INT32, (1,)),
        }  # fmt: skip
        if size > 0:
            add_program(network, uncompiled(blind), blind, inputs, {"heads": 4})
            assert [scalar.at({}) for scalar in network.steps[1].scalars] == [6, 5]
        else:
            with pytest.raises(AntiphonError, match="needs rows to be constant in the network"):
                add_program(network, uncompiled(blind), blind, inputs, {"heads": 4})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scalars": (Scalar("left", "width", "int64"),)}, "takes left as int64"),
        ({"inputs": ("x",)}, "writes present in place and does not take past"),
        ({"inputs": ("x", "past", "y")}, "reads y before a launch has written it"),
        ({"outputs": ("z", "present", "y")}, "writes into y again"),
    ],
)
def test_contract_that_tensorrt_cannot_keep_is_refused(change: dict[str, Any], message: str) -> None:
    program = dataclasses.replace(SMALL, launches=(dataclasses.replace(SMALL.launches[0], **change), SMALL.launches[1]))
    with pytest.raises(AntiphonError, match=message):
        nodes(program, TARGET)


def test_sizes_are_traced_through_products_sums_and_named_sizes() -> None:
    program = Program(
        op="MoE", name="traced", inputs=(Operand("x", "int32", ("3 * (slots - 2) + 1", "5 - depth")),), outputs=(Operand("y", "int32", ("rows",)),),
        launches=(Launch("a.b", ("x",), (), ("y",), ("depth", "1", "1")),), attributes=("top_k",), symbols={"slots": "rows * top_k"},
    )  # fmt: skip
    (node,) = nodes(program, TARGET)
    assert node.fixed == () and node.sizes([(3 * (28 - 2) + 1, 5 - 4)], {"top_k": 7}) | {"rows": 4, "depth": 4, "slots": 28} == node.sizes(
        [(79, 1)], {"top_k": 7}
    )
    assert fixed_sizes(program, {"x": (-1, 1)}, {"top_k": 7}) == {"x__1": 1, "depth": 4, "top_k": 7}


def test_tensorrt_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_plugins, "_registered", {})
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(AntiphonError, match=r'pip install "antiphon\[tensorrt\]"'):
        register_program(uncompiled(SMALL), SMALL)


def test_stand_in_has_only_names_that_the_compiled_half_has() -> None:
    folder = fake_tensorrt.plugin_sources()
    if folder is None or not (binary := folder.parent / "tensorrt.so").is_file():
        pytest.skip("needs the wheel tensorrt-cu13-bindings")
    content = binary.read_bytes()
    wanted = {member.name for kind in fake_tensorrt.ENUMS for member in kind} | {kind.__name__ for kind in fake_tensorrt.ENUMS} | set(fake_tensorrt.CLASSES)
    assert [name for name in sorted(wanted) if name.encode() + b"\0" not in content] == []
