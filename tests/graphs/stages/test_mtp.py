"""The Thinker's draft head, which has no public reference, against its formula in float64."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from antiphon.graphs.config import DecoderConfig
from antiphon.graphs.stages.mtp import mtp_stage

from ..decoder_formula import decoder_layer, zero_centred_norm
from ..decoder_pair import Runner
from ..module_pair import check_example_axes, load_module, relative_error
from ..qwen3_5_pair import EXPERTS, Tensors, decoder, make_qwen3_5_pair, omni_config

TOLERANCE = 1e-5
THINKERS = {
    "experts": decoder(("linear_attention", "full_attention"), **EXPERTS),
    "dense, tied embedding, bias": decoder(
        ("linear_attention", "full_attention"), attention_bias=True, tie_word_embeddings=True
    ),
}
Head = tuple[DecoderConfig, dict[str, np.ndarray], Any, Any]


def load(name: str, own_head: bool = False) -> Head:
    """The draft head's layer has the names of a Thinker layer of full attention,
    so a model of one such layer gives its tensors.
    """
    config, random = THINKERS[name], np.random.default_rng(2)
    stored = make_qwen3_5_pair(
        dataclasses.replace(config, num_hidden_layers=1, layer_types=("full_attention",), linear=None)
    ).tensors("thinker.")
    tensors = {
        given.replace("thinker.model.layers.", "thinker.mtp.layers."): value
        for given, value in stored.items()
    }
    tensors["thinker.mtp.norm.weight"] = tensors.pop("thinker.model.norm.weight")
    shapes = {
        "pre_fc_norm_embedding.weight": (28,),
        "pre_fc_norm_hidden.weight": (28,),
        "fc.weight": (28, 56),
    }
    if own_head:
        shapes["lm_head.weight"] = (config.vocab_size, 28)
    tensors |= {
        f"thinker.mtp.{given}": (random.normal(size=shape) * 0.3).astype(np.float32)
        for given, shape in shapes.items()
    }
    stage = mtp_stage(omni_config(config))
    return config, tensors, stage, load_module(stage, Tensors(tensors))


@pytest.fixture(scope="module", params=list(THINKERS))
def head(request: pytest.FixtureRequest) -> Head:
    return load(request.param)


def rows(config: DecoderConfig, tokens: int, seed: int, batch: int = 1) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "input_ids": random.integers(0, config.vocab_size, (batch, tokens)),
        "hidden": random.normal(size=(batch, tokens, config.hidden_size)).astype(np.float32),
        "positions": np.cumsum(random.choice([0, 0.5, 1, 1.04], (3, batch, tokens)), axis=2).astype(
            np.float32
        ),
        "query_length": np.full(batch, tokens),
        "past_length": np.zeros(batch, np.int64),
        "output_index": np.arange(batch * tokens),
    }


def part(feeds: dict[str, np.ndarray], start: int, stop: int) -> dict[str, np.ndarray]:
    return {
        "input_ids": feeds["input_ids"][:, start:stop],
        "hidden": feeds["hidden"][:, start:stop],
        "positions": feeds["positions"][..., start:stop],
        "query_length": np.array([stop - start]),
        "past_length": np.array([start]),
        "output_index": np.arange(stop - start),
    }


def formula(
    config: DecoderConfig, tensors: dict[str, np.ndarray], feeds: dict[str, np.ndarray], row: int
) -> tuple[np.ndarray, np.ndarray]:
    """logits [tokens, vocab] and hidden [tokens, hidden] of one stream."""
    embedding, epsilon = tensors["thinker.model.embed_tokens.weight"].astype(np.float64), config.rms_norm_eps
    token = zero_centred_norm(
        embedding[feeds["input_ids"][row]], tensors["thinker.mtp.pre_fc_norm_embedding.weight"], epsilon
    )
    before = zero_centred_norm(
        feeds["hidden"][row].astype(np.float64), tensors["thinker.mtp.pre_fc_norm_hidden.weight"], epsilon
    )
    x = np.concatenate([token, before], axis=1) @ tensors["thinker.mtp.fc.weight"].astype(np.float64).T
    x = decoder_layer(x, tensors, "thinker.mtp.layers.0", config, feeds["positions"][:, row])
    weight = tensors.get("thinker.mtp.lm_head.weight", tensors.get("thinker.lm_head.weight", embedding))
    return zero_centred_norm(x, tensors["thinker.mtp.norm.weight"], epsilon) @ weight.T.astype(np.float64), x


@pytest.mark.parametrize(("tokens", "batch", "seed"), [(11, 1, 0), (1, 1, 1), (5, 3, 2)])
def test_logits_and_hidden_rows_equal_the_formula(head: Head, tokens: int, batch: int, seed: int) -> None:
    config, tensors, stage, module = head
    feeds = rows(config, tokens, seed, batch)
    found = Runner(stage, module, batch)(feeds)
    for row in range(batch):
        logits, hidden = formula(config, tensors, feeds, row)
        span = slice(row * tokens, (row + 1) * tokens)
        assert relative_error(found["logits"][span], logits) < TOLERANCE
        assert relative_error(found["output_hidden"][span], hidden) < TOLERANCE


def test_head_of_its_own_is_used_where_it_is_stored() -> None:
    config, tensors, stage, module = load("experts", own_head=True)
    feeds = rows(config, 4, seed=3)
    assert (
        relative_error(Runner(stage, module)(feeds)["logits"], formula(config, tensors, feeds, 0)[0])
        < TOLERANCE
    )


def test_names_may_lack_the_thinker_in_front() -> None:
    _, tensors, stage, module = load("experts", own_head=True)
    plain = Tensors({name.replace("thinker.mtp.", "mtp."): value for name, value in tensors.items()})
    for ours, theirs in zip(load_module(stage, plain).parameters(), module.parameters(), strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


@settings(max_examples=6, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=2, max_size=6), st.integers(0, 100))
def test_any_chunks_equal_one_call(head: Head, chunks: list[int], seed: int) -> None:
    config, _, stage, module = head
    feeds = rows(config, sum(chunks), seed)
    expected, runner, start = Runner(stage, module)(feeds), Runner(stage, module), 0
    for chunk in chunks:
        found = runner(part(feeds, start, start + chunk))
        for name in ("logits", "output_hidden"):
            assert relative_error(found[name], expected[name][start : start + chunk]) < TOLERANCE
        start += chunk


def test_every_tensor_is_used_and_the_states_are_one_cache(head: Head) -> None:
    _, tensors, stage, _ = head
    assert {
        tensor for source in stage.weights(Tensors(tensors)).values() for tensor in source.tensors
    } == set(tensors)
    assert [state.name for state in stage.states] == ["key.0", "value.0"]
    check_example_axes(stage)
