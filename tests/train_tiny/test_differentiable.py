"""The ops of training are the ops of the stages for sequences that begin with empty states,
and gradients pass through them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor, nn

from antiphon.graphs.checkpoints.read_config import read_config
from antiphon.graphs.config import OmniConfig
from antiphon.graphs.families.registry import stages
from antiphon.graphs.layers import decoder as layers
from antiphon.graphs.layers.decoder import rotary_tables, run_layers
from antiphon.graphs.stages.codec_encoder import layers as codec_encoder_layers
from antiphon.plugins.gated_delta_rule import reference
from antiphon.scripts.train_tiny import differentiable as ours
from antiphon.scripts.train_tiny.differentiable import differentiable
from antiphon.scripts.train_tiny.run import initialise

TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def config(start_checkpoint: Path) -> OmniConfig:
    return read_config(start_checkpoint)


@pytest.fixture
def double() -> Iterator[None]:
    """New tensors are float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def assert_valid_rows_equal(found: Tensor, expected: Tensor, query_length: Tensor) -> None:
    """Of tensors [batch, tokens, ...]: what lies behind query_length may be anything."""
    valid = torch.arange(found.shape[1]) < query_length[:, None]
    torch.testing.assert_close(found[valid], expected[valid], **TOLERANCE)


@pytest.mark.parametrize(
    ("lengths", "heads", "kv_heads", "dim"), [([1], 2, 1, 8), ([7, 3, 0], 4, 2, 16), ([33, 64], 3, 3, 4)]
)
def test_attention_is_the_registered_op(lengths: list[int], heads: int, kv_heads: int, dim: int) -> None:
    batch, tokens, query_length = len(lengths), max(lengths), torch.tensor(lengths)
    rows = [random(batch, tokens, count * dim, seed=count) for count in (heads, kv_heads, kv_heads)]
    past = torch.zeros(batch, kv_heads, tokens, dim)
    arguments = (
        *rows,
        past,
        past.clone(),
        torch.zeros(batch, dtype=torch.int64),
        query_length,
        heads,
        kv_heads,
    )
    assert_valid_rows_equal(ours.attention(*arguments)[0], layers.attention(*arguments)[0], query_length)


@pytest.mark.parametrize(("lengths", "channels", "taps"), [([1], 4, 4), ([2, 9, 0], 6, 4), ([40], 3, 2)])
def test_causal_convolution_is_the_registered_op(lengths: list[int], channels: int, taps: int) -> None:
    batch, query_length = len(lengths), torch.tensor(lengths)
    arguments = (
        random(batch, max(lengths), channels),
        random(channels, 1, taps),
        torch.zeros(batch, taps - 1, channels),
        query_length,
    )
    assert_valid_rows_equal(
        ours.causal_conv_state(*arguments)[0], layers.causal_conv_state(*arguments)[0], query_length
    )


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(
    ("shape", "experts", "top_k"), [((5, 8), 4, 1), ((2, 9, 12), 8, 2), ((1, 1, 4), 3, 3)]
)
def test_experts_are_the_registered_op(
    shape: tuple[int, ...], experts: int, top_k: int, normalize: bool
) -> None:
    hidden, inner = shape[-1], 6
    logits = random(int(np.prod(shape[:-1])), experts)
    arguments = (
        random(*shape),
        logits,
        random(experts, 2 * inner, hidden),
        random(experts, hidden, inner),
        top_k,
        normalize,
    )
    torch.testing.assert_close(ours.moe(*arguments), layers.moe(*arguments), **TOLERANCE)


def test_the_router_loss_is_one_where_experts_are_chosen_evenly_and_grows_where_not() -> None:
    experts, collected = 4, []
    weights = random(experts, 12, 8), random(experts, 8, 6)
    even = 9.0 * torch.eye(experts).repeat(3, 1)
    for logits in (even, even[:1].expand(12, -1)):
        ours.moe(random(12, 8), logits, *weights, 1, True, collected)
    assert collected[0].item() == pytest.approx(1.0, abs=1e-4)
    assert collected[1].item() == pytest.approx(experts, abs=0.01)


