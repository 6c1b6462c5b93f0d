"""The interpreter's arithmetic is the device's, and what a kernel does wrong is found."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("triton", reason="the extra kernels (triton) is not installed")
ml_dtypes = pytest.importorskip("ml_dtypes")

import triton
import triton.language as tl

from antiphon.plugins.tools import interpreter, programs
from antiphon.plugins.tools.interpreter import run_interpreted
from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.kernels.contract import Launch, Operand, Program, Scalar


@triton.jit
def round_trip(x_ptr, count, y_ptr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    place = tl.arange(0, BLOCK)
    tl.store(
        y_ptr + place,
        tl.load(x_ptr + place, mask=place < count).to(y_ptr.dtype.element_ty),
        mask=place < count,
    )


@triton.jit
def one_too_many(x_ptr, count, y_ptr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    place = tl.arange(0, BLOCK)
    tl.store(
        y_ptr + place,
        tl.load(x_ptr + place, mask=place < count).to(y_ptr.dtype.element_ty),
        mask=place <= count,
    )


@triton.jit
def matrix_product(a_ptr, b_ptr, y_ptr):  # type: ignore[no-untyped-def]
    place = tl.arange(0, 16)[:, None] * 16 + tl.arange(0, 16)[None, :]
    tl.store(y_ptr + place, tl.dot(tl.load(a_ptr + place), tl.load(b_ptr + place)))


@pytest.fixture(autouse=True)
def _kernels_of_this_file(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(
        interpreter, "kernel_function", lambda name: getattr(sys.modules[__name__], name.split(".")[1])
    )
    assert isinstance(programs, ModuleType)
    yield


def program(kernel: str, source: str, target: str, multiple: int = 1) -> Program:
    step = Launch(
        f"here.{kernel}",
        ("x",),
        (Scalar("count", "count", multiple=multiple),),
        ("y",),
        ("1", "1", "1"),
        {"BLOCK": 64},
    )
    return Program(
        "Here", kernel, (Operand("x", source, ("count",)),), (Operand("y", target, ("count",)),), (step,)
    )


def test_float32_becomes_bfloat16_by_rounding_to_nearest_even() -> None:
    # ties, a carry into the exponent, a subnormal
    x = np.array([1.00390625, 1.01171875, 1.9999, -255.9, 3e38, 1e-40, 0.0], np.float32)
    found = run_interpreted(program("round_trip", "float32", "bfloat16"), {"x": x}, {})["y"]
    np.testing.assert_array_equal(found, x.astype(ml_dtypes.bfloat16).astype(np.float32))


def test_bfloat16_matrices_are_multiplied_as_numbers() -> None:
    random = np.random.default_rng(0)
    a, b = (random.normal(size=(16, 16)).astype(ml_dtypes.bfloat16).astype(np.float32) for _ in range(2))
    specs = Operand("a", "bfloat16", ("16", "16")), Operand("b", "bfloat16", ("16", "16"))
    step = Launch("here.matrix_product", ("a", "b"), (), ("y",), ("1", "1", "1"))
    product = run_interpreted(
        Program("Here", "dot", specs, (Operand("y", "float32", ("16", "16")),), (step,)), {"a": a, "b": b}, {}
    )["y"]
    np.testing.assert_allclose(product, a @ b, rtol=1e-6, atol=1e-6)


def test_a_write_outside_a_tensor_is_found() -> None:
    with pytest.raises(AssertionError, match="wrote outside y"):
        run_interpreted(program("one_too_many", "float32", "float32"), {"x": np.ones(5)}, {})


def test_a_scalar_that_breaks_its_promised_multiple_is_found() -> None:
    with pytest.raises(AssertionError, match="count = 5 is no multiple of 16"):
        run_interpreted(program("round_trip", "float32", "float32", multiple=16), {"x": np.ones(5)}, {})


def test_inputs_stay_as_they_are_when_an_output_is_aliased_to_one() -> None:
    aliased = program("round_trip", "float32", "float32")
    aliased = dataclasses.replace(
        aliased,
        inputs=(*aliased.inputs, Operand("past", "float32", ("count",))),
        outputs=(Operand("y", "float32", ("count",), alias="past"),),
    )
    past = np.zeros(3, np.float32)
    found = run_interpreted(aliased, {"x": np.ones(3), "past": past}, {})["y"]
    assert found.tolist() == [1, 1, 1] and past.tolist() == [0, 0, 0]


def test_an_unknown_input_is_said_in_one_sentence() -> None:
    with pytest.raises(AntiphonError, match="Here .round_trip. takes x; found x, z"):
        run_interpreted(program("round_trip", "float32", "float32"), {"x": np.ones(3), "z": np.ones(3)}, {})
