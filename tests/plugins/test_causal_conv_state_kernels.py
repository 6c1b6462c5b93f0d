"""CausalConvState's kernel: every program against the float64 reference in the interpreter,
splits and batches, and what the compiler makes of it.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton")
torch = pytest.importorskip("torch")

from antiphon.plugins.causal_conv_state.benchmarks import benchmarks, eager
from antiphon.plugins.causal_conv_state.cases import make_case
from antiphon.plugins.causal_conv_state.programs import programs
from antiphon.plugins.causal_conv_state.reference import causal_conv_state
from antiphon.plugins.tools.case import rounded
from antiphon.plugins.tools.cases import cases, errors
from antiphon.plugins.tools.compile_worker import Job, compile_kernel
from antiphon.plugins.tools.interpreter import run_interpreted
from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.kernels.contract import GPU_TARGETS, image_key, parameters
from antiphon.runtime.kernels.invoke import select

PROGRAMS = {program.name: program for program in programs("sm90")}


def run_selected(
    x: np.ndarray, weight: np.ndarray, past: np.ndarray, lengths: list[int], dtype: str, state: str
) -> dict[str, np.ndarray]:
    """The call by the program that a caller would be given."""
    inputs = {"x": x, "weight": weight, "past": past, "query_length": np.array(lengths, np.int64)}
    kinds = {"past": state, "query_length": "int64"}
    program = select(
        PROGRAMS.values(),
        "CausalConvState",
        {name: (kinds.get(name, dtype), value.shape) for name, value in inputs.items()},
        {},
    )
    return run_interpreted(program, inputs, {})


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_equals_the_reference_and_keeps_the_very_rows(name: str) -> None:
    for case in cases(PROGRAMS[name]):
        found = run_interpreted(case.program, case.inputs, case.attributes)
        assert max(errors(case, found).values()) <= case.tolerance, (case.name, errors(case, found))
        np.testing.assert_array_equal(found["present"], case.expected()["present"].astype(np.float32))


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.sampled_from([0, 1, 2, 3, 4, 15, 16, 17, 33]), min_size=1, max_size=5),
    st.integers(0, 3),
    st.sampled_from(["bfloat16", "float32"]),
    st.integers(0, 2**16),
)
def test_any_calls_with_any_padding_equal_one_call(
    chunks: list[int], padding: int, state: str, seed: int
) -> None:
    rng, tokens = np.random.default_rng(seed), sum(chunks)
    x, weight, past = (
        rounded(rng.standard_normal(shape), "bfloat16") for shape in ((1, tokens, 32), (32, 1, 4), (1, 3, 32))
    )
    wanted, last = causal_conv_state(x, weight, past, np.array([tokens]))
    start = 0
    for chunk in chunks:
        rows = np.full((1, max(1, chunk + padding), 32), np.nan)
        rows[:, :chunk] = x[:, start : start + chunk]
        found = run_selected(rows, weight, past, [chunk], "bfloat16", state)
        np.testing.assert_allclose(
            found["y"][:, :chunk], wanted[:, start : start + chunk], rtol=5e-3, atol=1e-5
        )
        assert not found["y"][:, chunk:].any()
        past, start = found["present"], start + chunk
    np.testing.assert_array_equal(past, last)


@settings(max_examples=6, deadline=None)
@given(
    st.lists(st.integers(0, 34), min_size=2, max_size=4),
    st.sampled_from([16, 48, 1040]),
    st.integers(0, 2**16),
)
def test_a_ragged_batch_equals_its_rows_one_by_one(lengths: list[int], channels: int, seed: int) -> None:
    program = PROGRAMS["float16-float32-state-prefill"]
    inputs = make_case(program, "", np.random.default_rng(seed), lengths, max(1, *lengths), channels).inputs
    together = run_interpreted(program, inputs, {})
    for row, length in enumerate(lengths):
        x, past = inputs["x"][row : row + 1, : max(1, length)], inputs["past"][row : row + 1]
        found = run_selected(x, inputs["weight"], past, [length], "float16", "float32")
        np.testing.assert_array_equal(found["y"][0, :length], together["y"][row, :length])
        np.testing.assert_array_equal(found["present"][0], together["present"][row])


def test_channels_that_no_program_takes_are_refused_in_one_sentence() -> None:
    with pytest.raises(
        AntiphonError, match=r"No compiled kernel of CausalConvState fits: .*channels % 16 == 0"
    ):
        run_selected(
            np.zeros((1, 2, 20)), np.zeros((20, 1, 4)), np.zeros((1, 3, 20)), [2], "bfloat16", "bfloat16"
        )


def test_eager_of_the_benchmarks_equals_the_reference() -> None:
    case = make_case(
        PROGRAMS["float32-float32-state-prefill"], "", np.random.default_rng(0), [5, 2, 0], 5, 16
    )
    tensors = {
        name: torch.from_numpy(value if name == "query_length" else value.astype(np.float32))
        for name, value in case.inputs.items()
    }
    found = dict(zip(("y", "present"), eager(tensors, {}), strict=True))
    assert max(errors(case, {name: tensor.numpy() for name, tensor in found.items()}).values()) <= 1e-6


def test_benchmarks_have_the_inputs_of_a_program() -> None:
    for benchmark in benchmarks()[:2]:
        inputs = benchmark.make(torch.Generator().manual_seed(0))
        kinds = {
            name: (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
            for name, tensor in inputs.items()
        }
        assert select(PROGRAMS.values(), benchmark.op, kinds, {}).name == "bfloat16-float32-state-decode"
        moved = sum(tensor.nbytes for tensor in inputs.values()) + inputs["x"].nbytes + inputs["past"].nbytes
        assert benchmark.bytes_moved == pytest.approx(moved, rel=1e-3)


def test_kernel_keeps_out_of_local_memory_and_moves_16_bytes_at_once_on_every_target(
    compiler: ProcessPoolExecutor,
) -> None:
    wanted = [
        (target, program)
        for target in GPU_TARGETS
        for program in programs(target)
        if program.name.startswith("bfloat16-float32")
    ]
    jobs = [
        Job(image_key(program, step), target, parameters(program, step), step)
        for target, program in wanted
        for step in program.launches
    ]
    for (target, program), made in zip(wanted, compiler.map(compile_kernel, jobs), strict=True):
        assert made.image.spill_bytes == 0 and ".local" not in made.ptx, (target, program.name)
        if program.name.endswith("prefill"):
            assert "ld.global.v4.b32" in made.ptx and "st.global.v4.b32" in made.ptx, target
