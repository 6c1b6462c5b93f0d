"""The nodes of a program: their names, the sizes that they can tell from their inputs,
and contracts that TensorRT cannot keep.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from antiphon.plugins.registry import FOLDERS
from antiphon.plugins.tensorrt_nodes import fixed_sizes, nodes
from antiphon.plugins.tools.programs import programs
from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.kernels.contract import GPU_TARGETS, Launch, Operand, Program, Scalar

from .tensorrt_networks import SMALL, TARGET


@pytest.mark.parametrize("op", list(FOLDERS))
def test_no_node_needs_a_size_that_its_inputs_do_not_show(op: str) -> None:
    assert [
        (program.name, node.name, node.fixed)
        for program in programs(TARGET, [op])
        for node in nodes(program, TARGET)
        if node.fixed
    ] == []


@pytest.mark.parametrize("target", GPU_TARGETS)
def test_names_of_nodes_are_identifiers_and_distinct(target: str) -> None:
    found = [node.name for program in programs(target) for node in nodes(program, target)]
    assert len(set(found)) == len(found) and all(
        name.isidentifier() and name.isascii() and len(name) < 100 for name in found
    )


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
    program = dataclasses.replace(
        SMALL, launches=(dataclasses.replace(SMALL.launches[0], **change), SMALL.launches[1])
    )
    with pytest.raises(AntiphonError, match=message):
        nodes(program, TARGET)


def test_sizes_are_traced_through_products_sums_and_named_sizes() -> None:
    program = Program(
        op="MoE",
        name="traced",
        inputs=(Operand("x", "int32", ("3 * (slots - 2) + 1", "5 - depth")),),
        outputs=(Operand("y", "int32", ("rows",)),),
        launches=(Launch("a.b", ("x",), (), ("y",), ("depth", "1", "1")),),
        attributes=("top_k",),
        symbols={"slots": "rows * top_k"},
    )
    (node,) = nodes(program, TARGET)
    assert node.fixed == () and node.sizes([(3 * (28 - 2) + 1, 5 - 4)], {"top_k": 7}) | {
        "rows": 4,
        "depth": 4,
        "slots": 28,
    } == node.sizes([(79, 1)], {"top_k": 7})
    assert fixed_sizes(program, {"x": (-1, 1)}, {"top_k": 7}) == {"x__1": 1, "depth": 4, "top_k": 7}
