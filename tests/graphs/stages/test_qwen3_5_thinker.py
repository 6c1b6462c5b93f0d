"""The Thinker of Qwen3.5-Omni against HF's text models of Qwen3.5 with the same random weights:
teacher-forced logits and the tapped rows.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from antiphon.graphs.layers.decoder_specs import decoder_states, greedy_sampling
from antiphon.graphs.stage import Stage
from antiphon.graphs.stages.thinker import thinker_stage
from antiphon.runtime.bundle.errors import AntiphonError

from ..decoder_pair import Runner
from ..module_pair import check_example_axes, load_module, relative_error
from ..qwen3_5_pair import (
    VARIANTS,
    Qwen35Pair,
    Tensors,
    fused_layout,
    fused_projections,
    make_qwen3_5_pair,
    omni_config,
    one_tensor_an_expert,
)

TOLERANCE = 1e-5
MARGIN = 1e-3
PUBLISHED = next(iter(VARIANTS))
Thinker = tuple[Qwen35Pair, Stage, Any]
Feeds = dict[str, np.ndarray]


def load(pair: Qwen35Pair, tap: int = 1) -> Thinker:
    stage = thinker_stage(omni_config(pair.config, accept_hidden_layer=tap))
    return pair, stage, load_module(stage, Tensors(pair.tensors("thinker.")))


@pytest.fixture(scope="module", params=list(VARIANTS))
def thinker(request: pytest.FixtureRequest) -> Thinker:
    return load(make_qwen3_5_pair(VARIANTS[request.param]))


def prompt(pair: Qwen35Pair, tokens: int, seed: int, batch: int = 1) -> Feeds:
    """Random ids with scattered features at fractional positions that differ between the three axes;
    every row's logits are wanted.
    """
    config, random = pair.config, np.random.default_rng(seed)
    indexed = np.sort(random.choice(batch * tokens, batch * tokens // 2, replace=False))
    feeds: Feeds = {
        "input_ids": random.integers(0, config.vocab_size, (batch, tokens)),
        "positions": np.cumsum(random.choice([0, 1, 1.04, 3], (3, batch, tokens)), axis=2).astype(np.float32),
        "query_length": np.full(batch, tokens),
        "past_length": np.zeros(batch, np.int64),
        "features": random.normal(size=(len(indexed), config.hidden_size)).astype(np.float32),
        "feature_index": indexed,
        "output_index": np.arange(batch * tokens),
    }
    return feeds | greedy_sampling(batch * tokens, config.vocab_size)


def part(feeds: Feeds, start: int, stop: int, row: int = 0) -> Feeds:
    """Tokens start .. stop of one row of a prompt, as a chunk of its own."""
    tokens, count = feeds["input_ids"].shape[1], stop - start
    cut = dict(
        feeds, query_length=np.array([count]), past_length=np.array([start]), output_index=np.arange(count)
    )
    cut["input_ids"], cut["positions"] = (
        feeds["input_ids"][row : row + 1, start:stop],
        feeds["positions"][:, row : row + 1, start:stop],
    )
    first = row * tokens + start
    inside = (feeds["feature_index"] >= first) & (feeds["feature_index"] < first + count)
    cut["features"], cut["feature_index"] = feeds["features"][inside], feeds["feature_index"][inside] - first
    return cut | greedy_sampling(count, feeds["penalised"].shape[1])


def embedded(pair: Qwen35Pair, feeds: Feeds) -> Any:
    rows = pair.model.model.embed_tokens(torch.from_numpy(feeds["input_ids"]))
    flat = rows.flatten(0, 1).clone()
    flat[torch.from_numpy(feeds["feature_index"])] = torch.from_numpy(feeds["features"])
    return flat.reshape(rows.shape)


def reference(pair: Qwen35Pair, feeds: Feeds) -> Any:
    """HF's outputs with all hidden states, for the same embeddings, features and positions."""
    positions = torch.from_numpy(feeds["positions"])
    return pair.model(
        inputs_embeds=embedded(pair, feeds),
        position_ids=positions,
        output_hidden_states=True,
        use_cache=False,
    )


@pytest.mark.parametrize(("tokens", "batch", "seed"), [(17, 1, 0), (1, 1, 1), (9, 3, 2), (70, 1, 3)])
def test_logits_equal_the_reference(thinker: Thinker, tokens: int, batch: int, seed: int) -> None:
    """70 tokens are more than one chunk of the reference's chunked delta rule."""
    pair, stage, module = thinker
    feeds = prompt(pair, tokens, seed, batch)
    found, expected = Runner(stage, module, batch, capacity=80)(feeds), reference(pair, feeds)
    assert relative_error(found["logits"], expected.logits.flatten(0, 1)) < TOLERANCE
    np.testing.assert_array_equal(found["token"], found["logits"].argmax(1))


