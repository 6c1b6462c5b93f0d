"""QuantizedMoE: the reference against numbers known by heart,
and every implementation against the reference.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
ml_dtypes = pytest.importorskip("ml_dtypes")

from antiphon.plugins.quantized_moe.cases import weights
from antiphon.plugins.quantized_moe.programs import SCHEMES, Scheme
from antiphon.plugins.quantized_moe.reference import FP8, INT4, INT8, decode, dequantize, quantized_moe
from antiphon.plugins.quantized_moe.torch_op import quantized_moe as torch_quantized_moe

from .one_op import run_function
from .test_moe import close, formula

Case = tuple[list[np.ndarray], int, bool, int]
"""Inputs with float32 activations; top_k, normalize, format."""


@st.composite
def cases(draw: Any) -> Case:
    scheme, seed, normalize = draw(st.sampled_from(SCHEMES)), draw(st.integers(0, 2**16)), draw(st.booleans())
    rows, experts, hidden, inter = (
        draw(st.integers(1, 6)),
        draw(st.integers(1, 4)),
        draw(st.integers(1, 260)),
        draw(st.integers(1, 70)),
    )
    return make(scheme, rows, experts, hidden, inter, draw(st.integers(1, experts)), normalize, seed)


def make(
    scheme: Scheme,
    rows: int,
    experts: int,
    hidden: int,
    inter: int,
    top_k: int,
    normalize: bool = True,
    seed: int = 0,
) -> Case:
    rng = np.random.default_rng(seed)
    if scheme.format == INT4:
        hidden, inter = (scheme.inputs * -(-size // scheme.inputs) for size in (hidden, inter))
    quantized = [
        *weights(rng, scheme, experts, 2 * inter, hidden),
        *weights(rng, scheme, experts, hidden, inter),
    ]
    arrays = [rng.standard_normal((rows, hidden)), rng.standard_normal((rows, experts)) * 3, *quantized]
    return (
        [array if array.dtype == np.uint8 else array.astype(np.float32) for array in arrays],
        top_k,
        normalize,
        scheme.format,
    )


def expected(case: Case) -> np.ndarray:
    (x, logits, gate_up, gate_up_scale, down, down_scale), top_k, normalize, format = case
    return quantized_moe(
        x.astype(np.float64),
        logits.astype(np.float64),
        gate_up,
        gate_up_scale,
        down,
        down_scale,
        top_k,
        normalize,
        format,
    )


def run_torch(case: Case) -> Any:
    inputs, *attributes = case
    return torch_quantized_moe(*(torch.from_numpy(array) for array in inputs), *attributes).numpy()


def run_onnx(case: Case) -> Any:
    inputs, top_k, normalize, format = case
    return run_function("QuantizedMoE", *inputs, top_k=top_k, normalize=int(normalize), format=format)


def test_fp8_decodes_every_number_of_e4m3() -> None:
    bits = np.array([bits for bits in range(256) if bits & 0x7F != 0x7F], np.uint8)
    np.testing.assert_array_equal(decode(bits, FP8), bits.view(ml_dtypes.float8_e4m3fn).astype(np.float64))


def test_int8_is_two_complement_and_int4_has_the_first_column_in_the_low_bits() -> None:
    np.testing.assert_array_equal(
        decode(np.array([0, 1, 127, 128, 255], np.uint8), INT8), [0, 1, 127, -128, -1]
    )
    np.testing.assert_array_equal(decode(np.array([[0xF0, 0x98]], np.uint8), INT4), [[-8, 7, 0, 1]])


def test_scales_stand_for_a_channel_a_block_or_a_group() -> None:
    ones = np.full((1, 200, 192), 1, np.uint8)
    channel, block = np.arange(200.0).reshape(1, 200, 1), np.arange(4.0).reshape(1, 2, 2)
    np.testing.assert_array_equal(dequantize(ones, channel, INT8)[0, :, 5], np.arange(200))
    blocked = dequantize(ones, block, INT8)[0]
    assert [blocked[row, column] for row, column in ((127, 127), (127, 128), (128, 0), (199, 191))] == [
        0,
        1,
        2,
        3,
    ]
    grouped = dequantize(np.full((1, 2, 96), 0x99, np.uint8), np.arange(12.0).reshape(1, 2, 6), INT4)[0]
    np.testing.assert_array_equal(grouped, np.repeat(np.arange(12.0).reshape(2, 6), 32, axis=1))


@settings(max_examples=25, deadline=None)
@given(cases())
def test_reference_is_the_mixture_of_the_decoded_weights(case: Case) -> None:
    (x, logits, gate_up, gate_up_scale, down, down_scale), top_k, normalize, format = case
    decoded = (
        x,
        logits,
        dequantize(gate_up, gate_up_scale, format),
        dequantize(down, down_scale, format),
        top_k,
        normalize,
    )
    close(expected(case), formula(decoded), 1e-12)


@settings(max_examples=25, deadline=None)
@given(cases())
def test_torch_op_equals_the_reference(case: Case) -> None:
    close(run_torch(case), expected(case), 3e-6)


@settings(max_examples=25, deadline=None)
@given(cases())
def test_function_equals_the_reference(case: Case) -> None:
    close(run_onnx(case), expected(case), 3e-6)


def test_torch_op_and_function_keep_leading_axes() -> None:
    inputs, *attributes = case = make(SCHEMES[0], 6, 3, 16, 16, 2)
    folded: Any = ([inputs[0].reshape(2, 3, 16), *inputs[1:]], *attributes)
    close(run_torch(folded), expected(case).reshape(2, 3, 16), 3e-6)
    close(run_onnx(folded), expected(case).reshape(2, 3, 16), 3e-6)


def test_experts_that_no_row_chooses_are_never_touched_by_the_torch_op() -> None:
    """NaN in their scales would show: zero times NaN is NaN."""
    case = make(SCHEMES[3], 5, 6, 32, 32, 2)
    case[0][1][:, [1, 4]] = -30
    unharmed = expected(case)
    case[0][3][[1, 4]], case[0][5][[1, 4]] = np.nan, np.nan
    close(run_torch(case), unharmed, 3e-6)


def test_torch_op_traces_without_data() -> None:
    inputs, *attributes = make(SCHEMES[1], 5, 3, 130, 20, 2)
    on_meta = torch_quantized_moe(*(torch.from_numpy(array).to("meta") for array in inputs), *attributes)
    assert (on_meta.shape, on_meta.dtype) == ((5, 130), torch.float32)
