"""MoE's kernels: in the interpreter against the float64 reference, and compiled for every target."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")
pytest.importorskip("triton")

from antiphon.plugins.moe.cases import ROUTINGS, case
from antiphon.plugins.registry import FOLDERS
from antiphon.plugins.tools.case import Case
from antiphon.plugins.tools.cases import cases, errors
from antiphon.plugins.tools.compile_worker import Compiled, Job, compile_kernel
from antiphon.plugins.tools.interpreter import run_interpreted
from antiphon.plugins.tools.programs import programs
from antiphon.runtime.kernels.contract import GPU_TARGETS, Program, image_key, parameters
from antiphon.runtime.kernels.invoke import select

PROGRAMS = {program.name: program for program in programs("sm90", ["MoE"])}


def run(given_case: Case) -> np.ndarray:
    return run_interpreted(given_case.program, given_case.inputs, given_case.attributes)["y"]


def check(given_case: Case) -> None:
    found = errors(given_case, {"y": run(given_case)})
    assert found["y"] <= given_case.tolerance, f"{given_case.name}: {found}"


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_equals_the_reference(name: str) -> None:
    for each in cases(PROGRAMS[name]):
        check(each)


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_any_shape_equals_the_reference(data: Any) -> None:
    program = PROGRAMS[
        data.draw(st.sampled_from([name for name in PROGRAMS if "bfloat16" in name and "512" in name]))
    ]
    rows, experts = (
        data.draw(st.integers(1, 16 if "decode" in program.name else 50)),
        data.draw(st.integers(1, 9)),
    )
    check(
        case(
            program,
            np.random.default_rng(data.draw(st.integers(0, 99))),
            (rows,),
            hidden=16 * data.draw(st.integers(1, 10)),
            inter=16 * data.draw(st.integers(1, 6)),
            experts=experts,
            top_k=data.draw(st.integers(1, experts)),
            normalize=data.draw(st.booleans()),
            routing=data.draw(st.sampled_from(ROUTINGS)),
        )
    )


@pytest.mark.parametrize("name", ["bfloat16-decode-512-experts", "bfloat16-shared-prefill-512-experts"])
def test_512_experts_with_top_16_equal_the_reference(name: str) -> None:
    check(
        case(
            PROGRAMS[name],
            np.random.default_rng(1),
            (3,),
            hidden=16,
            inter=16,
            experts=512,
            top_k=16,
            normalize=True,
            routing="random",
        )
    )


def test_an_expert_with_more_rows_than_a_block_equals_the_reference() -> None:
    rng = np.random.default_rng(2)
    check(
        case(
            PROGRAMS["bfloat16-shared-prefill-128-experts"],
            rng,
            (150,),
            hidden=16,
            inter=16,
            experts=16,
            top_k=1,
            normalize=True,
            routing="all to one",
        )
    )


def test_counts_of_more_blocks_of_rows_than_a_step_takes_are_summed() -> None:
    """Over 2,048 rows, too many for the interpreter: this launch alone."""
    count = np.random.default_rng(4).integers(0, 17, (300, 48), np.int32)
    found = run_launch("bfloat16-prefill-128-experts", "moe.sum_counts", {"count": count}, {})
    np.testing.assert_array_equal(found["before"], np.cumsum(count, axis=0) - count)
    np.testing.assert_array_equal(found["total"], count.sum(axis=0))


@pytest.mark.parametrize("regime", ["batch", "prefill"])
def test_table_of_blocks_holds_every_row_once_when_the_shared_expert_has_more_blocks_than_a_step_takes(
    regime: str,
) -> None:
    rows, top_k, experts, tile = 16500, 2, 16, {"batch": 32, "prefill": 128}[regime]
    total = (
        np.random.default_rng(5)
        .multinomial(rows * top_k, np.r_[np.zeros(8), np.full(8, 1 / 8)])
        .astype(np.int32)
    )
    given = {"total": total, "chosen": np.zeros((rows, top_k), np.int32)}
    found = run_launch(
        f"bfloat16-shared-{regime}-128-experts", "moe.fill_blocks", given, {"top_k": top_k, "normalize": 1}
    )
    start = np.cumsum(total) - total
    np.testing.assert_array_equal(found["start"], start)
    runs = [*zip(range(experts), start, total, strict=True), (experts, rows * top_k, rows)]
    wanted = [
        (expert, first + begin, min(tile, size - begin))
        for expert, first, size in runs
        for begin in range(0, size, tile)
    ]
    np.testing.assert_array_equal(found["block"][: len(wanted)], wanted)
    assert not found["block"][len(wanted) :, 2].any()


def run_launch(
    name: str, kernel: str, inputs: dict[str, np.ndarray], attributes: dict[str, int]
) -> dict[str, np.ndarray]:
    """The outputs of one launch of a program."""
    program = PROGRAMS[name]
    step = next(step for step in program.launches if step.kernel == kernel)
    part = dataclasses.replace(
        program,
        inputs=tuple(map(program.tensor, step.inputs)),
        outputs=tuple(map(program.tensor, step.outputs)),
        scratch=(),
        launches=(step,),
        attributes=tuple(attributes),
        symbols=program.symbols if attributes else {},
    )
    return run_interpreted(part, inputs, attributes)


def test_experts_that_no_row_chooses_are_never_read() -> None:
    """NaN in their weights would show: zero times NaN is NaN."""
    for name in ("bfloat16-decode-512-experts", "bfloat16-batch-512-experts"):
        made = case(
            PROGRAMS[name],
            np.random.default_rng(3),
            (6,),
            32,
            16,
            experts=6,
            top_k=2,
            normalize=True,
            routing="half of the experts never",
        )
        poisoned = {key: value.copy() for key, value in made.inputs.items()}
        poisoned["gate_up"][::2], poisoned["down"][::2] = np.nan, np.nan
        assert np.array_equal(run(dataclasses.replace(made, inputs=poisoned)), run(made))


def test_rows_and_experts_select_regime_and_routing() -> None:
    def selected(rows: int, experts: int) -> str:
        shapes = {
            "x": (rows, 32),
            "router_logits": (rows, experts),
            "gate_up": (experts, 32, 32),
            "down": (experts, 32, 16),
        }
        return select(
            PROGRAMS.values(),
            "MoE",
            {key: ("float16", shape) for key, shape in shapes.items()},
            {"top_k": 8, "normalize": 1},
        ).name

    assert selected(0, 128) == selected(1, 128) == selected(16, 128) == "float16-decode-128-experts"
    assert selected(17, 128) == selected(256, 128) == "float16-batch-128-experts"
    assert selected(257, 128) == "float16-prefill-128-experts"
    assert (selected(1, 127), selected(17, 512), selected(4096, 512)) == tuple(
        f"float16-{name}-512-experts" for name in ("decode", "batch", "prefill")
    )


def test_hot_kernels_compile_for_every_target_without_spills(compiler: ProcessPoolExecutor) -> None:
    for each in compiled(
        compiler,
        "MoE",
        lambda target, program: (
            program.name in HOT or target == "sm90" and program.name.startswith("bfloat16")
        ),
    ):
        assert each.image.spill_bytes == 0 and ".local" not in each.ptx, (
            f"{each.key} on {each.image.target}: {each.image.spill_bytes} bytes spilled"
        )


HOT = [f"bfloat16-{regime}-128-experts" for regime in ("decode", "prefill")]
"""One program of every kernel, with the largest tiles."""


def compiled(
    compiler: ProcessPoolExecutor, op: str, wanted: Callable[[str, Program], bool]
) -> list[Compiled]:
    """The op's own hot kernels in the programs that are wanted for a target,
    compiled by processes that do not interpret.
    """
    jobs = {}
    for target in GPU_TARGETS:
        for program in programs(target, [op]):
            for step in program.launches if wanted(target, program) else ():
                if step.hot and step.kernel.startswith(f"{FOLDERS[op]}."):
                    jobs[target, image_key(program, step)] = Job(
                        image_key(program, step), target, parameters(program, step), step
                    )
    return list(compiler.map(compile_kernel, jobs.values(), chunksize=8))
