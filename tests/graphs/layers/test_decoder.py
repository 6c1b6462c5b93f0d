"""The blocks of a decoder, each by itself, against the HF class it is called after."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
modeling = pytest.importorskip("transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe")
qwen3_5_moe = pytest.importorskip("transformers.models.qwen3_5_moe.modeling_qwen3_5_moe")

from antiphon.graphs.config import DecoderConfig, LinearAttentionConfig, RopeConfig
from antiphon.graphs.layers.decoder import (
    CachedAttention,
    DecoderLayer,
    GatedDeltaNet,
    GatedFeedForward,
    Projection,
    RootMeanSquareNorm,
    rotary_tables,
    rotate,
)
from antiphon.graphs.layers.decoder_specs import decoder_states, greedy_sampling, sampling_inputs

from ..module_pair import relative_error

CONFIG = DecoderConfig(
    vocab_size=50,
    hidden_size=24,
    intermediate_size=20,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    rms_norm_eps=1e-6,
    rope=RopeConfig(10000.0, (4, 2, 2)),
    max_position_embeddings=100,
    num_experts=4,
    num_experts_per_tok=2,
    moe_intermediate_size=12,
)


def randomise(module: Any, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5
    return module.eval().requires_grad_(False)


@pytest.mark.parametrize("bias", [False, True])
def test_projection_equals_linear_with_the_weight_turned(bias: bool) -> None:
    linear, projection = randomise(torch.nn.Linear(5, 7, bias=bias)), Projection(5, 7, bias)
    projection.weight.data = linear.weight.T.contiguous()
    if bias:
        projection.bias.data = linear.bias
    x = torch.randn(2, 3, 5)
    assert relative_error(projection(x).detach(), linear(x)) < 1e-6


@pytest.mark.parametrize(("size", "scale"), [(1, 1.0), (24, 1e-4), (129, 1e3)])
def test_norm_equals_the_reference(size: int, scale: float) -> None:
    ours, theirs = (
        randomise(RootMeanSquareNorm(size, 1e-6)),
        randomise(modeling.Qwen3OmniMoeThinkerTextRMSNorm(size, 1e-6)),
    )
    x = torch.randn(2, 3, size) * scale
    assert relative_error(ours(x), theirs(x)) < 1e-6


@pytest.mark.parametrize(
    ("dim", "section"), [(128, (24, 20, 20)), (32, (6, 5, 5)), (16, (4, 2, 2)), (16, (8, 0, 0))]
)
def test_rotary_tables_equal_the_interleaved_reference_at_fractional_positions(
    dim: int, section: tuple[int, ...]
) -> None:
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": list(section)}
    config = SimpleNamespace(max_position_embeddings=9, head_dim=dim, rope_parameters=rope)
    positions = torch.rand(3, 2, 5, generator=torch.Generator().manual_seed(0)) * 3000
    cosine, sine = modeling.Qwen3OmniMoeThinkerTextRotaryEmbedding(config)(torch.zeros(1), positions)
    found = rotary_tables(positions, RopeConfig(1e6, section), dim)
    for ours, theirs in zip(found, (cosine, sine), strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs[..., : dim // 2].numpy())


def test_rotary_tables_without_sections_turn_with_the_first_axis() -> None:
    positions = torch.arange(7.0).reshape(1, 1, 7)
    cosine, sine = rotary_tables(positions, RopeConfig(10000.0), 8)
    angle = np.arange(7)[:, None] * 10000.0 ** (-np.arange(0, 8, 2) / 8)
    np.testing.assert_allclose(cosine[0].numpy(), np.cos(angle), atol=1e-6)
    np.testing.assert_allclose(sine[0].numpy(), np.sin(angle), atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.sampled_from([4, 16, 24]), st.integers(0, 99))
def test_rotate_equals_the_reference(heads: int, dim: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, positions = (
        torch.randn(2, 5, heads * dim, generator=generator),
        torch.rand(3, 2, 5, generator=generator) * 50,
    )
    cosine, sine = rotary_tables(positions, RopeConfig(10000.0), dim)
    per_head = x.reshape(2, 5, heads, dim).transpose(1, 2)
    expected, _ = modeling.apply_rotary_pos_emb(
        per_head, per_head, torch.cat([cosine, cosine], -1), torch.cat([sine, sine], -1)
    )
    assert relative_error(rotate(x, (cosine, sine), heads), expected.transpose(1, 2).reshape(x.shape)) < 1e-5


@pytest.mark.parametrize(
    ("dim", "partial", "section"),
    [(32, 0.25, (2, 1, 1)), (256, 0.25, (11, 11, 10)), (16, 0.5, (4, 0, 0)), (8, 1.0, (2, 1, 1))],
)
def test_partial_rotary_turns_the_first_dimensions_as_the_reference_does(
    dim: int, partial: float, section: tuple[int, ...]
) -> None:
    rope = {
        "rope_type": "default",
        "rope_theta": 1e6,
        "mrope_section": list(section),
        "partial_rotary_factor": partial,
    }
    config = SimpleNamespace(max_position_embeddings=9, head_dim=dim, rope_parameters=rope)
    generator = torch.Generator().manual_seed(0)
    positions, x = (
        torch.rand(3, 2, 5, generator=generator) * 3000,
        torch.randn(2, 5, 3 * dim, generator=generator),
    )
    cosine, sine = qwen3_5_moe.Qwen3_5MoeTextRotaryEmbedding(config)(torch.zeros(1), positions)
    found = rotary_tables(positions, RopeConfig(1e6, section, partial), dim)
    for ours, theirs in zip(found, (cosine, sine), strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs[..., : int(dim * partial) // 2].numpy())
    heads = x.reshape(2, 5, 3, dim).transpose(1, 2)
    expected, _ = qwen3_5_moe.apply_rotary_pos_emb(heads, heads, cosine, sine)
    turned = rotate(x, found, 3)
    assert relative_error(turned, expected.transpose(1, 2).reshape(x.shape)) < 1e-6
    np.testing.assert_array_equal(
        turned.reshape(2, 5, 3, dim)[..., int(dim * partial) :],
        x.reshape(2, 5, 3, dim)[..., int(dim * partial) :],
    )


def test_gated_delta_layer_equals_its_formula_and_its_states_replace_the_past() -> None:
    linear = LinearAttentionConfig(2, 4, 8, 6, 3)
    layer = randomise(GatedDeltaNet(CONFIG, linear))
    layer.decay_scale.data = -layer.decay_scale.abs()
    x = torch.randn(1, 9, 24, generator=torch.Generator().manual_seed(1))
    nothing = torch.zeros(0)

    def run(start: int, stop: int, conv: Any, recurrent: Any) -> Any:
        return layer(
            x[:, start:stop],
            (nothing, nothing),
            torch.tensor([stop - start]),
            torch.tensor([start]),
            conv,
            recurrent,
        )

    empty = torch.zeros(1, 2, linear.conv_size), torch.zeros(1, 4, 8, 6)
    whole, *states = run(0, 9, *empty)
    first, *half = run(0, 4, *empty)
    second, *end = run(4, 9, *half)
    assert relative_error(torch.cat([first, second], 1), whole) < 1e-5
    for ours, theirs in zip(end, states, strict=True):
        assert relative_error(ours, theirs) < 1e-5
    parameters = {name: parameter.double().numpy() for name, parameter in layer.named_parameters()}
    assert relative_error(whole[0], delta_formula(x[0].double().numpy(), parameters)) < 1e-5


def delta_formula(x: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    """x [tokens, 24] through a Gated DeltaNet layer of 2 key heads of 8 and 4 value heads of
    6, kernel 3, in float64.
    """
    columns = x @ weights["input.weight"]
    padded, conv = np.concatenate([np.zeros((2, 56)), columns[:, :56]]), weights["conv"][:, 0]
    states, result = np.zeros((4, 8, 6)), np.zeros((len(x), 24))
    for t in range(len(x)):
        mixed = sum(padded[t + tap] * conv[:, tap] for tap in range(3))
        mixed = mixed / (1 + np.exp(-mixed))
        z, b, a = np.split(columns[t, 56:], [24, 28])
        for head in range(4):
            query, key = (
                part / np.sqrt(part @ part + 1e-6)
                for part in (mixed[head // 2 * 8 :][:8], mixed[16 + head // 2 * 8 :][:8])
            )
            value = mixed[32 + head * 6 :][:6]
            states[head] *= np.exp(
                weights["decay_scale"][head] * np.log1p(np.exp(a[head] + weights["dt_bias"][head]))
            )
            states[head] += np.outer(key, (value - key @ states[head]) / (1 + np.exp(-b[head])))
            row, gate = query @ states[head] / np.sqrt(8), z[head * 6 :][:6]
            result[t, head * 6 :][:6] = (
                row / np.sqrt(row @ row / 6 + 1e-6) * weights["norm.weight"] * gate / (1 + np.exp(-gate))
            )
    return result @ weights["output.weight"]


def test_gated_attention_is_plain_attention_times_the_sigmoid_of_its_last_columns() -> None:
    plain, gated = (
        CachedAttention(CONFIG),
        randomise(CachedAttention(dataclasses.replace(CONFIG, gated_attention=True))),
    )
    for name, parameter in plain.named_parameters():
        parameter.data = (
            gated.get_parameter(name)[:, :128] if name == "qkv.weight" else gated.get_parameter(name)
        )
    plain.output.weight.data = gated.output.weight.data = torch.eye(64)
    x, empty = torch.randn(1, 5, 24, generator=torch.Generator().manual_seed(2)), torch.zeros(1, 2, 8, 16)
    rotary = rotary_tables(torch.arange(5.0).expand(3, 1, 5), CONFIG.rope, 16)
    lengths = torch.tensor([5]), torch.tensor([0])
    expected = plain.requires_grad_(False)(x, rotary, *lengths, empty, empty)[0] * torch.sigmoid(
        x @ gated.qkv.weight[:, 128:]
    )
    assert relative_error(gated(x, rotary, *lengths, empty, empty)[0], expected) < 1e-6


def test_gated_feed_forward_takes_gate_columns_first() -> None:
    layer, x = randomise(GatedFeedForward(6, 5)), torch.randn(3, 6)
    gate, up = x @ layer.gate_up.weight[:, :5], x @ layer.gate_up.weight[:, 5:]
    assert relative_error(layer(x), (torch.nn.functional.silu(gate) * up) @ layer.down.weight) < 1e-6


@pytest.mark.parametrize("shared", [0, 10])
@pytest.mark.parametrize("sparse", [False, True])
def test_a_layer_is_causal_and_its_cache_replaces_the_past(sparse: bool, shared: int) -> None:
    config = dataclasses.replace(CONFIG, shared_expert_intermediate_size=shared)
    layer = randomise(DecoderLayer(config, sparse))
    x, positions = (
        torch.randn(1, 9, 24, generator=torch.Generator().manual_seed(1)),
        torch.arange(9.0).expand(3, 1, 9),
    )
    empty = torch.zeros(1, 2, 12, 16)

    def run(start: int, stop: int, key: Any, value: Any) -> Any:
        rotary = rotary_tables(positions[:, :, start:stop], config.rope, config.head_dim)
        return layer(
            x[:, start:stop], rotary, torch.tensor([stop - start]), torch.tensor([start]), key, value
        )

    whole, _, _ = run(0, 9, empty, empty)
    first, key, value = run(0, 4, empty, empty)
    second, _, _ = run(4, 9, key, value)
    assert relative_error(torch.cat([first, second], 1), whole) < 1e-5


def test_specs_describe_two_caches_a_layer_and_sampling_that_is_greedy_by_default() -> None:
    assert [state.name for state in decoder_states(CONFIG)] == ["key.0", "value.0", "key.1", "value.1"]
    assert {state.shape for state in decoder_states(CONFIG)} == {("batch", 2, "capacity", 16)} and {
        state.kind for state in decoder_states(CONFIG)
    } == {"kv"}
    feeds = greedy_sampling(3, 50)
    assert [spec.name for spec in sampling_inputs(50)] == list(feeds)
    for spec in sampling_inputs(50):
        assert feeds[spec.name].dtype == spec.dtype and feeds[spec.name].shape == tuple(
            {"rows": 3}.get(axis, axis) for axis in spec.shape
        )
