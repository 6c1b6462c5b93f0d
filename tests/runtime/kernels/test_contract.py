"""The launch contract as data: it survives JSON, and the name of an image tells what was compiled."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from antiphon.plugins.tools.programs import programs
from antiphon.runtime.kernels.contract import (
    GPU_TARGETS,
    MAX_SHARED_BYTES,
    Image,
    Launch,
    Operand,
    Program,
    Scalar,
    image_from_plain,
    image_key,
    parameters,
    program_from_plain,
    to_plain,
)

LAUNCH = Launch(
    "sum.first",
    ("x", "mask"),
    (Scalar("width", "width"), Scalar("offset", "offset", dtype="int64")),
    ("y",),
    ("rows", "1", "1"),
    {"BLOCK": 64},
)
PROGRAM = Program(
    "Sum",
    "float32",
    (Operand("x", "bfloat16", ("*rows", "width")), Operand("mask", "bool", ("rows",))),
    (Operand("y", "float32", ("rows",), "x"),),
    (LAUNCH,),
    ("offset",),
    {"half": "width // 2"},
    (Operand("partial", "float32", ("rows",)),),
    "width % 16 == 0",
)


def test_a_program_survives_json() -> None:
    assert program_from_plain(json.loads(json.dumps(to_plain(PROGRAM)))) == PROGRAM


def test_every_program_of_every_target_survives_json() -> None:
    for target in GPU_TARGETS:
        for program in programs(target):
            assert program_from_plain(json.loads(json.dumps(to_plain(program)))) == program


def test_an_image_survives_json() -> None:
    image = Image("sum", "sm90", ("*bfloat16", "int32"), 4, 1000, 32, 0, "a", "b")
    assert image_from_plain(json.loads(json.dumps(to_plain(image)))) == image


def test_parameters_are_inputs_scalars_outputs() -> None:
    assert parameters(PROGRAM, LAUNCH) == ("*bfloat16", "*bool", "int32", "int64", "*float32")


@pytest.mark.parametrize(
    "change",
    [
        {"kernel": "sum.other"},
        {"constants": {"BLOCK": 128}},
        {"warps": 8},
        {"stages": 2},
        {"scalars": (Scalar("width", "width", multiple=16), LAUNCH.scalars[1])},
    ],
)
def test_what_is_compiled_differently_has_another_key(change: dict[str, Any]) -> None:
    assert image_key(PROGRAM, dataclasses.replace(LAUNCH, **change)) != image_key(PROGRAM, LAUNCH)


@pytest.mark.parametrize(
    "change",
    [
        {"grid": ("1", "1", "1")},
        {"hot": False},
        {"scalars": (Scalar("width", "width * 2"), LAUNCH.scalars[1])},
    ],
)
def test_what_is_compiled_alike_shares_an_image(change: dict[str, Any]) -> None:
    assert image_key(PROGRAM, dataclasses.replace(LAUNCH, **change)) == image_key(PROGRAM, LAUNCH)


def test_a_key_begins_with_the_kernels_name_and_is_a_file_name() -> None:
    key = image_key(PROGRAM, LAUNCH)
    assert key.startswith("sum.first-") and "/" not in key


def test_every_target_has_a_limit_of_shared_memory() -> None:
    assert GPU_TARGETS == ("sm80", "sm86", "sm89", "sm90", "sm100", "sm120") and all(
        MAX_SHARED_BYTES[target] > 48 * 1024 for target in GPU_TARGETS
    )
