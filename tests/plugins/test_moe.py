"""MoE: the reference against a formula in float64, and every implementation against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from antiphon.plugins.moe.reference import interleave, moe
from antiphon.plugins.moe.torch_op import moe as torch_moe

from .one_op import run_function, run_lowered

ROUTINGS = ("random", "all to one", "one expert never")
Case = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int, bool]


@st.composite
def cases(draw: Any) -> Case:
    """x, router_logits, gate_up, down, top_k, normalize in float32."""
    rows, hidden, inter, experts = (
        draw(st.integers(1, 9)),
        draw(st.integers(1, 17)),
        draw(st.integers(1, 13)),
        draw(st.integers(1, 7)),
    )
    top_k, routing = draw(st.integers(1, experts)), draw(st.sampled_from(ROUTINGS))
    return make(
        rows, hidden, inter, experts, top_k, draw(st.booleans()), routing, draw(st.integers(0, 2**16))
    )


def make(
    rows: int,
    hidden: int,
    inter: int,
    experts: int,
    top_k: int,
    normalize: bool,
    routing: str = "random",
    seed: int = 0,
) -> Case:
    random = np.random.default_rng(seed)
    logits = random.normal(size=(rows, experts)) * 3
    if routing == "all to one":
        logits[:, seed % experts] += 20
    if routing == "one expert never":
        logits[:, seed % experts] -= 40
    x, gate_up, down = (
        random.normal(size=(rows, hidden)),
        random.normal(size=(experts, 2 * inter, hidden)),
        random.normal(size=(experts, hidden, inter)),
    )
    arrays = (x, logits, gate_up / np.sqrt(hidden), down / np.sqrt(inter))
    return *(array.astype(np.float32) for array in arrays), top_k, normalize  # type: ignore[return-value]


def formula(case: Case) -> np.ndarray:
    """The dense mixture: every expert on every row, with a weight of zero where another top_k experts
    have larger logits. In float64.
    """
    x, logits, gate_up, down = (array.astype(np.float64) for array in case[:4])
    share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    # [rows, experts]: how many experts are before this one
    larger = (logits[:, None, :] > logits[:, :, None]).sum(2)
    share = np.where(larger < case[4], share, 0)
    if case[5]:
        share = share / share.sum(1, keepdims=True)
    gate, up = (
        np.einsum("eih,rh->rei", gate_up[:, 0::2], x, optimize=True),
        np.einsum("eih,rh->rei", gate_up[:, 1::2], x, optimize=True),
    )
    return np.einsum("re,ehi,rei->rh", share, down, gate * up / (1 + np.exp(-gate)), optimize=True)


def close(found: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    assert found.shape == expected.shape
    np.testing.assert_allclose(
        found, expected, rtol=0, atol=tolerance * max(1.0, float(np.abs(expected).max()))
    )


@settings(max_examples=60, deadline=None)
@given(cases())
def test_reference_equals_the_formula(case: Case) -> None:
    close(moe(*(array.astype(np.float64) for array in case[:4]), *case[4:]), formula(case), 1e-12)


@settings(max_examples=40, deadline=None)
@given(cases())
def test_torch_op_equals_the_reference(case: Case) -> None:
    close(torch_moe(*(torch.from_numpy(array) for array in case[:4]), *case[4:]).numpy(), moe(*case), 3e-6)


@settings(max_examples=40, deadline=None)
@given(cases())
def test_function_equals_the_reference(case: Case) -> None:
    close(run_function("MoE", *case[:4], top_k=case[4], normalize=int(case[5])), moe(*case), 3e-6)


@settings(max_examples=40, deadline=None)
@given(cases())
def test_lowering_equals_the_reference(case: Case) -> None:
    close(run_lowered("MoE", *case[:4], top_k=case[4], normalize=int(case[5])), moe(*case), 3e-6)


@pytest.mark.parametrize("normalize", [False, True])
def test_all_implementations_agree_at_a_published_ratio(normalize: bool) -> None:
    """128 experts of which 8 work, 256 rows: the routing of the published Thinker at a smaller width."""
    case = make(256, 64, 24, 128, 8, normalize, seed=1)
    expected = formula(case)
    for found in (
        torch_moe(*(torch.from_numpy(array) for array in case[:4]), *case[4:]).numpy(),
        run_function("MoE", *case[:4], top_k=8, normalize=int(normalize)),
        run_lowered("MoE", *case[:4], top_k=8, normalize=int(normalize)),
    ):
        close(found, expected, 3e-6)


def test_torch_op_and_function_keep_leading_axes() -> None:
    case = make(6, 8, 4, 3, 2, True)
    folded = case[0].reshape(2, 3, 8)
    expected = moe(*case).reshape(2, 3, 8)
    close(
        torch_moe(
            torch.from_numpy(folded), *(torch.from_numpy(array) for array in case[1:4]), 2, True
        ).numpy(),
        expected,
        3e-6,
    )
    close(run_function("MoE", folded, *case[1:4], top_k=2, normalize=1), expected, 3e-6)


def test_of_equal_logits_the_lower_expert_wins_in_reference_and_function() -> None:
    case = make(4, 8, 4, 5, 2, True)
    case[1][:] = np.array([0, 1, 1, 1, 0], np.float32)
    expected = formula((case[0], np.tile(np.array([0, 2, 2, 0, 0], np.float32), (4, 1)), *case[2:]))
    close(moe(*case), expected, 3e-6)
    close(run_function("MoE", *case[:4], top_k=2, normalize=1), expected, 3e-6)


def test_experts_that_no_row_chooses_are_never_touched() -> None:
    """NaN in their weights would show: zero times NaN is NaN."""
    case = make(7, 16, 8, 6, 2, True, seed=3)
    case[1][:, [1, 4]] = -30
    expected = moe(*case)
    case[2][[1, 4]], case[3][[1, 4]] = np.nan, np.nan
    close(torch_moe(*(torch.from_numpy(array) for array in case[:4]), *case[4:]).numpy(), expected, 3e-6)
    close(run_lowered("MoE", *case[:4], top_k=2, normalize=1), expected, 3e-6)


def test_interleave_puts_gate_and_up_rows_in_turn() -> None:
    gate, up = np.arange(12.0).reshape(2, 3, 2), 100 + np.arange(12.0).reshape(2, 3, 2)
    joined = interleave(gate, up)
    assert joined.shape == (2, 6, 2)
    np.testing.assert_array_equal(joined[:, 0::2], gate)
    np.testing.assert_array_equal(joined[:, 1::2], up)
