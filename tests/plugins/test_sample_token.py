"""SampleToken: the PyTorch op, the ONNX function and its lowering draw the reference's ids;
the reference draws the right distribution at every edge.

The reference alone, on hand-made rows: test_sample_token_reference.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

import onnx_ir as ir

from antiphon.export.engines.onnxruntime.passes.replace_ops import replace_ops
from antiphon.plugins.sample_token.lower_onnxruntime import lower
from antiphon.plugins.sample_token.reference import sample_token
from antiphon.plugins.sample_token.torch_op import sample_token as torch_sample_token
from antiphon.runtime.stages.noise import uniform

from .one_op import graph, run_function, run_lowered

LAST_NOISE = np.float32(1 - 2**-24)
"""The largest number that the noise can be."""
TEMPERATURES = [0.0, 0.2, 0.9, 1.0, 1.7]
TOP_P = [1e-9, 0.05, 0.8, 0.95, 1.0]


def make(rows: int, vocab: int, seed: int = 0, **fixed: Any) -> list[np.ndarray]:
    """Random arguments of the op, each row with its own parameters; `fixed` sets one of them for all rows."""
    random = np.random.default_rng(seed)
    suppressed = random.random((rows, vocab)) < 0.2
    suppressed[np.arange(rows), random.integers(0, vocab, rows)] = False
    arguments = {
        "logits": (random.normal(size=(rows, vocab)) * 3).astype(np.float32),
        "noise": random.integers(0, 2**24, rows).astype(np.float32) / np.float32(2**24),
        "temperature": random.choice(TEMPERATURES, rows).astype(np.float32),
        "top_k": random.choice([0, 1, 50, vocab + 5], rows).astype(np.int64),
        "top_p": random.choice(TOP_P, rows).astype(np.float32),
        "repetition_penalty": random.choice([1.0, 1.1, 1.5], rows).astype(np.float32),
        "penalised": random.random((rows, vocab)) < 0.3,
        "suppressed": suppressed,
    }
    for name, value in fixed.items():
        arguments[name] = np.broadcast_to(
            np.asarray(value, arguments[name].dtype), arguments[name].shape
        ).copy()
    return list(arguments.values())


def kept(arguments: list[np.ndarray], row: int) -> np.ndarray:
    """The distribution of one row in float64, written as the rule reads:
    probability of every id after all filters.
    """
    logits, _, temperature, top_k, top_p, penalty, penalised, suppressed = (
        argument[row] for argument in arguments
    )
    scores = logits.astype(np.float64)
    scores = np.where(
        penalised, scores / np.where(scores > 0, penalty, 1 / np.float64(penalty)), scores
    ) / np.float64(temperature)
    order = [int(i) for i in np.argsort(-scores, kind="stable") if not suppressed[i]]
    order = order[: top_k or None]
    share = np.exp(scores[order] - scores[order[0]])
    share /= share.sum()
    count = (
        max(1, sum(share[:place].sum() < top_p for place in range(len(order)))) if top_p < 1 else len(order)
    )
    result = np.zeros(len(logits))
    result[order[:count]] = share[:count] / share[:count].sum()
    return result


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 90), st.integers(0, 2**16))
def test_torch_op_function_and_lowering_draw_the_ids_of_the_reference(
    rows: int, vocab: int, seed: int
) -> None:
    arguments = make(rows, vocab, seed)
    expected = sample_token(*arguments)
    np.testing.assert_array_equal(
        torch_sample_token(*(torch.from_numpy(argument) for argument in arguments)).numpy(), expected
    )
    np.testing.assert_array_equal(run_function("SampleToken", *arguments), expected)
    np.testing.assert_array_equal(run_lowered("SampleToken", *arguments), expected)


@pytest.mark.parametrize(
    "temperature",
    [
        pytest.param([0.0], id="greedy"),
        pytest.param([0.9], id="sampled"),
        pytest.param([0.0, 0.9, 1.7], id="mixed"),
    ],
)
@pytest.mark.parametrize("rows", [1, 3, 300])
def test_lowering_draws_the_ids_of_the_reference_at_any_mixture_of_temperatures(
    temperature: list[float], rows: int
) -> None:
    arguments = make(rows, 700, seed=rows, temperature=np.resize(temperature, rows))
    np.testing.assert_array_equal(run_lowered("SampleToken", *arguments), sample_token(*arguments))


@pytest.mark.parametrize(("rows", "vocab"), [(4000, 60), (300, 3000)])
def test_function_draws_the_ids_of_the_reference_on_many_rows(rows: int, vocab: int) -> None:
    arguments = make(rows, vocab, seed=5)
    np.testing.assert_array_equal(run_function("SampleToken", *arguments), sample_token(*arguments))


@pytest.mark.parametrize("noise", [0.0, LAST_NOISE])
@pytest.mark.parametrize("top_p", TOP_P)
@pytest.mark.parametrize("top_k", [0, 1, 50, 105])
def test_the_ends_of_the_noise_give_the_first_and_the_last_kept_id(
    noise: float, top_p: float, top_k: int
) -> None:
    arguments = make(40, 100, seed=top_k, noise=noise, top_p=top_p, top_k=top_k, temperature=0.9)
    tokens = sample_token(*arguments)
    np.testing.assert_array_equal(run_function("SampleToken", *arguments), tokens)
    for row, token in enumerate(tokens):
        probabilities = kept(arguments, row)
        # ids below the resolution of the noise may be passed over
        likely = np.flatnonzero(probabilities > 1e-6)
        assert probabilities[token] > 0
        assert token <= likely[0] if noise == 0 else token >= likely[-1]


@pytest.mark.parametrize(
    "draw",
    [sample_token, lambda *arguments: run_function("SampleToken", *arguments)],
    ids=["reference", "function"],
)
@pytest.mark.parametrize("seed", range(3))
def test_frequencies_follow_the_filtered_distribution(draw: Any, seed: int) -> None:
    """A chi-square bound over 20,000 Philox draws: its mean is the number of kept ids less one,
    five deviations are allowed.
    """
    draws, vocab = 20000, 40
    top_k, top_p = [(0, 1.0), (12, 1.0), (20, 0.9)][seed]
    one = make(1, vocab, seed, temperature=1.7, top_k=top_k, top_p=top_p)
    arguments = [np.repeat(argument, draws, axis=0) for argument in one]
    arguments[1] = uniform(seed, 0, np.arange(draws))
    counts, expected = np.bincount(draw(*arguments), minlength=vocab), draws * kept(one, 0)
    assert not counts[expected == 0].any()
    common = expected > 5
    statistic = float((((counts - expected) ** 2)[common] / expected[common]).sum())
    freedom = int(common.sum()) - 1
    assert freedom > 3 and statistic < freedom + 5 * np.sqrt(2 * freedom)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 60),
    st.integers(0, 2**16),
    st.sampled_from(TEMPERATURES),
    st.sampled_from([0.0, 0.5, LAST_NOISE]),
)
def test_suppressed_ids_are_never_drawn_even_when_they_are_the_likeliest(
    vocab: int, seed: int, temperature: float, noise: float
) -> None:
    arguments = make(8, vocab, seed, temperature=temperature, noise=noise)
    arguments[0][arguments[7]] += 50
    for tokens in (
        sample_token(*arguments),
        run_function("SampleToken", *arguments),
        run_lowered("SampleToken", *arguments),
    ):
        assert not arguments[7][np.arange(8), tokens].any()


@pytest.mark.parametrize("noise", [0.0, 0.5, LAST_NOISE])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_only_free_id_is_drawn(noise: float, temperature: float) -> None:
    arguments = make(5, 9, noise=noise, temperature=temperature)
    arguments[7] = ~np.eye(5, 9, 2, dtype=bool)
    for tokens in (
        sample_token(*arguments),
        run_function("SampleToken", *arguments),
        run_lowered("SampleToken", *arguments),
    ):
        assert tokens.tolist() == [2, 3, 4, 5, 6]


def test_greedy_takes_the_first_of_the_largest_whatever_the_filters() -> None:
    arguments = make(3, 7, temperature=0, suppressed=False, penalised=False, top_k=1)
    arguments[0][:] = [0, 4, 1, 4, -2, 4, 0]
    results = [run("SampleToken", *arguments) for run in (run_function, run_lowered)]
    for tokens in (
        sample_token(*arguments),
        *results,
        torch_sample_token(*map(torch.from_numpy, arguments)).numpy(),
    ):
        assert tokens.tolist() == [1, 1, 1]


def test_ids_equal_to_the_last_of_top_k_are_kept_by_function_and_reference() -> None:
    noise = np.arange(64, dtype=np.float32) / 64
    arguments = make(64, 4, temperature=1, top_k=2, top_p=1, suppressed=False, penalised=False)
    arguments[0][:], arguments[1] = [2, 1, 1, 0], noise
    expected = sample_token(*arguments)
    assert set(expected.tolist()) == {0, 1, 2}
    np.testing.assert_array_equal(run_function("SampleToken", *arguments), expected)


def test_a_flat_tail_is_kept_whole_when_top_p_is_off() -> None:
    """With top_p 1 nothing may be cut, although the float32 sum of the shares before the tail can reach 1."""
    logits = np.full(3000, -12.0)
    logits[0] = 0
    arguments = make(
        1,
        3000,
        logits=logits,
        temperature=1,
        top_k=0,
        top_p=1,
        suppressed=False,
        penalised=False,
        noise=LAST_NOISE,
    )
    expected = sample_token(*arguments)
    assert expected[0] > 2900
    np.testing.assert_array_equal(run_function("SampleToken", *arguments), expected)


def greedy_branch(penalised: bool | None, suppressed: bool | None) -> list[str]:
    """Ops of the branch for rows that are all greedy;
    a mask is constant, with one id set or none, or (None) an input.
    """
    model = ir.serde.deserialize_model(graph("SampleToken"))
    for name, is_set in (("penalised", penalised), ("suppressed", suppressed)):
        if is_set is not None:
            mask = np.zeros((1, 4), bool)
            mask[0, 2] = is_set
            (value,) = (value for value in model.graph.inputs if value.name == name)
            model.graph.inputs.remove(value)
            value.const_value = ir.tensor(mask, name=name)
            model.graph.initializers[name] = value
    assert replace_ops(model, {"SampleToken": lower}) == 1
    (choice,) = (node for node in model.graph if node.op_type == "If")
    return [node.op_type for node in choice.attributes["then_branch"].as_graph()]


def test_masks_known_to_be_empty_cost_nothing_when_all_rows_are_greedy() -> None:
    assert greedy_branch(False, False) == ["Cast", "ArgMax"]


@pytest.mark.parametrize(
    ("penalised", "suppressed", "count"),
    [(None, None, 3), (True, True, 3), (False, True, 1), (False, None, 1), (None, False, 2)],
)
def test_masks_that_may_forbid_an_id_are_heeded_when_all_rows_are_greedy(
    penalised: bool | None, suppressed: bool | None, count: int
) -> None:
    branch = greedy_branch(penalised, suppressed)
    assert branch.count("Where") == count and branch[-1] == "ArgMax"
    assert not {"TopK", "CumSum", "Exp", "SampleToken"} & set(branch)