@pytest.mark.parametrize(("heads", "dim", "turning"), [(1, 8, 8), (3, 16, 4), (4, 64, 16)])
def test_rotation_is_that_of_the_stages(heads: int, dim: int, turning: int) -> None:
    angles = random(2, 5, turning // 2)
    x = random(2, 5, heads * dim)
    torch.testing.assert_close(
        ours.rotate(x, (angles.cos(), angles.sin()), heads),
        layers.rotate(x, (angles.cos(), angles.sin()), heads),
        **TOLERANCE,
    )


def delta_rule(
    lengths: list[int], key_heads: int, value_heads: int, key_dim: int, value_dim: int
) -> tuple[list[Tensor], Tensor]:
    """Random arguments of the gated delta rule before `past`, and query_length."""
    batch, tokens = len(lengths), max(lengths)
    sizes = (key_heads * key_dim, key_heads * key_dim, value_heads * value_dim, value_heads, value_heads)
    rows = [random(batch, tokens, size, seed=number) for number, size in enumerate(sizes)]
    # Decay from hardly any to nearly all at once.
    return [*rows, torch.linspace(-4, 1, value_heads), -torch.linspace(0.05, 6, value_heads)], torch.tensor(
        lengths
    )


@pytest.mark.parametrize("heads", [(1, 2, 8, 6), (2, 2, 4, 16)])
@pytest.mark.parametrize("lengths", [[1], [31], [32], [33, 7, 0], [100, 65]])
def test_the_gated_delta_rule_in_chunks_is_the_registered_op(
    lengths: list[int], heads: tuple[int, int, int, int]
) -> None:
    rows, query_length = delta_rule(lengths, *heads)
    past = torch.zeros(len(lengths), heads[1], heads[2], heads[3])
    arguments = (*rows, past, query_length, heads[0], heads[1])
    assert_valid_rows_equal(
        ours.gated_delta_rule(*arguments)[0], layers.gated_delta_rule(*arguments)[0], query_length
    )


def delta_rule_by_tokens(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    a: Tensor,
    b: Tensor,
    dt_bias: Tensor,
    decay_scale: Tensor,
    key_heads: int,
    value_heads: int,
) -> Tensor:
    """The recurrence as it is written down, for autograd to follow."""
    batch, tokens, _ = value.shape

    def heads(rows: Tensor) -> Tensor:
        rows = rows.reshape(batch, tokens, key_heads, -1)
        rows = rows / (rows.square().sum(-1, keepdim=True) + reference.EPSILON).sqrt()
        return rows.repeat_interleave(value_heads // key_heads, dim=2)

    query, key = heads(query), heads(key)
    value = value.reshape(batch, tokens, value_heads, -1)
    state = torch.zeros(batch, value_heads, key.shape[-1], value.shape[-1])
    outputs = []
    for t in range(tokens):
        state = state * torch.exp(decay_scale * nn.functional.softplus(a[:, t] + dt_bias))[..., None, None]
        change = (value[:, t] - torch.einsum("bhk,bhkv->bhv", key[:, t], state)) * torch.sigmoid(b[:, t])[
            ..., None
        ]
        state = state + key[:, t, :, :, None] * change[:, :, None]
        outputs.append(torch.einsum("bhk,bhkv->bhv", query[:, t], state) * key.shape[-1] ** -0.5)
    return torch.stack(outputs, dim=1).flatten(2)


@pytest.mark.parametrize("tokens", [1, 31, 32, 33, 100])
def test_gradients_of_the_gated_delta_rule_are_those_of_the_recurrence(double: None, tokens: int) -> None:
    key_heads, value_heads = 1, 2
    rows, query_length = delta_rule([tokens, tokens], key_heads, value_heads, 4, 3)
    weight = random(2, tokens, value_heads * 3, seed=9)
    found, expected = ([part.double().requires_grad_() for part in rows] for _ in range(2))
    y, _ = ours.gated_delta_rule(*found, torch.zeros(0), query_length, key_heads, value_heads)
    (y * weight).sum().backward()
    by_tokens = delta_rule_by_tokens(*expected, key_heads, value_heads)
    (by_tokens * weight).sum().backward()
    torch.testing.assert_close(y, by_tokens, rtol=1e-9, atol=1e-10)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-7, atol=1e-9)


def prepared(config: OmniConfig, name: str) -> tuple[nn.Module, dict[str, Tensor], list[Tensor]]:
    """A stage's module with start values, random inputs and empty states."""
    stage = next(stage for stage in stages(config) if stage.name == name)
    torch.manual_seed(0)
    module = stage.make_module()
    initialise([module])
    feeds = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in stage.example().items()}
    generator = torch.Generator().manual_seed(0)
    for spec in stage.inputs:
        if spec.name in ("input_ids", "text_ids", "codec_ids", "frame_codes", "code"):
            feeds[spec.name] = torch.randint(0, 256, feeds[spec.name].shape, generator=generator)
        if spec.name in ("features", "hidden"):
            feeds[spec.name] = torch.randn(feeds[spec.name].shape, generator=generator)
    batch = int(feeds["query_length" if "query_length" in feeds else "past_length"].shape[0])
    sizes = {"batch": batch, "capacity": 16}
    past = [
        torch.zeros(*(sizes[size] if isinstance(size, str) else size for size in spec.shape))
        for spec in stage.states
    ]
    return module, feeds, past


