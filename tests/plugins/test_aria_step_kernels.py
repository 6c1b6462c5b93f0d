"""AriaStep's kernel: the reference's decisions bit for bit, whole answers as runtime.stages.aria.speak
orders them, and what the compiler makes of it.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton")
pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

from antiphon.plugins.aria_step.benchmarks import benchmarks, eager
from antiphon.plugins.aria_step.cases import any_streams, expected
from antiphon.plugins.aria_step.programs import programs
from antiphon.plugins.registry import ARIA_STEP
from antiphon.plugins.tools.case import rounded
from antiphon.plugins.tools.cases import cases, errors
from antiphon.plugins.tools.compile_worker import Job, compile_kernel
from antiphon.plugins.tools.interpreter import run_interpreted
from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.kernels.contract import GPU_TARGETS, image_key, parameters
from antiphon.runtime.kernels.invoke import select
from antiphon.runtime.stages.aria import Policy, adaptive, chunked, dual_track

from .test_aria_step import ARRIVALS, POLICIES, spoken, stepped

PROGRAMS = {program.name: program for program in programs("sm90")}
INPUTS = [name for name, _ in ARIA_STEP.inputs]
OUTPUTS = [name for name, _ in ARIA_STEP.outputs]
DECISIONS = OUTPUTS[1:]


def step(*arguments: Any) -> list[np.ndarray]:
    """The kernel with the reference's signature, its hidden axis widened to what the kernel takes."""
    inputs = dict(zip(INPUTS, arguments[:8], strict=True))
    hidden = inputs["text_embedding"].shape[1]
    for name in ("text_embedding", "code_embedding"):
        inputs[name] = np.pad(inputs[name], ((0, 0), (0, -hidden % 16)))
    attributes = {
        name: int(value) for (name, _), value in zip(ARIA_STEP.attributes, arguments[8:], strict=True)
    }
    outputs = run_interpreted(PROGRAMS["float32"], inputs, attributes)
    assert not outputs["row"][:, hidden:].any()
    return [outputs["row"][:, :hidden], *(outputs[name] for name in DECISIONS)]


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_equals_the_reference(name: str) -> None:
    for case in cases(PROGRAMS[name]):
        found = run_interpreted(case.program, case.inputs, case.attributes)
        assert max(errors(case, found).values()) <= case.tolerance, (case.name, errors(case, found))
        wanted = case.expected()
        for output in DECISIONS:
            np.testing.assert_array_equal(found[output], wanted[output])
            assert found[output].dtype == wanted[output].dtype
        assert not found["row"][found["query_length"] == 0].any()


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 7),
    st.integers(1, 16),
    st.integers(1, 9),
    st.booleans(),
    st.booleans(),
)
def test_decisions_are_those_of_the_reference_bit_for_bit(
    seed: int, batch: int, groups: int, table: int, summed: bool, end_anywhere: bool
) -> None:
    program = PROGRAMS["float32"]
    inputs = any_streams(program, np.random.default_rng(seed), batch, groups, 16, 3, table)
    attributes = {"end_id": 3, "pad_id": 4, "summed": int(summed), "end_anywhere": int(end_anywhere)}
    found, wanted = run_interpreted(program, inputs, attributes), expected(inputs, attributes)
    np.testing.assert_allclose(found["row"], wanted["row"], rtol=0, atol=1e-5)
    for output in DECISIONS:
        np.testing.assert_array_equal(found[output], wanted[output])


@settings(max_examples=12, deadline=None)
@given(POLICIES, st.integers(0, 30), st.integers(0, 40), ARRIVALS)
def test_rows_samples_and_holds_are_those_of_speak_however_the_text_arrives(
    policy: Policy, text: int, natural: int, arrivals: list[int]
) -> None:
    wanted = spoken(policy, text, natural)
    found, counters = stepped(policy, text, natural, arrivals, step)
    assert found.rows == wanted.rows
    assert found.samples == wanted.samples
    assert counters[0, 1] == wanted.frames + (len(wanted.samples) > wanted.frames)


@pytest.mark.parametrize(
    "policy", [dual_track(), chunked(4, 4), adaptive(3, 2.5)], ids=lambda policy: policy.name
)
def test_a_long_answer_is_spoken_row_by_row_as_speak_does(policy: Policy) -> None:
    assert stepped(policy, 60, 90, [3, 0, 1], step)[0].rows == spoken(policy, 60, 90).rows


