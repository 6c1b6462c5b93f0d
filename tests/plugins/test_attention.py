"""Attention: the reference against a formula in float64, and every implementation against the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from antiphon.plugins.attention.reference import attention
from antiphon.plugins.attention.torch_op import attention as torch_attention

from .one_op import run_function, run_lowered

Run = Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]]


def torch_op(*arguments: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    *arrays, heads, kv_heads = arguments
    y, key, value = torch_attention(*(torch.from_numpy(array) for array in arrays), heads, kv_heads)
    return y.numpy(), key.numpy(), value.numpy()


def function(*arguments: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return run_function("Attention", *arguments[:-2], num_heads=arguments[-2], kv_num_heads=arguments[-1])


def lowered(*arguments: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return run_lowered("Attention", *arguments[:-2], num_heads=arguments[-2], kv_num_heads=arguments[-1])


EXACT: dict[str, Run] = {"torch": torch_op, "function": function}
ALL: dict[str, Run] = {**EXACT, "lowered": lowered}


def make(
    past: list[int],
    lengths: list[int],
    tokens: int,
    spare: int,
    kv_heads: int,
    group: int,
    dim: int,
    seed: int = 0,
) -> tuple[Any, ...]:
    """Arguments of the op in float32: the cache holds the longest past, `tokens` and `spare` rows more,
    and rubbish where nothing was written.
    """
    random = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype(np.float32)

    batch, capacity = len(past), max(past) + tokens + spare
    rows, cache = (batch, tokens, kv_heads * dim), (batch, kv_heads, capacity, dim)
    arrays = (
        normal(batch, tokens, kv_heads * group * dim),
        normal(*rows),
        normal(*rows),
        normal(*cache),
        normal(*cache),
    )
    return *arrays, np.array(past, np.int64), np.array(lengths, np.int64), kv_heads * group, kv_heads


@st.composite
def cases(draw: Any, batches: tuple[int, int] = (1, 3)) -> tuple[Any, ...]:
    batch, tokens = draw(st.integers(*batches)), draw(st.integers(1, 6))
    past = draw(st.lists(st.integers(0, 9), min_size=batch, max_size=batch))
    lengths = draw(st.lists(st.integers(0, tokens), min_size=batch, max_size=batch))
    shape = (
        draw(st.integers(0, 4)),
        draw(st.integers(1, 3)),
        draw(st.sampled_from([1, 2, 4])),
        draw(st.sampled_from([8, 16, 24])),
    )
    return make(past, lengths, tokens, *shape, draw(st.integers(0, 2**16)))


def formula(case: tuple[Any, ...]) -> np.ndarray:
    """y by whole sequences, without a cache and in float64: for each row of the batch its past and new keys,
    a triangular mask, a softmax.
    """
    query, key, value, past_key, past_value = (array.astype(np.float64) for array in case[:5])
    heads, kv_heads, dim = case[7], case[8], case[3].shape[-1]
    y = np.zeros_like(query)
    for entry, (past, new) in enumerate(zip(case[5], case[6], strict=True)):
        q = query[entry, :new].reshape(new, heads, dim)
        k, v = (
            np.concatenate(
                [old[entry, :, :past].swapaxes(0, 1), rows[entry, :new].reshape(new, kv_heads, dim)]
            ).repeat(heads // kv_heads, axis=1)
            for old, rows in ((past_key, key), (past_value, value))
        )
        scores = np.einsum("thd,shd->hts", q, k) / dim**0.5 + np.triu(
            np.full((new, past + new), -np.inf), past + 1
        )
        weights = np.exp(scores)
        y[entry, :new] = np.einsum("hts,shd->thd", weights / weights.sum(-1, keepdims=True), v).reshape(
            new, heads * dim
        )
    return y


def check(found: tuple[np.ndarray, ...], case: tuple[Any, ...], is_whole_cache: bool = True) -> None:
    y, present_key, present_value = attention(*case)
    np.testing.assert_allclose(found[0], y, rtol=0, atol=3e-6)
    for got, expected in ((found[1], present_key), (found[2], present_value)):
        for entry, visible in enumerate(case[5] + case[6]):
            rows = slice(None) if is_whole_cache else slice(visible)
            np.testing.assert_array_equal(got[entry, :, rows], expected[entry, :, rows])


@settings(max_examples=60, deadline=None)
@given(cases())
def test_reference_equals_the_formula(case: tuple[Any, ...]) -> None:
    exact = [array.astype(np.float64) for array in case[:5]]
    y, present_key, _ = attention(*exact, *case[5:])
    np.testing.assert_allclose(y, formula(case), rtol=0, atol=1e-12)
    for entry, (past, new) in enumerate(zip(case[5], case[6], strict=True)):
        before, after = present_key[entry, :, :past], present_key[entry, :, past + new :]
        np.testing.assert_array_equal(before, exact[3][entry, :, :past])
        np.testing.assert_array_equal(after, exact[3][entry, :, past + new :])
        np.testing.assert_array_equal(
            present_key[entry, :, past : past + new].swapaxes(0, 1).reshape(new, exact[1].shape[-1]),
            exact[1][entry, :new],
        )


@settings(max_examples=40, deadline=None)
@given(cases())
@pytest.mark.parametrize("name", list(EXACT))
def test_torch_op_and_function_equal_the_reference_with_padding_and_any_past(
    name: str, case: tuple[Any, ...]
) -> None:
    check(EXACT[name](*case), case)


@settings(max_examples=60, deadline=None)
@given(cases(batches=(1, 1)))
def test_lowering_equals_the_reference_for_one_stream_with_padding(case: tuple[Any, ...]) -> None:
    check(lowered(*case), case, is_whole_cache=False)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 1)), min_size=2, max_size=4),
    st.sampled_from([1, 2, 4]),
)
def test_lowering_equals_the_reference_for_single_steps_of_streams_with_different_pasts(
    streams: list[tuple[int, int]], group: int
) -> None:
    case = make([past for past, _ in streams], [new for _, new in streams], 1, 1, 2, group, 16)
    check(lowered(*case), case, is_whole_cache=False)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=3))
def test_lowering_equals_the_reference_for_ragged_rows_on_an_empty_cache(lengths: list[int]) -> None:
    case = make([0] * len(lengths), lengths, 5, 2, 2, 2, 16)
    check(lowered(*case), case, is_whole_cache=False)


def test_lowering_refuses_several_rows_of_several_tokens_behind_a_past() -> None:
    with pytest.raises(Exception, match="GroupQueryAttention"):
        lowered(*make([2, 3], [2, 2], 2, 2, 2, 2, 16))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=6), st.integers(0, 3))
@pytest.mark.parametrize("name", list(ALL))
def test_prefill_in_any_chunks_equals_one_prefill(name: str, chunks: list[int], past: int) -> None:
    case = make([past], [sum(chunks)], sum(chunks), 0, 2, 2, 16)
    whole, _, _ = attention(*case)
    cache, start = case[3:5], 0
    for chunk in chunks:
        span = slice(start, start + chunk)
        y, *cache = ALL[name](
            *(array[:, span] for array in case[:3]),
            *cache,
            np.array([past + start]),
            np.array([chunk]),
            *case[7:],
        )
        np.testing.assert_allclose(y, whole[:, span], rtol=0, atol=3e-6)
        start += chunk


@pytest.mark.parametrize("name", list(EXACT))
def test_padding_beyond_the_capacity_is_harmless(name: str) -> None:
    case = make([8], [3], 5, -2, 2, 2, 16)
    assert case[3].shape[2] == 8 + 3
    check(EXACT[name](*case), case)


@pytest.mark.parametrize("name", list(ALL))
def test_rows_that_are_not_visible_are_not_read(name: str) -> None:
    """Very large values there would show in any sum;
    a lowered engine must not even multiply them, so NaN may lie there.
    """
    case = make([3], [2], 2, 4, 2, 2, 16)
    expected, _, _ = attention(*case)
    for cache in case[3:5]:
        cache[:, :, 5:] = np.nan if name == "lowered" else 1e30
    np.testing.assert_allclose(ALL[name](*case)[0], expected, rtol=0, atol=3e-6)