def test_tapped_rows_are_those_of_the_reference_for_every_layer(thinker: Thinker) -> None:
    pair, _, module = thinker
    feeds, layers = prompt(pair, 13, seed=4), pair.config.num_hidden_layers
    hidden_states = reference(pair, feeds).hidden_states
    assert len(hidden_states) == layers + 1
    for tap in (*range(layers + 1), layers + 5, -1):
        stage = thinker_stage(omni_config(pair.config, accept_hidden_layer=tap))
        tapping = stage.make_module()
        tapping.load_state_dict(module.state_dict())
        found = Runner(stage, tapping.requires_grad_(False))(feeds)["hidden"]
        assert relative_error(found, hidden_states[tap if 0 <= tap < layers else -1]) < TOLERANCE, (
            f"tap {tap}"
        )


@settings(max_examples=6, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=8), st.integers(0, 100))
def test_prefill_in_any_chunks_and_decode_equal_one_prefill(
    thinker: Thinker, chunks: list[int], seed: int
) -> None:
    pair, stage, module = thinker
    feeds = prompt(pair, sum(chunks), seed)
    whole = Runner(stage, module, capacity=80)
    expected, runner, start = whole(feeds), Runner(stage, module, capacity=80), 0
    for chunk in chunks:
        found = runner(part(feeds, start, start + chunk))
        for name, rows in (("logits", expected["logits"]), ("hidden", expected["hidden"][0])):
            assert relative_error(found[name].reshape(chunk, -1), rows[start : start + chunk]) < TOLERANCE
        start += chunk
    for ours, theirs in zip(runner.states, whole.states, strict=True):
        assert relative_error(ours, theirs) < TOLERANCE


def test_decoding_token_by_token_equals_the_reference_with_its_cache(thinker: Thinker) -> None:
    pair, stage, module = thinker
    if "full_attention" not in pair.config.layer_types:
        pytest.skip("HF's cache counts its rows in a layer of full attention")
    feeds, runner, cache, start = prompt(pair, 16, seed=5), Runner(stage, module), None, 0
    for stop in (5, *range(6, 17)):
        cut = part(feeds, start, stop)
        outputs = pair.model(
            inputs_embeds=embedded(pair, cut),
            position_ids=torch.from_numpy(cut["positions"]),
            past_key_values=cache,
            use_cache=True,
        )
        cache = outputs.past_key_values
        assert relative_error(runner(cut)["logits"], outputs.logits[0]) < TOLERANCE, f"token {start}"
        start = stop


def test_greedy_ids_equal_the_reference_where_margins_are_clear(thinker: Thinker) -> None:
    pair, stage, module = thinker
    feeds = prompt(pair, 6, seed=6)
    feeds |= {
        "features": feeds["features"][:0],
        "feature_index": feeds["feature_index"][:0],
        "positions": np.arange(6.0)[None, None].repeat(3, 0),
    }
    runner, ids, compared = Runner(stage, module), feeds["input_ids"], 0
    token = runner(feeds | {"positions": feeds["positions"].astype(np.float32)})["token"][-1]
    for step in range(20):
        positions = torch.arange(ids.shape[1]).expand(3, 1, -1)
        best = (
            pair.model(input_ids=torch.from_numpy(ids), position_ids=positions, use_cache=False)
            .logits[0, -1]
            .topk(2)
        )
        if best.values[0] - best.values[1] < MARGIN:
            break
        assert token == best.indices[0]
        compared += 1
        ids = np.concatenate([ids, [[token]]], axis=1)
        call = {
            "input_ids": ids[:, -1:],
            "positions": np.full((3, 1, 1), 6 + step, np.float32),
            "query_length": np.array([1]),
            "output_index": np.array([0]),
        }
        token = runner(
            feeds | call | {"past_length": np.array([6 + step])} | greedy_sampling(1, pair.config.vocab_size)
        )["token"][0]
    assert compared >= 10