def test_streams_of_a_batch_do_not_see_each_other() -> None:
    program, attributes = PROGRAMS["bfloat16"], {"end_id": 3, "pad_id": 4, "summed": 0, "end_anywhere": 0}
    inputs = any_streams(program, np.random.default_rng(5), 6, 16, 32, 8, 5)
    together = run_interpreted(program, inputs, attributes)
    shared = ("need", "text_embedding", "code_embedding")
    for stream in range(6):
        alone = run_interpreted(
            program,
            {name: value if name in shared else value[stream : stream + 1] for name, value in inputs.items()},
            attributes,
        )
        for output in OUTPUTS:
            np.testing.assert_array_equal(together[output][stream : stream + 1], alone[output])


def test_sixteen_half_precision_rows_are_summed_in_float32() -> None:
    program, attributes = PROGRAMS["float16"], {"end_id": 3, "pad_id": 4, "summed": 0, "end_anywhere": 0}
    inputs = any_streams(program, np.random.default_rng(0), 1, 16, 16, 1, 1)
    inputs |= {"counters": np.array([[0, 1, 1, 1]]), "codes": np.zeros((1, 16), np.int64)}
    inputs["code_embedding"] = rounded(
        np.where(np.arange(16)[:, None] % 2, -1.0, 1.0) * 2000 + np.arange(16)[:, None] / 64 * np.ones(16),
        "float16",
    )
    found = run_interpreted(program, inputs, attributes)["row"]
    np.testing.assert_array_equal(
        found, inputs["code_embedding"].sum(0, keepdims=True).astype(np.float16).astype(np.float32)
    )


def test_more_groups_than_a_frame_has_are_refused() -> None:
    inputs = any_streams(PROGRAMS["float32"], np.random.default_rng(0), 1, 17, 16, 2, 1)
    kinds = {spec.name: (spec.dtype, inputs[spec.name].shape) for spec in PROGRAMS["float32"].inputs}
    with pytest.raises(AntiphonError, match="groups <= 16"):
        select(
            PROGRAMS.values(), "AriaStep", kinds, {"end_id": 3, "pad_id": 4, "summed": 0, "end_anywhere": 0}
        )


@pytest.mark.parametrize("summed", [0, 1])
def test_eager_of_the_benchmarks_equals_the_reference(summed: int) -> None:
    inputs = any_streams(PROGRAMS["float32"], np.random.default_rng(1), 9, 16, 16, 4, 5)
    attributes = {"end_id": 3, "pad_id": 4, "summed": summed, "end_anywhere": 0}
    found = eager({name: torch.from_numpy(value) for name, value in inputs.items()}, attributes)
    for output, wanted in zip(found, expected(inputs, attributes).values(), strict=True):
        np.testing.assert_allclose(output.numpy(), wanted, rtol=0, atol=1e-6)


def test_benchmarks_have_the_inputs_of_a_program_and_feed_frame_and_text() -> None:
    for benchmark in benchmarks():
        inputs = benchmark.make(torch.Generator().manual_seed(0))
        kinds = {
            name: (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
            for name, tensor in inputs.items()
        }
        assert select(PROGRAMS.values(), "AriaStep", kinds, benchmark.attributes).name == "bfloat16"
        _, query_length, sample, _, present = benchmark.eager(inputs, benchmark.attributes)
        assert query_length.all() and sample.all() and (present[:, 0] == inputs["counters"][:, 0] + 1).all()


def test_the_kernel_keeps_out_of_local_memory_on_every_target(compiler: ProcessPoolExecutor) -> None:
    steps = [(target, program, program.launches[0]) for target in GPU_TARGETS for program in programs(target)]
    jobs = [
        Job(image_key(program, launch), target, parameters(program, launch), launch)
        for target, program, launch in steps
    ]
    for made in compiler.map(compile_kernel, jobs):
        assert made.image.spill_bytes == 0 and ".local" not in made.ptx, made.image.target
        assert made.image.shared_bytes == 0, "a lane holds all rows of its places"
        assert made.ptx.count("ld.global.v4") == 17, "16 code rows and a text row, 16 bytes a lane"