def logits_of(config: OmniConfig, name: str, outputs: tuple[Tensor, ...]) -> Tensor:
    stage = next(stage for stage in stages(config) if stage.name == name)
    return outputs[[spec.name for spec in stage.outputs].index("logits")]


@pytest.mark.parametrize("name", ["thinker", "talker"])
def test_a_whole_stage_is_the_same_function_inside(config: OmniConfig, name: str) -> None:
    module, feeds, past = prepared(config, name)
    with torch.no_grad():
        expected = logits_of(config, name, module(*feeds.values(), *past))
        with differentiable():
            found = logits_of(config, name, module(*feeds.values(), *past))
        again = logits_of(config, name, module(*feeds.values(), *past))
    torch.testing.assert_close(found, expected, **TOLERANCE)
    torch.testing.assert_close(again, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["thinker", "talker"])
def test_gradients_reach_every_parameter_of_a_stage(config: OmniConfig, name: str) -> None:
    module, feeds, past = prepared(config, name)
    router_losses: list[Tensor] = []
    with differentiable(router_losses):
        logits = logits_of(config, name, module(*feeds.values(), *past))
    (nn.functional.cross_entropy(logits, torch.arange(len(logits))) + sum(router_losses)).backward()
    assert len(router_losses) == len(module.layers)  # type: ignore[arg-type]
    assert_trained(module)


def test_gradients_reach_every_parameter_of_the_predictors_layers(config: OmniConfig) -> None:
    predictor, _, _ = prepared(config, "predictor")
    assert config.talker is not None
    text, batch, tokens = config.talker.predictor, 2, 16
    positions = torch.arange(tokens, dtype=torch.float32).expand(1, batch, tokens)
    rotary = rotary_tables(positions, text.rope, text.head_dim)
    lengths, past = torch.zeros(batch, dtype=torch.int64), [torch.zeros(0)] * (2 * text.num_hidden_layers)
    with differentiable():
        x, _ = run_layers(
            predictor.layers, random(batch, tokens, text.hidden_size), rotary, lengths, lengths, past
        )  # type: ignore[arg-type]
    (x * random(*x.shape, seed=1)).sum().backward()
    assert_trained(predictor.layers)  # type: ignore[arg-type]


def assert_trained(module: nn.Module) -> None:
    untouched = [
        name
        for name, parameter in module.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]
    assert untouched == []
    assert all(
        torch.isfinite(parameter.grad).all()
        for parameter in module.parameters()
        if parameter.grad is not None
    )


def test_the_ops_are_back_in_place_after_an_error() -> None:
    modules = (layers, codec_encoder_layers)
    before = [(module.rotate, getattr(module, "attention", None)) for module in modules]
    with pytest.raises(ZeroDivisionError), differentiable():
        assert layers.attention is ours.attention
        raise ZeroDivisionError
    assert before == [(module.rotate, getattr(module, "attention", None)) for module in modules]
