"""Networks of one program over the stand-in for TensorRT, and what must come out of them by the contract."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from antiphon.plugins.tensorrt_nodes import axes, nodes
from antiphon.plugins.tensorrt_plugins import add_program
from antiphon.runtime.kernels.contract import Image, Launch, Operand, Program, Scalar, image_key, parameters
from antiphon.runtime.kernels.expression import evaluate
from antiphon.runtime.kernels.invoke import invoke

from .fake_tensorrt import DataType, Network, Step

TARGET = "sm89"
TYPES = {
    "bfloat16": DataType.BF16,
    "float16": DataType.HALF,
    "float32": DataType.FLOAT,
    "float8_e4m3fn": DataType.FP8,
    "int64": DataType.INT64,
    "int32": DataType.INT32,
    "int8": DataType.INT8,
    "uint8": DataType.INT8,
    "bool": DataType.INT8,
}


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


SMALL = Program(
    op="MoE",
    name="small-test",
    inputs=(
        Operand("x", "bool", ("*rows", "width")),
        Operand("past", "float16", ("rows * heads", "2 * width")),
    ),
    outputs=(
        Operand("y", "bool", ("rows", "width + heads")),
        Operand("present", "float16", ("rows * heads", "2 * width"), alias="past"),
    ),
    launches=(
        Launch(
            "a.first",
            ("x", "past", "x"),
            (Scalar("left", "17 - width"),),
            ("z", "present"),
            ("ceil_div(width, 2)", "max(2, rows)", "1"),
            warps=2,
        ),
        Launch(
            "a.second",
            ("past", "z"),
            (Scalar("rows", "rows"), Scalar("sum", "min(rows, 3) + width // heads")),
            ("y",),
            ("48 // (width + 1)", "1", "rows"),
        ),
    ),
    attributes=("heads",),
    scratch=(Operand("z", "float32", ("rows * heads", "width - 1")),),
    when="width <= 16",
)
"""Every operation, an output in place that the next launch reads by the input's name,
a tensor taken twice, several leading axes.
"""


def uncompiled(program: Program, entry: str = "entry") -> Library:
    """Images as the contract alone tells them."""
    images = {
        image_key(program, step): Image(
            entry, TARGET, parameters(program, step), step.warps, 512 * place, 0, 0, "", entry
        )
        for place, step in enumerate(program.launches)
    }
    return Library(images, dict.fromkeys(images, "// PTX"))


def drawn_sizes(program: Program, chance: random.Random) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    """Shapes of all inputs, with two leading axes for `*name`, and attributes,
    for which no launch is empty.
    """
    bare = {size.removeprefix("*") for spec in program.inputs for size in spec.shape}
    unbound = sorted(
        {
            name
            for name in bare
            if name.isidentifier() and name not in program.attributes and name not in program.symbols
        }
    )
    while True:
        attributes = {name: chance.choice((1, 2, 4, 8)) for name in program.attributes}
        symbols: dict[str, int] = attributes | {
            name: chance.choice((1, 2, 3, 5, 16, 33, 128)) for name in unbound
        }
        try:
            for name, text in program.symbols.items():
                symbols[name] = evaluate(text, symbols)
        except ZeroDivisionError:
            continue
        shapes = {}
        for spec in program.inputs:
            sizes = tuple(evaluate(size.removeprefix("*"), symbols) for size in spec.shape)
            shapes[spec.name] = (1, *sizes) if spec.shape and spec.shape[0].startswith("*") else sizes
        if len(
            contract_launches(program, {name: Block(shape) for name, shape in shapes.items()}, attributes)
        ) == len(program.launches):
            return shapes, attributes


def build(
    library: Library, program: Program, shapes: Mapping[str, tuple[int, ...]], attributes: Mapping[str, int]
) -> tuple[Network, dict[str, Any]]:
    """A network of `program` alone, all axes varying but those that it needs to be fixed."""
    network = Network()
    fixed = {name for node in nodes(program, TARGET) for name in node.fixed}
    inputs = {}
    for spec in program.inputs:
        shape = shapes[spec.name] if fixed else [-1] * len(shapes[spec.name])
        inputs[spec.name] = network.add_input(spec.name, TYPES[spec.dtype], shape)
    return network, add_program(network, library, program, inputs, attributes)


def contract_launches(
    program: Program, blocks: Mapping[str, Block], attributes: Mapping[str, int]
) -> list[tuple[Launch, tuple[int, ...], list[Any]]]:
    """What our own launcher would launch."""
    found: list[Any] = []
    invoke(
        program,
        blocks,
        attributes,
        shape_of=lambda block: block.shape,
        allocate=lambda spec, shape: Block(shape),
        launch=lambda step, grid, arguments: found.append((step, grid, arguments)),
    )
    return found


def check_steps(
    program: Program,
    library: Library,
    steps: list[Step],
    shapes: Mapping[str, tuple[int, ...]],
    attributes: Mapping[str, int],
) -> None:
    """The engine launches what the contract does: same kernels, grids and scalars, on the same memory."""
    blocks = {name: Block(shape) for name, shape in shapes.items()}
    memory: dict[str, Block] = dict(blocks)
    launches = iter(contract_launches(program, blocks, attributes))
    for step, expected in zip(steps, program.launches, strict=True):
        launch, grid, arguments = next(launches)
        image = library.images[image_key(program, expected)]
        assert launch is expected and tuple(size.at(shapes) for size in step.grid) == grid
        assert (
            tuple(size.at(shapes) for size in step.block) == (32 * image.warps, 1, 1)
            and step.shared_bytes.at(shapes) == image.shared_bytes
        )
        assert step.kernel == image.entry and step.ptx == library.ptx(image_key(program, expected)).encode()
        first, last = len(launch.inputs), len(launch.inputs) + len(launch.scalars)
        assert [memory[tensor.name] for tensor in step.inputs] == arguments[:first]
        assert [scalar.at(shapes) for scalar in step.scalars] == arguments[first:last]
        for tensor, alias, block in zip(step.outputs, step.aliases, arguments[last:], strict=True):
            assert block not in memory.values() if alias < 0 else memory[step.inputs[alias].name] is block
            memory[tensor.name] = block
        for tensor, name in zip(
            (*step.inputs, *step.outputs), (*launch.inputs, *launch.outputs), strict=True
        ):
            assert tensor.dtype is TYPES[program.tensor(name).dtype]
            assert _flat(program.tensor(name), [size.at(shapes) for size in tensor.sizes]) == _flat(
                program.tensor(name), memory[tensor.name].shape
            )


def _flat(spec: Operand, shape: Any) -> list[int]:
    return list(axes(spec, shape).values())