def test_ragged_streams_and_padded_rows_give_what_each_stream_gives_alone(thinker: Thinker) -> None:
    """Padding touches no state; a stream may rest while others step."""
    pair, stage, module = thinker
    together, alone = Runner(stage, module, 3), [Runner(stage, module) for _ in range(3)]
    past = np.zeros(3, np.int64)
    for seed, lengths in enumerate(([8, 5, 2], [1, 1, 1], [3, 0, 6], [0, 1, 1])):
        tokens = max(lengths)
        feeds = prompt(pair, tokens, seed, batch=3) | {"query_length": np.array(lengths), "past_length": past}
        found = together(feeds)
        for row, length in enumerate(lengths):
            if length:
                own = part(feeds, 0, length, row) | {"past_length": past[row : row + 1]}
                assert (
                    relative_error(
                        found["logits"][row * tokens : row * tokens + length], alone[row](own)["logits"]
                    )
                    < TOLERANCE
                )
            for shared, state in zip(together.states, alone[row].states, strict=True):
                assert relative_error(shared[row], state[0]) < TOLERANCE
        past = past + lengths


@pytest.mark.parametrize("name", [name for name, config in VARIANTS.items() if config.linear])
def test_fused_and_split_projections_and_both_layouts_of_experts_make_one_module(name: str) -> None:
    pair, stage, module = load(make_qwen3_5_pair(VARIANTS[name]))
    stored = fused_layout(pair.tensors("thinker."), pair.config)
    if pair.config.num_experts:
        stored = one_tensor_an_expert(stored, pair.config)
    other = load_module(stage, Tensors(stored))
    assert not any(
        "in_proj_qkv." in tensor
        for source in stage.weights(Tensors(stored)).values()
        for tensor in source.tensors
    )
    for ours, theirs in zip(other.parameters(), module.parameters(), strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


@pytest.mark.parametrize("name", list(VARIANTS)[:2])
def test_projections_of_one_input_may_be_stored_as_one_tensor(name: str) -> None:
    pair, stage, module = load(make_qwen3_5_pair(VARIANTS[name]))
    stored = Tensors(fused_projections(pair.tensors("thinker.")))
    assert any(".self_attn.qkv_proj." in tensor for tensor in stored.tensors) and any(
        ".gate_up_proj.weight" in tensor for tensor in stored.tensors
    )
    for ours, theirs in zip(load_module(stage, stored).parameters(), module.parameters(), strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    assert {tensor for source in stage.weights(stored).values() for tensor in source.tensors} == set(
        stored.tensors
    )


def test_bias_of_the_short_convolution_is_refused(thinker: Thinker) -> None:
    """The op has none, and leaving it out would be another model."""
    pair, stage, _ = thinker
    if pair.config.linear is None:
        pytest.skip("no linear layer")
    stored = pair.tensors("thinker.")
    stored |= {
        name.replace("conv1d.weight", "conv1d.bias"): value[:, 0, 0]
        for name, value in stored.items()
        if "conv1d" in name
    }
    with pytest.raises(AntiphonError, match=r"conv1d\.bias"):
        stage.weights(Tensors(stored))


def test_every_tensor_of_the_checkpoint_is_used(thinker: Thinker) -> None:
    pair, stage, _ = thinker
    tensors = pair.tensors("thinker.")
    assert {
        tensor for source in stage.weights(Tensors(tensors)).values() for tensor in source.tensors
    } == set(tensors)


@pytest.mark.parametrize("tensor", ["linear_attn.in_proj_qkvz", "linear_attn.in_proj_ba", "self_attn.q_proj"])
def test_projection_of_another_shape_is_refused(tensor: str) -> None:
    """Three quarters of a fused projection would still fall apart into heads, wrongly."""
    pair, stage, _ = load(make_qwen3_5_pair(VARIANTS[PUBLISHED]))
    stored = fused_layout(pair.tensors("thinker."), pair.config)
    layer = 3 if "self_attn" in tensor else 0
    name = f"thinker.model.layers.{layer}.{tensor}.weight"
    stored[name] = stored[name][: len(stored[name]) // 2]
    with pytest.raises(AntiphonError, match=tensor.replace(".", r"\.")):
        stage.weights(Tensors(stored))


def test_states_follow_the_layers_and_the_example_shows_every_axis() -> None:
    config = VARIANTS[PUBLISHED]
    states = {state.name: (state.kind, state.shape) for state in decoder_states(config)}
    assert list(states) == [
        "conv.0",
        "recurrent.0",
        "conv.1",
        "recurrent.1",
        "conv.2",
        "recurrent.2",
        "key.3",
        "value.3",
    ]
    assert states["conv.1"] == ("conv", ("batch", 3, 56)) and states["recurrent.1"] == (
        "recurrent",
        ("batch", 4, 8, 6),
    )
    assert states["value.3"] == ("kv", ("batch", 2, "capacity", 32))
    stage = thinker_stage(omni_config(config))
    check_example_axes(stage)
    assert not any("deepstack" in spec.name for spec in stage.inputs)
    assert decoder_states(dataclasses.replace(config, layer_types=(), num_hidden_layers=1))[0].name == "key.0"
