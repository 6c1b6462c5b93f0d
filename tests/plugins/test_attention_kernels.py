"""Attention's kernels: every program against the reference in the interpreter, calls against calls,
and compiled for every target.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from antiphon.plugins.attention.benchmarks import _eager, benchmarks
from antiphon.plugins.attention.cases import case, decoded, encoded, fused_attention, make_inputs
from antiphon.plugins.attention.programs import PAGE, programs
from antiphon.plugins.tools.cases import cases, errors
from antiphon.plugins.tools.compile_worker import Compiled, Job, compile_kernel
from antiphon.plugins.tools.interpreter import run_interpreted
from antiphon.runtime.kernels.contract import GPU_TARGETS, image_key, parameters
from antiphon.runtime.kernels.invoke import select

PROGRAMS = {program.name: program for program in programs("sm90")}
FURTHER_SIZES = ("bfloat16-64", "bfloat16-256-gated", "float32", "bfloat16-256-eight-bit-paged-gated")
"""What runs all its cases at another head size than 128 too; elsewhere the kernels are those of 128,
and the smallest call tells whether the size fits.
"""


def run(name: str, inputs: Mapping[str, np.ndarray], heads: tuple[int, int]) -> dict[str, np.ndarray]:
    return run_interpreted(PROGRAMS[name], inputs, {"num_heads": heads[0], "kv_num_heads": heads[1]})


def kinds(inputs: Mapping[str, np.ndarray], name: str) -> dict[str, tuple[str, Sequence[int]]]:
    return {spec.name: (spec.dtype, inputs[spec.name].shape) for spec in PROGRAMS[name].inputs}


@pytest.mark.parametrize("name", list(PROGRAMS))
def test_program_equals_the_reference(name: str) -> None:
    made = list(cases(PROGRAMS[name]))
    is_whole = "-128-" in name or name.startswith(FURTHER_SIZES)
    for each in made if is_whole else [each for each in made if each.name == "first"]:
        found = run_interpreted(PROGRAMS[name], each.inputs, each.attributes)
        assert max(errors(each, found).values()) <= each.tolerance, each.name


@pytest.mark.parametrize("name", list(PROGRAMS))
def test_every_case_is_one_that_its_program_would_be_chosen_for(name: str) -> None:
    for each in cases(PROGRAMS[name]):
        chosen = select(PROGRAMS.values(), "Attention", kinds(each.inputs, name), each.attributes).name
        assert chosen == name or each.name == "first" or name.endswith(("-decode", "-prefill")), each.name


@st.composite
def ragged(draw: st.DrawFn) -> tuple[str, list[int], list[int], tuple[int, int], int]:
    name = draw(
        st.sampled_from(
            [
                "bfloat16-128-decode",
                "bfloat16-128-gated-prefill",
                "bfloat16-128-paged-decode",
                "bfloat16-128-eight-bit-paged-prefill",
            ]
        )
    )
    batch = draw(st.integers(1, 3))
    past = draw(st.lists(st.integers(0, 140), min_size=batch, max_size=batch))
    lengths = draw(st.lists(st.integers(0, 4), min_size=batch, max_size=batch).filter(any))
    kv_heads = draw(st.integers(1, 2))
    return name, past, lengths, (kv_heads * draw(st.integers(1, 3)), kv_heads), draw(st.integers(0, 2**16))


@settings(max_examples=6, deadline=None)
@given(ragged())
def test_ragged_batches_equal_the_reference_with_rubbish_behind_every_row(
    call: tuple[str, list[int], list[int], tuple[int, int], int],
) -> None:
    name, past, lengths, heads, seed = call
    capacity = -(-max(p + n for p, n in zip(past, lengths, strict=True)) // PAGE) * PAGE
    inputs = make_inputs(
        PROGRAMS[name],
        np.random.default_rng(seed),
        past,
        lengths,
        max(lengths),
        capacity,
        heads,
        scales=heads[1],
    )
    one = case(PROGRAMS[name], "", inputs, heads)
    assert max(errors(one, run(name, inputs, heads)).values()) <= one.tolerance


@pytest.mark.parametrize(
    ("name", "exact"), [("float32-64-prefill", 1e-5), ("bfloat16-128-paged-decode", 1e-2)]
)
@pytest.mark.parametrize("pieces", [[1] * 3, [2, 0, 3]])
def test_pieces_of_a_prefill_equal_the_whole(name: str, exact: float, pieces: list[int]) -> None:
    """Each piece goes on from the cache that the last one left, which starts as NaN;
    a piece of one row is a decoding step.
    """
    heads, total = (2, 1), sum(pieces)
    whole = make_inputs(PROGRAMS[name], np.random.default_rng(0), [60], [total], total, 2 * PAGE, heads)
    expected = fused_attention(whole, *heads)["y"]
    inputs, start = dict(whole), 0
    for piece in pieces:
        rows = slice(start, start + max(piece, 1))
        inputs |= {key: np.ascontiguousarray(whole[key][:, rows]) for key in ("query", "key", "value")}
        inputs |= {"past_length": np.array([60 + start]), "query_length": np.array([piece])}
        found = run(name, inputs, heads)
        np.testing.assert_allclose(
            found["y"][:, :piece], expected[:, start : start + piece], rtol=0, atol=exact
        )
        assert not found["y"][:, piece:].any()
        inputs |= {"past_key": found["present_key"], "past_value": found["present_value"]}
        start += piece


@pytest.mark.parametrize("cache", ["", "-paged", "-eight-bit", "-eight-bit-paged"])
def test_new_rows_land_in_their_places_and_nothing_else_is_written(cache: str) -> None:
    """By the first launch of all; those of the same cache have the same."""
    like = [
        program
        for name, program in PROGRAMS.items()
        if name.replace("-gated", "").rsplit("-", 1)[0] == f"bfloat16-128{cache}"
    ]
    assert len({image_key(program, program.launches[0]) for program in like}) == 1 < len(like)
    program = dataclasses.replace(like[0], launches=like[0].launches[:1])
    inputs = make_inputs(program, np.random.default_rng(1), [63, 5], [2, 1], 3, 2 * PAGE, (2, 2), scales=2)
    expected, found = (
        fused_attention(inputs, 2, 2),
        run_interpreted(program, inputs, {"num_heads": 2, "kv_num_heads": 2}),
    )
    for present in ("present_key", "present_value"):
        np.testing.assert_array_equal(found[present], expected[present].astype(found[present].dtype))


def test_more_shares_than_the_combining_launch_reads_at_once_are_combined() -> None:
    """As Qwen3.5's decoding has on large GPUs: here two at once of six,
    of which one stream fills all, one the last, one none.
    """
    program = PROGRAMS["bfloat16-128-gated-decode"]
    assert program.launches[-1].constants["SPLITS"] == 128
    combine = dataclasses.replace(
        program.launches[-1], constants={**program.launches[-1].constants, "SPLITS": 2}
    )
    inputs = make_inputs(program, np.random.default_rng(3), [700, 20, 9], [1, 1, 0], 1, 750, (4, 2))
    inputs["query"] *= 8.0  # shares of very different weight
    one = case(dataclasses.replace(program, launches=(*program.launches[:-1], combine)), "", inputs, (4, 2))
    assert (
        max(errors(one, run_interpreted(one.program, one.inputs, one.attributes)).values()) <= one.tolerance
    )


@pytest.mark.parametrize(("batch", "tokens"), [(1, 0), (0, 1)])
@pytest.mark.parametrize(
    "name", ["bfloat16-128-decode", "bfloat16-128-eight-bit-paged-decode", "float32-64-prefill"]
)
def test_empty_calls_have_a_program_and_leave_the_cache_as_it_is(name: str, batch: int, tokens: int) -> None:
    inputs = make_inputs(
        PROGRAMS[name], np.random.default_rng(1), [9] * batch, [0] * batch, tokens, 4 * PAGE, (2, 1), 0.0
    )
    assert (
        select(PROGRAMS.values(), "Attention", kinds(inputs, name), {"num_heads": 2, "kv_num_heads": 1}).name
        == name
    )
    found = run(name, inputs, (2, 1))
    assert found["y"].shape == inputs["query"].shape
    np.testing.assert_array_equal(found["present_key"], inputs["past_key"].astype(found["present_key"].dtype))


def test_rows_beyond_the_capacity_are_dropped() -> None:
    name = "float32-64-prefill"
    inputs = make_inputs(PROGRAMS[name], np.random.default_rng(1), [15], [1], 3, 16, (1, 1), 0.0)
    inputs["query_length"] = np.array([3])
    # the interpreter's guard bytes would tell of a row written behind the cache
    found = run(name, inputs, (1, 1))
    np.testing.assert_array_equal(found["present_key"][0, 0, 15], inputs["key"][0, 0].astype(np.float32))
    np.testing.assert_array_equal(
        found["present_key"][0, 0, :15], inputs["past_key"][0, 0, :15].astype(np.float32)
    )


def test_eight_bit_rows_are_rounded_to_nearest_even_and_saturated() -> None:
    """Every bfloat16 from below half the smallest number to beyond the largest, both signs."""
    name = "bfloat16-128-eight-bit-prefill"
    numbers = (np.arange(128) / 128 + 1) * 2.0 ** np.arange(-12, 12)[:, None]
    inputs = make_inputs(PROGRAMS[name], np.random.default_rng(1), [0], [24], 24, 24, (1, 1))
    inputs |= {
        "key": numbers[None],
        "value": -numbers[None],
        "key_scale": np.ones(1, np.float32),
        "value_scale": np.ones(1, np.float32),
    }
    found = run(name, inputs, (1, 1))
    np.testing.assert_array_equal(found["present_key"][0, 0], encoded(numbers))
    np.testing.assert_array_equal(found["present_value"][0, 0], encoded(-numbers))
    assert decoded(found["present_key"]).max() == 448


def test_large_queries_keep_their_size_against_eight_bit_keys() -> None:
    """bfloat16 goes far beyond float16, in which eight-bit keys are multiplied."""
    name, heads = "bfloat16-128-eight-bit-decode", (2, 1)
    inputs = make_inputs(PROGRAMS[name], np.random.default_rng(1), [5], [1], 1, 16, heads)
    inputs["query"] = inputs["query"] * 2.0**20
    inputs["key_scale"] = inputs["key_scale"] * np.float32(2.0**-20)
    inputs["key"] = inputs["key"] * 2.0**-20
    one = case(PROGRAMS[name], "", inputs, heads)
    assert errors(one, run(name, inputs, heads))["y"] <= one.tolerance


@pytest.mark.parametrize(
    ("tokens", "capacity", "batch", "regime"),
    [
        (1, 128, 1, "short"),
        (1, 129, 1, "decode"),
        (4, 4096, 16, "decode"),
        (5, 4096, 1, "chunk"),
        (64, 4096, 1, "chunk"),
        (64, 4096, 4, "prefill"),
    ],
)
def test_regime_is_chosen_by_rows_and_context(tokens: int, capacity: int, batch: int, regime: str) -> None:
    rows = {
        name: ("bfloat16", (batch, tokens, count * 128))
        for name, count in (("query", 32), ("key", 4), ("value", 4))
    }
    cache = {name: ("bfloat16", (batch, 4, capacity, 128)) for name in ("past_key", "past_value")}
    lengths = {name: ("int64", (batch,)) for name in ("past_length", "query_length")}
    found = select(
        PROGRAMS.values(), "Attention", {**rows, **cache, **lengths}, {"num_heads": 32, "kv_num_heads": 4}
    )
    assert found.name == f"bfloat16-128-{regime}"


@pytest.mark.parametrize(
    "name",
    [
        "bfloat16-128-decode",
        "bfloat16-256-gated-decode",
        "bfloat16-128-eight-bit-decode",
        "bfloat16-128-prefill",
    ],
)
def test_eager_of_the_benchmarks_equals_the_reference(name: str) -> None:
    tokens = 5 if name.endswith("prefill") else 1
    past, heads = (0, (4, 2)) if name.endswith("prefill") else (9, (4, 2))
    inputs = make_inputs(
        PROGRAMS[name], np.random.default_rng(2), [past], [tokens], tokens, past + tokens, heads
    )
    tensors = {
        key: torch.from_numpy(value).float() if value.dtype == np.float64 else torch.from_numpy(value)
        for key, value in inputs.items()
    }
    if "key_scale" in tensors:
        tensors |= {key: tensors[key].view(torch.float8_e4m3fn) for key in ("past_key", "past_value")}
    y = _eager(tensors, {"num_heads": heads[0], "kv_num_heads": heads[1]}).numpy()
    np.testing.assert_allclose(y, fused_attention(inputs, *heads)["y"], rtol=0, atol=1e-5)


def test_benchmarks_have_the_inputs_of_a_program() -> None:
    found = {benchmark.name: benchmark for benchmark in benchmarks()}
    for name in ("thinker-decode-4k", "thinker-eight-bit-decode-4k", "gated-decode-4k"):
        inputs = found[name].make(torch.Generator().manual_seed(0))
        given_kinds = {
            key: (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
            for key, tensor in inputs.items()
        }
        assert select(PROGRAMS.values(), "Attention", given_kinds, found[name].attributes).name.endswith(
            "decode"
        )
        assert found[name].bytes_moved == pytest.approx(
            sum(tensor.nbytes for tensor in inputs.values()), rel=2e-2
        )


@pytest.fixture(scope="module")
def compiled(compiler: ProcessPoolExecutor) -> list[tuple[str, str, Compiled]]:
    """What attends in the Thinker's decode and in Qwen3.5's prefill for every target, and more for one;
    `antiphon plugins compile` makes the others.
    """
    wanted = ("bfloat16-128-decode", "bfloat16-256-gated-prefill")
    fullest = (
        "bfloat16-128-prefill",
        "bfloat16-256-gated-decode",
        "bfloat16-128-eight-bit-chunk",
        "bfloat16-256-eight-bit-paged-gated-prefill",
    )
    steps = [
        (target, program, step)
        for target in GPU_TARGETS
        for program in programs(target)
        if program.name in wanted or (target == "sm90" and program.name in fullest)
        for step in program.launches
        if target == "sm90" or step.kernel.startswith(("attention.attend", "attention.split"))
    ]
    jobs = {
        (target, image_key(program, step)): Job(
            image_key(program, step), target, parameters(program, step), step
        )
        for target, program, step in steps
    }
    return [
        (target, job.launch.kernel, made)
        for (target, _), job, made in zip(
            jobs, jobs.values(), compiler.map(compile_kernel, jobs.values()), strict=True
        )
    ]


def test_hot_kernels_keep_out_of_local_memory(compiled: list[tuple[str, str, Compiled]]) -> None:
    assert {target for target, _, _ in compiled} == set(GPU_TARGETS) and len(compiled) >= 2 * len(
        GPU_TARGETS
    ) + 10
    for target, kernel, made in compiled:
        assert made.image.spill_bytes == 0, (target, kernel)
        assert ".local" not in made.ptx, (target, kernel)


def test_attention_uses_the_tensor_cores(compiled: list[tuple[str, str, Compiled]]) -> None:
    for target, kernel, made in compiled:
        if kernel.startswith("attention.attend"):
            assert {"sm90": "wgmma.mma_async", "sm100": "tcgen05.mma"}.get(target, "mma.sync") in made.ptx, (
                target,
                kernel,
            )
        if kernel.startswith("attention.split"):
            assert "mma" in made.ptx, (target, kernel)
