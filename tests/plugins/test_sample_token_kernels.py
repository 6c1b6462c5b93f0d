"""SampleToken's kernels: the reference's ids at every edge, by the quick way and the slow one,
and what the compiler makes of them.
"""

from __future__ import annotations

import dataclasses
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton")
torch = pytest.importorskip("torch")

from antiphon.plugins.sample_token.benchmarks import benchmarks, eager
from antiphon.plugins.sample_token.cases import KINDS, MARGIN, RECIPES, clear_inputs, draw, random_row
from antiphon.plugins.sample_token.programs import CAPACITY, programs
from antiphon.plugins.sample_token.reference import sample_token
from antiphon.plugins.tools.cases import cases, errors
from antiphon.plugins.tools.compile_worker import Job, compile_kernel
from antiphon.plugins.tools.interpreter import run_interpreted
from antiphon.runtime.kernels.contract import GPU_TARGETS, Program, image_key, parameters
from antiphon.runtime.kernels.invoke import select

PROGRAMS = {program.name: program for program in programs("sm90")}
FORMS = ("float32-2048", "float32-large")
LAST_NOISE = 1 - 2**-24
"""The largest number that the noise can be."""
RECIPE = st.tuples(
    st.sampled_from([0.0, 0.2, 0.9, 1.0, 1.7]),
    st.sampled_from([0, 1, 2, 5, 50, 260, 10**6]),
    st.sampled_from([1e-9, 0.05, 0.8, 0.95, 1.0]),
    st.sampled_from([1.0, 1.1, 1.5]),
)
KIND = st.sampled_from(KINDS)
NOISE = st.one_of(st.none(), st.sampled_from([0.0, 0.5, LAST_NOISE]))


def run(program: Program, **inputs: np.ndarray) -> np.ndarray:
    return run_interpreted(program, inputs, {})["token"]


def draw_one(name: str, row: dict[str, np.ndarray]) -> int:
    return int(run(PROGRAMS[name], **stacked([row]))[0])


def stacked(rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def check_token(row: dict[str, np.ndarray], token: int) -> None:
    """`token` is the reference's; where another is within the margin,
    it is one whose share of the noise begins or ends there.
    """
    exact = draw(row)
    if exact.margin > MARGIN:
        assert token == sample_token(**{name: value[None] for name, value in row.items()})[0]
    elif exact.filter_margin > MARGIN:
        assert token in exact.ids
        place = int(np.searchsorted(exact.ids, token))
        before = exact.edges[place - 1] if place else 0.0
        assert before - MARGIN <= row["noise"] < exact.edges[place] + MARGIN
    else:
        assert not row["suppressed"][token]


def plain_row(logits: Any, **values: Any) -> dict[str, np.ndarray]:
    """A row without penalty and suppression, sampled at temperature 1 with no
    filter unless `values` say so.
    """
    logits = np.asarray(logits, np.float64)
    row = {
        "logits": logits,
        "noise": 0.5,
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "repetition_penalty": 1.0,
    }
    row |= {name: np.zeros(len(logits), bool) for name in ("penalised", "suppressed")} | values
    return {name: np.asarray(value, np.int64 if name == "top_k" else None) for name, value in row.items()}


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_draws_the_ids_of_the_reference(name: str) -> None:
    for case in cases(PROGRAMS[name]):
        found = run_interpreted(case.program, case.inputs, case.attributes)
        assert found["token"].dtype == np.int64
        assert max(errors(case, found).values()) == 0, (case.name, found["token"], case.expected()["token"])


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["bfloat16-2048", "float32-2048", "float16-4096"]),
    st.integers(1, 700),
    RECIPE,
    KIND,
    NOISE,
    st.integers(0, 2**32 - 1),
)
def test_small_form_draws_the_id_of_the_reference(
    name: str, vocab: int, recipe: tuple[float, int, float, float], kind: str, noise: float | None, seed: int
) -> None:
    program = PROGRAMS[name]
    row = random_row(np.random.default_rng(seed), vocab, kind, recipe, program.inputs[0].dtype)
    if noise is not None:
        row["noise"] = np.array(noise, np.float32)
    check_token(row, int(run(program, **stacked([row]))[0]))


