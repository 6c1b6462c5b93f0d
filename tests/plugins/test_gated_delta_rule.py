"""GatedDeltaRule: the reference against a formula in float64,
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

import onnx
import onnx_ir as ir

from antiphon.export.engines.onnxruntime.passes.replace_ops import replace_ops
from antiphon.plugins.gated_delta_rule.lower_onnxruntime import lower
from antiphon.plugins.gated_delta_rule.reference import gated_delta_rule
from antiphon.plugins.gated_delta_rule.torch_op import gated_delta_rule as torch_gated_delta_rule
from antiphon.runtime.engines.onnxruntime.sessions import make_session

from .one_op import graph, run_function, run_lowered

Run = Callable[..., tuple[np.ndarray, np.ndarray]]


def torch_op(*arguments: Any) -> tuple[np.ndarray, np.ndarray]:
    *arrays, key_heads, value_heads = arguments
    y, present = torch_gated_delta_rule(
        *(torch.from_numpy(array) for array in arrays), key_heads, value_heads
    )
    return y.numpy(), present.numpy()


ALL: dict[str, Run] = {
    "torch": torch_op,
    "function": lambda *given: run_function(
        "GatedDeltaRule", *given[:-2], key_heads=given[-2], value_heads=given[-1]
    ),
    "lowered": lambda *given: run_lowered(
        "GatedDeltaRule", *given[:-2], key_heads=given[-2], value_heads=given[-1]
    ),
}


def make(
    lengths: list[int], tokens: int, key_heads: int, group: int, key_dim: int, value_dim: int, seed: int = 0
) -> tuple[Any, ...]:
    """Arguments of the op in float32, with rubbish in the padding rows."""
    random = np.random.default_rng(seed)
    batch, heads = len(lengths), key_heads * group
    shapes = (
        (batch, tokens, key_heads * key_dim),
        (batch, tokens, key_heads * key_dim),
        (batch, tokens, heads * value_dim),
        (batch, tokens, heads),
        (batch, tokens, heads),
        (heads,),
        (heads,),
        (batch, heads, key_dim, value_dim),
    )
    arrays = [random.normal(size=shape).astype(np.float32) for shape in shapes]
    arrays[6] = -np.exp(arrays[6])
    return *arrays, np.array(lengths, np.int64), key_heads, heads


@st.composite
def cases(draw: Any) -> tuple[Any, ...]:
    tokens = draw(st.integers(1, 7))
    lengths = draw(st.lists(st.integers(0, tokens), min_size=1, max_size=3))
    heads = draw(st.sampled_from([(1, 1), (2, 2), (3, 1), (1, 4)]))
    return make(
        lengths,
        tokens,
        *heads,
        *draw(st.sampled_from([(64, 64), (7, 9), (16, 8), (128, 20)])),
        draw(st.integers(0, 2**16)),
    )


def in_double(case: tuple[Any, ...]) -> tuple[np.ndarray, np.ndarray]:
    return gated_delta_rule(
        *(
            given.astype(np.float64) if isinstance(given, np.ndarray) and given.dtype == np.float32 else given
            for given in case
        )
    )


def check(found: tuple[np.ndarray, np.ndarray], case: tuple[Any, ...]) -> None:
    for result, expected in zip(found, in_double(case), strict=True):
        np.testing.assert_allclose(result, expected, rtol=0, atol=5e-6)


def formula(case: tuple[Any, ...]) -> np.ndarray:
    """y [entry 0] without a running state, in float64: S_t is a product of whole matrices,
    A_t S_{t-1} + beta k v^T with A = decay (I - beta k k^T).
    """
    query, key, value, a, b, dt_bias, decay_scale, past = (array.astype(np.float64) for array in case[:8])
    tokens, heads, key_heads, key_dim = value.shape[1], case[10], case[9], past.shape[2]
    y = np.zeros((tokens, heads, past.shape[3]))
    for head in range(heads):
        span = slice(head * key_heads // heads * key_dim, (head * key_heads // heads + 1) * key_dim)
        state = past[0, head]
        for t in range(tokens):
            q, k = query[0, t, span], key[0, t, span]
            q, k = q / (q @ q + 1e-6) ** 0.5, k / (k @ k + 1e-6) ** 0.5
            beta, decay = (
                1 / (1 + np.exp(-b[0, t, head])),
                (1 + np.exp(a[0, t, head] + dt_bias[head])) ** decay_scale[head],
            )
            transition = decay * (np.eye(key_dim) - beta * np.outer(k, k))
            state = transition @ state + beta * np.outer(k, value[0, t].reshape(heads, -1)[head])
            y[t, head] = state.T @ q * key_dim**-0.5
    return y.reshape(tokens, -1)


@pytest.mark.parametrize(
    ("key_heads", "group", "key_dim", "value_dim"), [(2, 2, 16, 16), (1, 3, 7, 9), (3, 1, 8, 4)]
)
def test_reference_equals_the_recurrence_by_whole_matrices(
    key_heads: int, group: int, key_dim: int, value_dim: int
) -> None:
    case = make([6], 6, key_heads, group, key_dim, value_dim)
    np.testing.assert_allclose(in_double(case)[0][0], formula(case), rtol=0, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(cases())
@pytest.mark.parametrize("name", list(ALL))
def test_equals_the_reference(name: str, case: tuple[Any, ...]) -> None:
    check(ALL[name](*case), case)


@pytest.mark.parametrize("name", list(ALL))
@pytest.mark.parametrize(
    ("lengths", "tokens"), [([1], 1), ([1, 1, 1], 1), ([1, 0], 1), ([0], 3), ([40, 33], 40)]
)
def test_heads_of_128_equal_the_reference(name: str, lengths: list[int], tokens: int) -> None:
    case = make(lengths, tokens, 2, 2, 128, 128)
    check(ALL[name](*case), case)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=5), st.integers(0, 3))
@pytest.mark.parametrize("name", list(ALL))
def test_any_chunks_with_any_padding_equal_one_call(name: str, chunks: list[int], padding: int) -> None:
    tokens = max(1, sum(chunks))
    case = make([sum(chunks)], tokens, 2, 2, 16, 8)
    whole, last = in_double(case)
    state, start = case[7], 0
    for chunk in chunks:
        rows = [np.full((1, max(1, chunk + padding), array.shape[2]), 50, np.float32) for array in case[:5]]
        for row, array in zip(rows, case[:5], strict=True):
            row[:, :chunk] = array[:, start : start + chunk]
        y, state = ALL[name](*rows, *case[5:7], state, np.array([chunk]), *case[9:])
        np.testing.assert_allclose(y[:, :chunk], whole[:, start : start + chunk], rtol=0, atol=5e-6)
        assert not y[:, chunk:].any()
        start += chunk
    np.testing.assert_allclose(state, last, rtol=0, atol=5e-6)


@pytest.mark.parametrize("name", list(ALL))
def test_state_of_an_empty_row_stays_bit_identical(name: str) -> None:
    case = make([0, 2], 2, 2, 2, 16, 8)
    y, present = ALL[name](*case)
    np.testing.assert_array_equal(present[0], case[7][0])
    assert not y[0].any()


@pytest.mark.parametrize("name", list(ALL))
def test_queries_and_keys_of_zeros_give_finite_results(name: str) -> None:
    case = make([3], 3, 1, 2, 8, 8)
    case[0][...], case[1][...] = 0, 0
    check(ALL[name](*case), case)


@pytest.mark.parametrize("name", list(ALL))
@pytest.mark.parametrize(
    ("a", "b", "decay_scale"),
    [(1000, 0, -16), (-1000, 0, -16), (0, 200, -1), (0, -200, -1), (30, 0, -1e-30), (1e30, 0, -1e20)],
)
def test_gates_at_their_ends_forget_all_or_nothing_and_stay_finite(
    name: str, a: float, b: float, decay_scale: float
) -> None:
    case = make([70], 70, 1, 2, 16, 8)
    for place, value in ((3, a), (4, b), (6, decay_scale)):
        case[place][...] = value
    check(ALL[name](*case), case)
    # In the middle of a call one token may forget all that came before it.
    case[3][:, ::2], case[6][...] = -a, -16
    check(ALL[name](*case), case)


def test_half_precision_rounds_nothing_on_the_way_into_the_state() -> None:
    case = make([60], 60, 1, 2, 16, 8)
    case[3][...] = np.random.default_rng(1).uniform(-9, -3, case[3].shape)
    half = tuple(array.astype(np.float16) if place < 7 else array for place, array in enumerate(case))
    _, expected = gated_delta_rule(
        *(array.astype(np.float64) if place < 8 else array for place, array in enumerate(half))
    )
    np.testing.assert_allclose(torch_op(*half)[1], expected, rtol=0, atol=5e-6)


def test_lowering_normalises_query_and_key_at_once_when_they_come_from_one_split() -> None:
    case = make([3, 2], 3, 2, 2, 16, 8)
    model = graph("GatedDeltaRule", (("past", (None, 4, 16, 8)),), key_heads=2, value_heads=4)
    split = onnx.helper.make_node("Split", ["mixed", "sizes"], ["query", "key", "value"], axis=2)
    model.graph.node.insert(0, split)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([32, 32, 32]), "sizes"))
    del model.graph.input[:3]
    model.graph.input.insert(0, onnx.helper.make_tensor_value_info("mixed", onnx.TensorProto.FLOAT, None))
    lowered = ir.serde.deserialize_model(model)
    assert replace_ops(lowered, {"GatedDeltaRule": lower}) == 1
    assert sum(node.op_type == "RMSNormalization" for node in lowered.graph) == 1
    names = [node.name for node in model.graph.input]
    mixed = np.concatenate(case[:3], axis=2)
    check(
        make_session(ir.serde.serialize_model(lowered).SerializeToString()).run(
            None, dict(zip(names, [mixed, *case[3:9]], strict=True))
        ),
        case,
    )


def test_op_passes_the_checks_of_pytorch() -> None:
    *arrays, key_heads, value_heads = make([3, 1], 3, 1, 2, 4, 3)
    torch.library.opcheck(
        torch_gated_delta_rule, [*(torch.from_numpy(array) for array in arrays), key_heads, value_heads]
    )
