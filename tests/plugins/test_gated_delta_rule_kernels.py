"""GatedDeltaRule's kernels: every program against the float64 reference in the interpreter,
splits and batches, and what the compiler makes of them.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton")
torch = pytest.importorskip("torch")

from antiphon.plugins.gated_delta_rule.benchmarks import benchmarks, eager
from antiphon.plugins.gated_delta_rule.cases import expected, is_fused, make_case, random_inputs
from antiphon.plugins.gated_delta_rule.gated_norm import gated_norm
from antiphon.plugins.gated_delta_rule.programs import programs
from antiphon.plugins.tools.cases import cases, errors
from antiphon.plugins.tools.compile_worker import Compiled, Job, compile_kernel
from antiphon.plugins.tools.interpreter import run_interpreted
from antiphon.runtime.kernels.contract import GPU_TARGETS, Program, image_key, parameters
from antiphon.runtime.kernels.invoke import select

PROGRAMS = {program.name: program for program in programs("sm90")}
SMALL = [program for program in PROGRAMS.values() if "-64-" in program.name]


def run_selected(inputs: dict[str, np.ndarray], dtype: str, heads: tuple[int, int]) -> dict[str, np.ndarray]:
    """`inputs` by the program that a caller would be given."""
    attributes = {"key_heads": heads[0], "value_heads": heads[1]}
    kinds = {"past": "float32", "query_length": "int64"}
    program = select(
        PROGRAMS.values(),
        "GatedDeltaRule",
        {name: (kinds.get(name, dtype), value.shape) for name, value in inputs.items()},
        attributes,
    )
    return run_interpreted(program, inputs, attributes)


def error(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found - wanted).max() / max(np.abs(wanted).max(), 1e-30))


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_equals_the_reference(name: str) -> None:
    for case in cases(PROGRAMS[name]):
        found = run_interpreted(case.program, case.inputs, case.attributes)
        assert max(errors(case, found).values()) <= case.tolerance, (case.name, errors(case, found))


@pytest.mark.parametrize("name", ["bfloat16-64-prefill", "float16-64-prefill"])
def test_prefill_equals_the_reference_when_keys_are_loaded_twice(name: str) -> None:
    """As every target but sm90 loads them."""
    program = next(program for program in programs("sm80") if program.name == name)
    assert program.launches[-1].constants["RELOAD"]
    for case in islice(cases(program), 2):
        found = run_interpreted(program, case.inputs, case.attributes)
        assert max(errors(case, found).values()) <= case.tolerance, (case.name, errors(case, found))


def test_prefill_equals_the_reference_when_the_inverse_is_made_in_tf32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from triton.runtime import interpreter

    run_interpreted(SMALL[0], *_call(SMALL[0]))  # the interpreter's own changes come first
    exact = interpreter.InterpreterBuilder.create_dot

    def truncated(self: Any, a: Any, b: Any, d: Any, precision: Any, count: Any) -> Any:
        if a.data.dtype == np.float32:  # the tensor cores leave out the last 13 bits
            a, b = (
                interpreter.TensorHandle(
                    (x.data.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32), x.dtype.scalar
                )
                for x in (a, b)
            )
        return exact(self, a, b, d, precision, count)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", truncated)
    test_program_equals_the_reference("bfloat16-64-prefill")


def _call(program: Program) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    return random_inputs(program, np.random.default_rng(0), [1], 1, 1, 1, 64), {
        "key_heads": 1,
        "value_heads": 1,
    }


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 1e-2), ("float16", 1.5e-3), ("float32", 5e-6)])
def test_error_does_not_grow_over_hundreds_of_tokens(dtype: str, tolerance: float) -> None:
    rng, program = (
        np.random.default_rng(3),
        PROGRAMS[f"{dtype}-64-{'decode' if dtype == 'float32' else 'prefill'}"],
    )
    inputs = random_inputs(program, rng, [300], 300, 1, 1, 32)
    inputs["a"] = rng.uniform(-9, -3, inputs["a"].shape)  # little is forgotten
    case = make_case(program, "long", inputs)
    assert max(errors(case, run_interpreted(program, case.inputs, case.attributes)).values()) <= tolerance


@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.sampled_from([0, 1, 2, 5, 17, 63, 64, 65]), min_size=1, max_size=4),
    st.integers(0, 3),
    st.booleans(),
    st.integers(0, 2**16),
)
def test_any_calls_with_any_padding_equal_one_call(
    chunks: list[int], padding: int, fused: bool, seed: int
) -> None:
    tokens = max(1, sum(chunks))
    program = PROGRAMS[f"float16-64-prefill{'-norm' if fused else ''}"]
    whole = make_case(
        program, "whole", random_inputs(program, np.random.default_rng(seed), [sum(chunks)], tokens, 1, 2, 64)
    )
    wanted, state, start = whole.expected(), whole.inputs["past"], 0
    for chunk in chunks:
        inputs = dict(whole.inputs) | {"past": state, "query_length": np.array([chunk])}
        for spec in program.inputs:
            if "tokens" in spec.shape:
                inputs[spec.name] = np.full((1, max(1, chunk + padding), inputs[spec.name].shape[2]), 50.0)
                inputs[spec.name][:, :chunk] = whole.inputs[spec.name][:, start : start + chunk]
        found = run_selected(inputs, "float16", (1, 2))
        if chunk:
            assert (
                np.abs(found["y"][:, :chunk] - wanted["y"][:, start : start + chunk]).max()
                <= 2e-3 * np.abs(wanted["y"]).max()
            )
        assert not found["y"][:, chunk:].any()
        state, start = found["present"], start + chunk
    assert error(state, wanted["present"]) <= 1e-3


@settings(max_examples=5, deadline=None)
@given(
    st.sampled_from(SMALL),
    st.lists(st.sampled_from([0, 1, 16, 63, 64, 65, 128]), min_size=2, max_size=3),
    st.integers(0, 2**16),
)
def test_a_ragged_batch_equals_its_rows_one_by_one(program: Program, lengths: list[int], seed: int) -> None:
    if "decode" in program.name:
        lengths = [length % 9 for length in lengths]
    tokens = max(1, *lengths)
    inputs = random_inputs(program, np.random.default_rng(seed), lengths, tokens, 1, 1, 64)
    attributes = {"key_heads": 1, "value_heads": 1}
    together = run_interpreted(program, inputs, attributes)
    for row, length in enumerate(lengths):
        alone = {
            name: value if name in ("dt_bias", "decay_scale", "norm_weight") else value[row : row + 1]
            for name, value in inputs.items()
        }
        alone |= {
            spec.name: alone[spec.name][:, : max(1, length)]
            for spec in program.inputs
            if "tokens" in spec.shape
        }
        found = run_interpreted(program, alone, attributes)
        np.testing.assert_array_equal(found["y"][0, :length], together["y"][row, :length])
        np.testing.assert_array_equal(found["present"][0], together["present"][row])
        assert not together["y"][row, length:].any()


@pytest.mark.parametrize("program", SMALL, ids=lambda program: program.name)
def test_padding_that_is_no_number_reaches_neither_result_nor_state(program: Program) -> None:
    tokens = 3 if "decode" in program.name else 70
    inputs = random_inputs(program, np.random.default_rng(1), [tokens - 1, 0], tokens, 1, 1, 64)
    for spec in program.inputs:
        if "tokens" in spec.shape:
            inputs[spec.name][0, tokens - 1 :], inputs[spec.name][1] = np.nan, np.nan
    found = run_interpreted(program, inputs, {"key_heads": 1, "value_heads": 1})
    assert np.isfinite(found["y"]).all() and not found["y"][1].any()
    np.testing.assert_array_equal(found["present"][1], inputs["past"][1].astype(np.float32))
    assert np.isfinite(found["present"]).all()


def test_gated_norm_equals_the_norm_and_gate_of_the_stage_modules() -> None:
    rng = np.random.default_rng(0)
    y, z, weight = (
        rng.standard_normal((2, 3, 4 * 8)),
        rng.standard_normal((2, 3, 4 * 8)),
        rng.standard_normal(8),
    )
    normed = torch.nn.functional.rms_norm(
        torch.from_numpy(y).reshape(2, 3, 4, 8), (8,), torch.from_numpy(weight), 1e-6
    ).reshape(2, 3, 32)
    np.testing.assert_allclose(
        gated_norm(y, z, weight),
        (normed * torch.nn.functional.silu(torch.from_numpy(z))).numpy(),
        rtol=0,
        atol=1e-12,
    )


def test_fused_reference_is_the_op_then_the_norm() -> None:
    program = PROGRAMS["float32-64-decode-norm"]
    case = make_case(program, "", random_inputs(program, np.random.default_rng(0), [2], 2, 1, 2, 64))
    plain = {name: value for name, value in case.inputs.items() if name not in ("z", "norm_weight")}
    y = gated_norm(expected(plain, case.attributes)["y"], case.inputs["z"], case.inputs["norm_weight"])
    np.testing.assert_array_equal(case.expected()["y"], y)
    assert is_fused(program)


@pytest.mark.parametrize(
    ("tokens", "key_dim", "value_dim", "fused", "name"),
    [
        (1, 128, 128, False, "128-decode"),
        (9, 128, 64, False, "128-prefill"),
        (8, 64, 64, True, "64-decode-norm"),
        (90, 256, 256, True, "256-prefill-norm"),
    ],
)
def test_program_is_chosen_by_tokens_and_sizes(
    tokens: int, key_dim: int, value_dim: int, fused: bool, name: str
) -> None:
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {
        key: ("bfloat16", (1, tokens, key_dim)) for key in ("query", "key")
    }
    shapes |= {
        "value": ("bfloat16", (1, tokens, 2 * value_dim)),
        "a": ("bfloat16", (1, tokens, 2)),
        "b": ("bfloat16", (1, tokens, 2)),
    }
    shapes |= {
        "dt_bias": ("bfloat16", (2,)),
        "decay_scale": ("bfloat16", (2,)),
        "past": ("float32", (1, 2, key_dim, value_dim)),
        "query_length": ("int64", (1,)),
    }
    shapes |= {"z": shapes["value"], "norm_weight": ("bfloat16", (value_dim,))} if fused else {}
    assert (
        select(PROGRAMS.values(), "GatedDeltaRule", shapes, {"key_heads": 1, "value_heads": 2}).name
        == f"bfloat16-{name}"
    )


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("tokens", [3, 70])
def test_eager_of_the_benchmarks_equals_the_reference(tokens: int, fused: bool) -> None:
    program = PROGRAMS[f"float32-64-decode{'-norm' if fused else ''}"]
    case = make_case(
        program, "", random_inputs(program, np.random.default_rng(0), [tokens, tokens - 2], tokens, 1, 2, 64)
    )
    tensors = {
        name: torch.from_numpy(value if name == "query_length" else value.astype(np.float32))
        for name, value in case.inputs.items()
    }
    found = dict(zip(("y", "present"), eager(tensors, case.attributes), strict=True))
    assert max(errors(case, {name: tensor.numpy() for name, tensor in found.items()}).values()) <= 1e-5


def test_benchmarks_have_the_inputs_of_a_program() -> None:
    for benchmark in benchmarks():
        if "prefill" in benchmark.name:
            continue
        inputs = benchmark.make(torch.Generator().manual_seed(0))
        kinds = {
            name: (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
            for name, tensor in inputs.items()
        }
        assert select(PROGRAMS.values(), benchmark.op, kinds, benchmark.attributes).name.startswith(
            "bfloat16-128-decode"
        )
        moved = (
            sum(tensor.nbytes for tensor in inputs.values()) + inputs["value"].nbytes + inputs["past"].nbytes
        )
        assert benchmark.bytes_moved == pytest.approx(moved, rel=1e-3)


@pytest.fixture(scope="module")
def compiled(compiler: ProcessPoolExecutor) -> list[tuple[str, Compiled]]:
    """Qwen3.5's size for every target, and the fullest registers, keys of 256 in float16, for one."""
    wanted = [
        (target, program)
        for target in GPU_TARGETS
        for program in programs(target)
        if program.name.startswith("bfloat16-128-")
    ]
    steps = [(target, program, step) for target, program in wanted for step in program.launches]
    steps.append(("sm90", PROGRAMS["float16-256-prefill"], PROGRAMS["float16-256-prefill"].launches[-1]))
    jobs = {
        (target, image_key(program, step)): Job(
            image_key(program, step), target, parameters(program, step), step
        )
        for target, program, step in steps
    }
    return [
        (f"{job.launch.kernel} for {job.target}", made)
        for job, made in zip(jobs.values(), compiler.map(compile_kernel, jobs.values()), strict=True)
    ]


def test_every_hot_kernel_keeps_out_of_local_memory_on_every_target(
    compiled: list[tuple[str, Compiled]],
) -> None:
    assert len(compiled) == 6 * len(GPU_TARGETS) + 1
    for name, made in compiled:
        assert made.image.spill_bytes == 0, name
        assert ".local" not in made.ptx, name


def test_prefill_uses_the_tensor_cores(compiled: list[tuple[str, Compiled]]) -> None:
    used = {name: made.ptx for name, made in compiled if "carry_state" in name}
    assert "wgmma.mma_async" in used["gated_delta_rule.carry_state for sm90"]
    assert all("mma" in ptx for ptx in used.values())
