"""Programs as TensorRT plugins: the real Python half of tensorrt.plugin over a stand-in for its compiled
half, and what comes out against the contract.
"""

from __future__ import annotations

import dataclasses
import random
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.plugins import tensorrt_plugins
from antiphon.plugins.registry import FOLDERS
from antiphon.plugins.tensorrt_nodes import nodes
from antiphon.plugins.tensorrt_plugins import add_program, register_program
from antiphon.plugins.tools.programs import programs
from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.kernels.contract import Launch, Operand, Program, Scalar, image_key, parameters
from antiphon.runtime.kernels.expression import evaluate

from . import fake_tensorrt
from .fake_tensorrt import DataType, Network
from .tensorrt_networks import SMALL, TARGET, Library, build, check_steps, drawn_sizes, uncompiled


@pytest.fixture(scope="module")
def module() -> Iterator[ModuleType]:
    folder = fake_tensorrt.plugin_sources()
    if folder is None:
        pytest.skip(
            "needs the Python sources of tensorrt.plugin: "
            "pip install --no-deps tensorrt-cu13-bindings==11.4.0.106"
        )
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


def richest(op: str) -> Program:
    return max(programs(TARGET, [op]), key=lambda program: len(program.launches))


def compiled(compiler: ProcessPoolExecutor, program: Program) -> Library:
    from antiphon.plugins.tools.compile_worker import Job, compile_kernel

    jobs = {
        image_key(program, step): Job(image_key(program, step), TARGET, parameters(program, step), step)
        for step in program.launches
    }
    made = list(compiler.map(compile_kernel, jobs.values()))
    return Library({one.key: one.image for one in made}, {one.key: one.ptx for one in made})


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
        st.tuples(st.sampled_from(("min", "max")), part, part).map(
            lambda three: f"{three[0]}({three[1]}, {three[2]})"
        ),
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=40)
@given(text=EXPRESSIONS, rows=st.integers(1, 9), width=st.integers(1, 9), heads=st.integers(1, 9))
def test_tensorrt_calculates_any_size_as_the_contract_does(
    module: ModuleType, text: str, rows: int, width: int, heads: int
) -> None:
    forget(module)
    step = Launch("a.b", ("x",), (Scalar("size", text), Scalar("heads", "heads")), ("y",), ("1", "1", "1"))
    program = dataclasses.replace(
        SMALL, inputs=SMALL.inputs[:1], outputs=(Operand("y", "int8", (text,)),), launches=(step,), scratch=()
    )
    network, _ = build(uncompiled(program), program, {"x": (rows, 1, width)}, {"heads": heads})
    expected = evaluate(text, {"rows": rows, "width": width, "heads": heads})
    assert [scalar.at({"x": (rows, 1, width)}) for scalar in network.steps[0].scalars] == [expected, heads]
    assert network.steps[0].outputs[0].sizes[0].at({"x": (rows, 1, width)}) == expected


@pytest.mark.parametrize("op", list(FOLDERS))
def test_compiled_kernel_of_a_node_takes_what_tensorrt_passes(
    plugin: ModuleType, compiler: ProcessPoolExecutor, op: str
) -> None:
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
    network, outputs = build(
        uncompiled(program),
        program,
        {name: value.shape for name, value in case.inputs.items()},
        case.attributes,
    )
    interpreter._patch_interpreter()

    def tensor(name: str, shape: Any) -> Any:
        # outputs begin as garbage
        return torch.full(tuple(shape), 77, dtype=torch.uint8).to(
            interpreter._TORCH[program.tensor(name).dtype]
        )

    memory, shapes = {}, {name: value.shape for name, value in case.inputs.items()}
    for name, value in case.inputs.items():
        memory[name] = tensor(name, value.shape).copy_(torch.from_numpy(np.ascontiguousarray(value)))
    for step, launch in zip(network.steps, program.launches, strict=True):
        for made, alias, name in zip(step.outputs, step.aliases, launch.outputs, strict=True):
            memory[made.name] = (
                tensor(name, [size.at(shapes) for size in made.sizes])
                if alias < 0
                else memory[step.inputs[alias].name]
            )
        arguments = [
            *(memory[one.name] for one in step.inputs),
            *(one.at(shapes) for one in step.scalars),
            *(memory[one.name] for one in step.outputs),
        ]
        interpreter._launch(launch, tuple(size.at(shapes) for size in step.grid), arguments)  # type: ignore[arg-type]
    worst = errors(case, {name: interpreter._numpy(memory[found.name]) for name, found in outputs.items()})
    assert worst and max(worst.values()) <= case.tolerance


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
    blind = dataclasses.replace(
        SMALL,
        launches=(SMALL.launches[0], dataclasses.replace(SMALL.launches[1], inputs=("flag",))),
        inputs=(*SMALL.inputs, Operand("flag", "int32", ("1",))),
    )
    assert [node.fixed for node in nodes(blind, TARGET)] == [(), ("rows", "width")]
    for size in (6, -1):
        network = Network()
        inputs = {
            "x": network.add_input("x", DataType.INT8, (size, 9)),
            "past": network.add_input("past", DataType.HALF, (-1, -1)),
            "flag": network.add_input("flag", DataType.INT32, (1,)),
        }
        if size > 0:
            add_program(network, uncompiled(blind), blind, inputs, {"heads": 4})
            assert [scalar.at({}) for scalar in network.steps[1].scalars] == [6, 5]
        else:
            with pytest.raises(AntiphonError, match="needs rows to be constant in the network"):
                add_program(network, uncompiled(blind), blind, inputs, {"heads": 4})


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
    wanted = (
        {member.name for kind in fake_tensorrt.ENUMS for member in kind}
        | {kind.__name__ for kind in fake_tensorrt.ENUMS}
        | set(fake_tensorrt.CLASSES)
    )
    assert [name for name in sorted(wanted) if name.encode() + b"\0" not in content] == []
