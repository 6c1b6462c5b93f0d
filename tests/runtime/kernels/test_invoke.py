"""The walk from a call to launches: how sizes are bound, which program is taken,
what is launched with what.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.kernels.contract import Launch, Operand, Program, Scalar
from antiphon.runtime.kernels.invoke import bind, invoke, select

PROGRAM = Program(
    op="Sum",
    name="wide",
    inputs=(
        Operand("x", "float32", ("*rows", "width")),
        Operand("weight", "float16", ("2 * half", "1")),
        Operand("past", "float32", ("rows",)),
    ),
    outputs=(
        Operand("y", "float32", ("rows", "half")),
        Operand("present", "float32", ("rows",), alias="past"),
    ),
    launches=(
        Launch(
            "sum.first",
            ("x", "weight"),
            (Scalar("width", "width"),),
            ("partial",),
            ("ceil_div(rows, 2)", "1", "splits"),
            {"BLOCK": 2},
        ),
        Launch("sum.second", ("partial", "past"), (), ("y", "present"), ("rows", "1", "1")),
    ),
    attributes=("splits",),
    symbols={"half": "width // 2"},
    scratch=(Operand("partial", "float32", ("rows", "splits")),),
    when="width % 2 == 0 and rows <= 100",
)
SHAPES = {"x": (3, 5, 8), "weight": (8, 1), "past": (15,)}
INPUTS = {"x": ("float32", (3, 5, 8)), "weight": ("float16", (8, 1)), "past": ("float32", (15,))}


class Walk:
    """Runs `invoke` on tensors that are names, and keeps what it asked for."""

    def __init__(
        self, shapes: dict[str, tuple[int, ...]], splits: int, given: dict[str, str] | None = None
    ) -> None:
        self.allocated: list[tuple[str, tuple[int, ...]]] = []
        self.launched: list[tuple[str, tuple[int, int, int], list[Any]]] = []
        self.outputs = invoke(
            PROGRAM,
            {name: name for name in shapes},
            {"splits": splits},
            shape_of=lambda name: shapes[name],
            allocate=self._allocate,
            launch=lambda step, grid, arguments: self.launched.append((step.kernel, grid, arguments)),
            given=given,
        )

    def _allocate(self, spec: Operand, shape: tuple[int, ...]) -> str:
        self.allocated.append((spec.name, shape))
        return f"new {spec.name}"


def test_launches_get_inputs_scalars_and_outputs_in_that_order() -> None:
    walk = Walk(SHAPES, 4)
    assert walk.launched == [
        ("sum.first", (8, 1, 4), ["x", "weight", 8, "new partial"]),
        ("sum.second", (15, 1, 1), ["new partial", "past", "new y", "past"]),
    ]
    assert walk.allocated == [("y", (15, 4)), ("partial", (15, 4))]
    assert walk.outputs == {"y": "new y", "present": "past"}


def test_given_outputs_are_not_allocated() -> None:
    walk = Walk(SHAPES, 4, given={"y": "mine"})
    assert walk.allocated == [("partial", (15, 4))] and walk.outputs["y"] == "mine"


@pytest.mark.parametrize(
    ("shapes", "splits", "launched"),
    [({**SHAPES, "x": (0, 8), "past": (0,)}, 4, []), (SHAPES, 0, ["sum.second"])],
)
def test_a_launch_without_blocks_is_left_out(
    shapes: dict[str, tuple[int, ...]], splits: int, launched: list[str]
) -> None:
    assert [kernel for kernel, _, _ in Walk(shapes, splits).launched] == launched


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=4), st.integers(1, 20))
def test_leading_axes_are_one(leading: list[int], half: int) -> None:
    rows = 1
    for size in leading:
        rows *= size
    found = bind(
        PROGRAM, {"x": (*leading, 2 * half), "weight": (2 * half, 1), "past": (rows,)}, {"splits": 1}
    )
    assert found == {"rows": rows, "width": 2 * half, "half": half, "splits": 1}


@pytest.mark.parametrize(
    ("shapes", "attributes", "message"),
    [
        (
            {**SHAPES, "weight": (6, 1)},
            {"splits": 1},
            r"Sum \(wide\): weight has 6 where 2 \* half = 8 is expected\.",
        ),
        ({**SHAPES, "weight": (8, 2)}, {"splits": 1}, "weight has 2 where 1 = 1 is expected"),
        ({**SHAPES, "past": (14,)}, {"splits": 1}, "past has 14 where rows = 15 is expected"),
        ({**SHAPES, "weight": (8,)}, {"splits": 1}, r"weight is \[2 \* half, 1\]; found \[8\]"),
        ({**SHAPES, "x": ()}, {"splits": 1}, r"x is \[\*rows, width\]; found \[\]"),
        ({"x": (1, 2)}, {"splits": 1}, "takes past, splits, weight, x; found splits, x"),
        (SHAPES, {}, "takes past, splits, weight, x; found past, weight, x"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    shapes: dict[str, tuple[int, ...]], attributes: dict[str, int], message: str
) -> None:
    with pytest.raises(AntiphonError, match=message):
        bind(PROGRAM, shapes, attributes)


def test_the_first_program_that_fits_is_taken() -> None:
    narrow = dataclasses.replace(PROGRAM, name="narrow", when="width == 4")
    later = dataclasses.replace(PROGRAM, name="later")
    other = dataclasses.replace(PROGRAM, op="Other")
    assert select([other, narrow, PROGRAM, later], "Sum", INPUTS, {"splits": 1}) is PROGRAM


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({**INPUTS, "x": ("int32", (3, 5, 8))}, "wide: x is float32, found int32"),
        ({**INPUTS, "past": ("float32", (14,))}, "past has 14 where rows = 15 is expected"),
        (
            {**INPUTS, "x": ("float32", (200, 8)), "past": ("float32", (200,))},
            "is for width % 2 == 0 and rows <= 100",
        ),
        ({"x": INPUTS["x"]}, "wide: takes x, weight, past, found x"),
    ],
)
def test_why_no_program_fits_is_said(inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(AntiphonError, match="^No compiled kernel of Sum fits: ") as error:
        select([PROGRAM], "Sum", inputs, {"splits": 1})
    assert message in str(error.value)


def test_of_many_reasons_four_are_said() -> None:
    many = [dataclasses.replace(PROGRAM, name=f"p{place}") for place in range(6)]
    with pytest.raises(AntiphonError, match=r"p3: .*; and 2 more\.$"):
        select(many, "Sum", {"x": INPUTS["x"]}, {"splits": 1})


def test_an_op_without_programs_is_said_to_have_none() -> None:
    with pytest.raises(AntiphonError, match="No kernels of Mul are compiled here"):
        select([PROGRAM], "Mul", INPUTS, {})
