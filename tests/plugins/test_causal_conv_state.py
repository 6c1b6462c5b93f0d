"""CausalConvState: the reference against a formula in float64,
and every implementation against the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from antiphon.plugins.causal_conv_state.reference import causal_conv_state
from antiphon.plugins.causal_conv_state.torch_op import causal_conv_state as torch_causal_conv_state

from .one_op import run_function, run_lowered

Run = Callable[..., tuple[np.ndarray, np.ndarray]]


def torch_op(*arrays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y, present = torch_causal_conv_state(*(torch.from_numpy(array) for array in arrays))
    return y.numpy(), present.numpy()


ALL: dict[str, Run] = {
    "torch": torch_op,
    "function": lambda *arrays: run_function("CausalConvState", *arrays),
    "lowered": lambda *arrays: run_lowered("CausalConvState", *arrays),
}


def make(lengths: list[int], tokens: int, channels: int, kernel: int = 4, seed: int = 0) -> list[np.ndarray]:
    """Arguments of the op in float32, with rubbish in the padding rows."""
    random = np.random.default_rng(seed)
    shapes = (len(lengths), tokens, channels), (channels, 1, kernel), (len(lengths), kernel - 1, channels)
    return [*(random.normal(size=shape).astype(np.float32) for shape in shapes), np.array(lengths, np.int64)]


@st.composite
def cases(draw: Any) -> list[np.ndarray]:
    tokens = draw(st.integers(1, 7))
    lengths = draw(st.lists(st.integers(0, tokens), min_size=1, max_size=4))
    return make(
        lengths,
        tokens,
        draw(st.sampled_from([1, 5, 64, 130])),
        draw(st.integers(2, 5)),
        draw(st.integers(0, 2**16)),
    )


def check(found: tuple[np.ndarray, np.ndarray], arrays: list[np.ndarray]) -> None:
    expected, present = causal_conv_state(
        *(array.astype(np.float64) if array.dtype == np.float32 else array for array in arrays)
    )
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=5e-6)
    np.testing.assert_array_equal(found[1], present)


@pytest.mark.parametrize("lengths", [[1], [6], [6, 6], [6, 2, 0, 3]])
def test_reference_equals_the_written_out_sum(lengths: list[int]) -> None:
    x, weight, past, _ = (array.astype(np.float64) for array in make(lengths, 6, 3))
    y, present = causal_conv_state(x, weight, past, np.array(lengths))
    for entry, length in enumerate(lengths):
        line = np.concatenate([past[entry], x[entry, :length]])
        for t in range(6):
            for channel in range(3):
                total = (
                    sum(line[t + tap, channel] * weight[channel, 0, tap] for tap in range(4))
                    if t < length
                    else 0.0
                )
                assert y[entry, t, channel] == pytest.approx(total / (1 + np.exp(-total)), abs=1e-12)
        np.testing.assert_array_equal(present[entry], line[len(line) - 3 :])


def test_reference_equals_the_convolution_of_pytorch_followed_by_silu() -> None:
    x, weight, past, lengths = make([9, 9], 9, 6)
    rows = torch.from_numpy(np.concatenate([past, x], axis=1)).double().transpose(1, 2)
    expected = torch.nn.functional.silu(
        torch.nn.functional.conv1d(rows, torch.from_numpy(weight).double(), groups=6)
    ).transpose(1, 2)
    y, _ = causal_conv_state(*(array.astype(np.float64) for array in (x, weight, past)), lengths)
    np.testing.assert_allclose(y, expected.numpy(), rtol=0, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(cases())
@pytest.mark.parametrize("name", list(ALL))
def test_equals_the_reference(name: str, arrays: list[np.ndarray]) -> None:
    check(ALL[name](*arrays), arrays)


@pytest.mark.parametrize("name", list(ALL))
@pytest.mark.parametrize("lengths", [[1, 1], [0], [1, 0, 1]])
def test_single_tokens_and_empty_rows_equal_the_reference(name: str, lengths: list[int]) -> None:
    arrays = make(lengths, 1, 64)
    check(ALL[name](*arrays), arrays)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=6), st.integers(0, 3))
@pytest.mark.parametrize("name", list(ALL))
def test_any_chunks_with_any_padding_equal_one_call(name: str, chunks: list[int], padding: int) -> None:
    tokens = max(1, sum(chunks))
    x, weight, past, _ = make([tokens], tokens, 8)
    lengths = np.array([sum(chunks)])
    whole, last = causal_conv_state(x, weight, past, lengths)
    start = 0
    for chunk in chunks:
        rows = np.full((1, max(1, chunk + padding), 8), 1e20, np.float32)
        rows[:, :chunk] = x[:, start : start + chunk]
        y, past = ALL[name](rows, weight, past, np.array([chunk]))
        np.testing.assert_allclose(y[:, :chunk], whole[:, start : start + chunk], rtol=0, atol=5e-6)
        assert not y[:, chunk:].any()
        start += chunk
    np.testing.assert_array_equal(past, last)


@pytest.mark.parametrize("name", list(ALL))
def test_padding_that_is_no_number_reaches_neither_result_nor_state(name: str) -> None:
    arrays = make([2, 4], 4, 5)
    expected, present = causal_conv_state(*arrays)
    arrays[0][0, 2:] = np.nan
    found = ALL[name](*arrays)
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=5e-6)
    np.testing.assert_array_equal(found[1], present)


def test_op_passes_the_checks_of_pytorch() -> None:
    torch.library.opcheck(torch_causal_conv_state, [torch.from_numpy(array) for array in make([3, 1], 3, 4)])