@settings(max_examples=8, deadline=None)
@given(
    st.sampled_from(["bfloat16-large", "float32-large"]),
    st.sampled_from([16, 2064, 8208]),
    RECIPE,
    KIND,
    NOISE,
    st.integers(0, 2**32 - 1),
)
def test_large_form_draws_the_id_of_the_reference(
    name: str, vocab: int, recipe: tuple[float, int, float, float], kind: str, noise: float | None, seed: int
) -> None:
    program = PROGRAMS[name]
    rows = [
        random_row(np.random.default_rng([seed, place]), vocab, kind, recipe, program.inputs[0].dtype)
        for place in range(2)
    ]
    for row in rows if noise is not None else []:
        row["noise"] = np.array(noise, np.float32)
    for row, token in zip(rows, run(program, **stacked(rows)), strict=True):
        check_token(row, int(token))


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(
    ("top_k", "top_p", "values"),
    [
        (0, 1.0, 4),
        (40, 1.0, 1),
        (41, 1.0, 2),
        (119, 1.0, 3),
        (0, 0.5, 1),
        (0, 0.8, 2),
        (0, 0.99, 4),
        (90, 0.9, 2),
        (500, 1e-9, 1),
    ],
)
def test_ids_of_equal_logits_are_kept_together(name: str, top_k: int, top_p: float, values: int) -> None:
    logits = np.tile([3.0, 1.0, 2.0, 0.0], 40)
    ids = np.flatnonzero(logits > 3 - values)
    for noise, wanted in ((0.0, ids[0]), (LAST_NOISE, ids[-1])):
        row = plain_row(logits, top_k=top_k, top_p=top_p, noise=noise)
        np.testing.assert_array_equal(draw(row).ids, ids)
        assert draw_one(name, row) == wanted


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(("top_p", "last"), [(0.72, 0), (0.74, 3)])
def test_of_ids_equal_to_the_last_of_top_k_the_nucleus_counts_as_many_as_top_k_has_room_for(
    name: str, top_p: float, last: int
) -> None:
    # e / (e + 1) = 0.731, but e / (e + 2) = 0.576
    row = plain_row([2.0, 0.0, 1.0, 1.0, *[-5.0] * 12], top_k=2, top_p=top_p, noise=LAST_NOISE)
    assert draw_one(name, row) == sample_token(**stacked([row]))[0] == last


@pytest.mark.parametrize("name", FORMS)
def test_greedy_takes_the_first_of_the_largest_whatever_the_filters(name: str) -> None:
    logits = np.full(8208, -7.0)
    logits[[5, 700, 8000]] = -0.0, 0.0, 0.0
    row = plain_row(
        logits[: 1600 if name == "float32-2048" else None],
        temperature=0.0,
        top_k=3,
        top_p=0.5,
        noise=LAST_NOISE,
    )
    assert draw_one(name, row) == 5
    row["suppressed"][5] = True
    assert draw_one(name, row) == 700


@pytest.mark.parametrize("name", FORMS)
def test_ids_equal_to_zero_of_either_sign_are_equal(name: str) -> None:
    row = plain_row([-0.0, 0.0, -3.0, -0.0, *[-9.0] * 12], top_k=1, noise=LAST_NOISE)
    assert draw_one(name, row) == 3
    assert draw_one(name, row | {"top_p": np.array(0.5), "top_k": np.array(0)}) == 3


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_only_free_id_is_drawn(name: str, recipe: str) -> None:
    row = random_row(np.random.default_rng(0), 48, "ordinary", RECIPES[recipe], "float32")
    row["suppressed"] = np.arange(48) != 29
    for noise in (0.0, LAST_NOISE):
        assert draw_one(name, row | {"noise": np.array(noise, np.float32)}) == 29


