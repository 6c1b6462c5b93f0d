"""QuantizedMoE's kernels: in the interpreter against the float64 reference, and compiled for every target."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")
pytest.importorskip("triton")

from antiphon.plugins.moe.cases import ROUTINGS
from antiphon.plugins.quantized_moe.cases import case, scheme_of
from antiphon.plugins.quantized_moe.programs import SCHEMES
from antiphon.plugins.quantized_moe.reference import INT4
from antiphon.plugins.tools.case import Case
from antiphon.plugins.tools.cases import cases, errors
from antiphon.plugins.tools.interpreter import run_interpreted
from antiphon.plugins.tools.programs import programs
from antiphon.runtime.kernels.invoke import select

from .test_moe_kernels import compiled

# Targets differ in the tiles of prefill; the routing for more experts is MoE's, and tested there.
PROGRAMS = {
    f"{program.name}-{target}": program
    for target in ("sm90", "sm80")
    for program in programs(target, ["QuantizedMoE"])
}
NAMES = [name for name in PROGRAMS if "bfloat16" in name and "sm90" in name and "512-experts" in name]
NAMES += [
    f"{scheme.name}-float16-decode-128-experts-sm90"
    for scheme in SCHEMES
    if scheme.name in ("fp8-channel", "int8-channel", "int4-group-64")
]
NAMES += [
    f"{scheme.name}-bfloat16-prefill-128-experts-sm80"
    for scheme in SCHEMES
    if scheme.name in ("fp8-block-128", "int4-group-32")
]


def check(given_case: Case) -> None:
    found = errors(given_case, run_interpreted(given_case.program, given_case.inputs, given_case.attributes))
    assert found["y"] <= given_case.tolerance, f"{given_case.name}: {found}"


@pytest.mark.parametrize("name", NAMES)
def test_every_program_equals_the_reference(name: str) -> None:
    for each in cases(PROGRAMS[name]):
        check(each)


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_any_shape_equals_the_reference(data: Any) -> None:
    program = PROGRAMS[data.draw(st.sampled_from(NAMES))]
    rows, experts = (
        data.draw(st.integers(1, 16 if "decode" in program.name else 40)),
        16 if "128-experts" in program.name else data.draw(st.integers(1, 6)),
    )
    step = scheme_of(program).inputs if scheme_of(program).format == INT4 else 16
    hidden, inter = (step * data.draw(st.integers(1, max(1, size // step))) for size in (272, 144))
    check(
        case(
            program,
            np.random.default_rng(data.draw(st.integers(0, 99))),
            (rows,),
            hidden,
            inter,
            experts,
            top_k=data.draw(st.integers(1, experts)),
            normalize=data.draw(st.booleans()),
            routing=data.draw(st.sampled_from(ROUTINGS)),
        )
    )


@pytest.mark.parametrize("wanted", SCHEMES, ids=lambda found: found.name)
def test_format_and_scales_select_the_scheme(wanted: Any) -> None:
    program = PROGRAMS[f"{wanted.name}-float16-decode-128-experts-sm90"]
    made = case(
        program,
        np.random.default_rng(0),
        (2,),
        256,
        128,
        experts=16,
        top_k=2,
        normalize=True,
        routing="random",
    )
    dtypes = {spec.name: spec.dtype for spec in program.inputs}
    calls = {name: (dtypes[name], value.shape) for name, value in made.inputs.items()}
    assert select(programs("sm90", ["QuantizedMoE"]), "QuantizedMoE", calls, made.attributes) == program


def test_hot_kernels_compile_for_every_target_without_spills(compiler: ProcessPoolExecutor) -> None:
    hardest = [
        "fp8-block-128-bfloat16-prefill-128-experts",
        "int4-group-32-bfloat16-prefill-128-experts",
        "int4-group-32-bfloat16-decode-128-experts",
    ]
    for each in compiled(
        compiler,
        "QuantizedMoE",
        lambda target, program: program.name in hardest or target == "sm90" and "bfloat16" in program.name,
    ):
        assert each.image.spill_bytes == 0 and ".local" not in each.ptx, (
            f"{each.key} on {each.image.target}: {each.image.spill_bytes} bytes spilled"
        )
