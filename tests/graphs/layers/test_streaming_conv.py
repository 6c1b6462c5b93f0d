"""Streaming convolutions: any split of a stream gives what one convolution over the whole of it gives."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.graphs.layers.streaming_conv import (
    CausalConvolution,
    StateTape,
    TransposedConvolution,
    delay_after,
    repeated_bias,
    started,
    transposed_convolution_weight,
    upsample,
    upsampling_weight,
)

packets = st.lists(st.integers(1, 7), min_size=1, max_size=6)


def run_in_packets(module, x, schedule):
    """The module's output over `x` [batch, channels, columns] cut by `schedule`, from a state of zeros."""
    state = torch.zeros(x.shape[0], *module.state_shape)
    outputs = []
    for packet in x.split(schedule, dim=2):
        tape = StateTape([state])
        outputs.append(module(packet, tape))
        (state,) = tape.present
    return torch.cat(outputs, dim=2)


def fill(module, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return module.requires_grad_(False)


@settings(max_examples=25, deadline=None)
@given(schedule=packets, dilation=st.sampled_from((1, 3, 9)), groups=st.sampled_from((1, 4)))
def test_causal_convolution_equals_the_zero_padded_one_at_any_packet_schedule(schedule, dilation, groups):
    module = fill(CausalConvolution(4, 8, 7, dilation, groups), seed=1)
    x = torch.randn(2, 4, sum(schedule))
    padded = torch.nn.functional.pad(x, (6 * dilation, 0))
    whole = torch.nn.functional.conv1d(padded, module.weight, module.bias, dilation=dilation, groups=groups)
    assert module.state_shape == (4, 6 * dilation)
    torch.testing.assert_close(run_in_packets(module, x, schedule), whole, rtol=1e-5, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(schedule=packets, stride=st.sampled_from((1, 2, 3, 8)))
def test_transposed_convolution_emits_the_untrimmed_blocks_of_its_inputs_at_any_packet_schedule(
    schedule, stride
):
    weight, bias = torch.randn(3, 5, 2 * stride), torch.randn(5)
    module = TransposedConvolution(3, 5, stride).requires_grad_(False)
    module.weight.copy_(torch.from_numpy(transposed_convolution_weight("w").assemble(weight.numpy())))
    module.bias.copy_(torch.from_numpy(repeated_bias("b", stride).assemble(bias.numpy())))
    x = torch.randn(2, 3, sum(schedule))
    whole = torch.nn.functional.conv_transpose1d(x, weight, bias, stride=stride)[:, :, : stride * x.shape[2]]
    torch.testing.assert_close(run_in_packets(module, x, schedule), whole, rtol=1e-5, atol=1e-5)


def test_upsample_equals_the_transposed_convolution_when_kernel_is_the_stride():
    weight, bias, x = torch.randn(3, 5, 4), torch.randn(5), torch.randn(2, 3, 6)
    matrix = torch.from_numpy(upsampling_weight("w").assemble(weight.numpy()))
    repeated = torch.from_numpy(repeated_bias("b", 4).assemble(bias.numpy()))
    expected = torch.nn.functional.conv_transpose1d(x, weight, bias, stride=4)
    torch.testing.assert_close(
        upsample(x.transpose(1, 2), matrix, repeated, 4).transpose(1, 2), expected, rtol=1e-5, atol=1e-5
    )


def test_tape_keeps_the_last_columns_when_a_packet_is_shorter_than_the_state():
    tape = StateTape([torch.arange(4.0).reshape(1, 1, 4)])
    joined = tape.extend(torch.tensor([[[9.0]]]))
    assert joined.flatten().tolist() == [0, 1, 2, 3, 9]
    assert tape.present[0].flatten().tolist() == [1, 2, 3, 9]


def test_delay_is_555_samples_for_the_published_rates():
    assert [delay_after((8, 5, 4, 3)[:count]) for count in range(5)] == [0, 8, 45, 184, 555]


def test_started_counts_the_delay_from_each_rows_own_start():
    mask = started(torch.tensor([0, 1, 5]), frames=2, rate=3, delay=4)
    assert mask.shape == (3, 1, 6)
    np.testing.assert_array_equal(mask[:, 0].numpy(), [[0, 0, 0, 0, 1, 1], [0, 1, 1, 1, 1, 1], [1] * 6])


def test_no_mask_is_needed_when_there_is_no_delay():
    assert started(torch.tensor([0]), frames=2, rate=3, delay=0) is None