@pytest.mark.parametrize("name", FORMS)
def test_the_slow_way_draws_the_ids_of_the_quick_one(name: str) -> None:
    """With room for one candidate every row that is cut takes the slow way."""
    program = PROGRAMS[name]
    slow = tuple(
        dataclasses.replace(
            step,
            constants={name: 1 if name == "CAPACITY" else value for name, value in step.constants.items()},
        )
        for step in program.launches
    )
    inputs = clear_inputs(program, np.random.default_rng(7), 2032)
    quick = run(program, **inputs)
    for row, wanted in enumerate(quick):
        assert (
            run(
                dataclasses.replace(program, launches=slow),
                **{key: value[row : row + 1] for key, value in inputs.items()},
            )[0]
            == wanted
        )


def test_a_vocabulary_of_75_blocks_is_drawn_from_as_the_reference_does() -> None:
    """Qwen3-Omni's: 150 groups bound the candidates, which come from many blocks."""
    row = random_row(np.random.default_rng(1), 151936, "ordinary", RECIPES["predictor"], "bfloat16")
    assert draw(row).margin > MARGIN
    assert run(PROGRAMS["bfloat16-large"], **stacked([row]))[0] == sample_token(**stacked([row]))[0]


@pytest.mark.parametrize("recipe", ["talker", "predictor", "nucleus"])
@pytest.mark.parametrize(
    ("vocab", "groups"), [(2048, 128), (3072, 128), (5120, 256), (151936, 150), (248320, 244)]
)
def test_candidates_of_usual_parameters_have_room(recipe: str, vocab: int, groups: int) -> None:
    """What the quick way rests on: how many ids reach the bound,
    for the groups of each form and ids in any order.
    """
    rng = np.random.default_rng(0)
    for _ in range(5):
        row = random_row(rng, vocab, "ordinary", RECIPES[recipe], "bfloat16")
        logits = np.where(row["suppressed"], -np.inf, row["logits"])
        maxima = np.sort([part.max() for part in np.array_split(logits, groups)])[::-1]
        assert np.count_nonzero(logits >= maxima[(int(row["top_k"]) or (groups + 1) // 2) - 1]) <= CAPACITY


@pytest.mark.parametrize("vocab", [2048, 3072])
def test_eager_of_the_benchmarks_draws_the_ids_of_the_reference(vocab: int) -> None:
    rows = [
        random_row(np.random.default_rng([vocab, place]), vocab, "ordinary", RECIPES["predictor"], "float32")
        for place in range(8)
    ]
    inputs = stacked([row for row in rows if draw(row).margin > MARGIN])
    tensors = {
        name: torch.from_numpy(value.astype(np.float32) if name == "logits" else value)
        for name, value in inputs.items()
    }
    np.testing.assert_array_equal(eager(tensors, {}).numpy(), sample_token(**inputs))


def test_benchmarks_have_the_inputs_of_a_program() -> None:
    chosen = []
    for benchmark in benchmarks():
        inputs = benchmark.make(torch.Generator().manual_seed(0))
        kinds = {
            name: (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
            for name, tensor in inputs.items()
        }
        chosen.append(select(PROGRAMS.values(), "SampleToken", kinds, benchmark.attributes).name)
        assert benchmark.bytes_moved == sum(tensor.nbytes for tensor in inputs.values()) + 8 * len(
            inputs["noise"]
        )
    assert chosen == [f"bfloat16-{form}" for form in ("2048", "2048", "4096", "4096", "large", "large")]


def test_kernels_keep_out_of_local_memory(compiler: ProcessPoolExecutor) -> None:
    """One tile and the large form on every target, the others on one."""
    everywhere = ("bfloat16-2048", "bfloat16-large")
    wanted = [
        (target, program)
        for target in GPU_TARGETS
        for program in programs(target)
        if program.name in everywhere
    ]
    wanted += [("sm90", PROGRAMS[name]) for name in ("float16-4096", "float32-8192")]
    jobs = [
        Job(image_key(program, step), target, parameters(program, step), step)
        for target, program in wanted
        for step in program.launches
    ]
    for job, made in zip(jobs, compiler.map(compile_kernel, jobs), strict=True):
        assert made.image.spill_bytes == 0 and ".local" not in made.ptx, (job.launch.kernel, job.target)
