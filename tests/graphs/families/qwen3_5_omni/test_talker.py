"""The Talker of Qwen3.5-Omni: its rows against their formula, its layers against HF's text models of Qwen3.5
with the same random weights.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from antiphon.graphs.config import OmniConfig
from antiphon.graphs.families.qwen3_5_omni.talker import talker_stage
from antiphon.graphs.layers.decoder_specs import greedy_sampling
from antiphon.graphs.stage import Stage

from ...decoder_pair import Runner
from ...module_pair import check_example_axes, load_module, relative_error
from ...qwen3_5_pair import (
    CODEBOOK,
    CODEC_VOCAB,
    GROUPS,
    TEXT_VOCAB,
    VARIANTS,
    Qwen35Pair,
    Tensors,
    fused_layout,
    make_qwen3_5_pair,
    omni_config,
    one_tensor_an_expert,
)

TOLERANCE = 1e-5
THINKER_HIDDEN = 20
TRACKS = ("text_ids", "hidden", "hidden_index", "codec_ids", "frame_codes", "frame_index")
TABLES = [f"talker.code_predictor.model.codec_embedding.{group}.weight" for group in range(GROUPS - 1)]
Feeds = dict[str, np.ndarray]


@dataclass(frozen=True)
class Talker:
    config: OmniConfig
    pair: Qwen35Pair
    tensors: dict[str, np.ndarray]
    stage: Stage
    module: Any


def load(name: str) -> Talker:
    decoder = dataclasses.replace(VARIANTS[name], vocab_size=CODEC_VOCAB, tie_word_embeddings=False)
    pair, random = make_qwen3_5_pair(decoder, seed=1), np.random.default_rng(1)
    config = omni_config(dataclasses.replace(VARIANTS[name], hidden_size=THINKER_HIDDEN), decoder)
    tensors, size = pair.tensors("talker."), decoder.hidden_size
    tensors["talker.codec_head.weight"] = tensors.pop("talker.lm_head.weight")
    shapes = {
        "talker.model.embed_tokens.weight": (TEXT_VOCAB, size),
        "talker.model.codec_embedding.weight": (CODEC_VOCAB, size),
        "talker.hidden_projection.weight": (size, THINKER_HIDDEN),
        "talker.hidden_projection.bias": (size,),
    } | dict.fromkeys(TABLES, (CODEBOOK, size))
    tensors |= {given: random.normal(size=shape).astype(np.float32) for given, shape in shapes.items()}
    stage = talker_stage(config)
    return Talker(config, pair, tensors, stage, load_module(stage, Tensors(tensors)))


@pytest.fixture(scope="module", params=list(VARIANTS))
def talker(request: pytest.FixtureRequest) -> Talker:
    return load(request.param)


def rows(tokens: int, seed: int, batch: int = 1) -> Feeds:
    """Rows of every kind and of several at once, and of none at all; fractional positions as of a video."""
    random, total = np.random.default_rng(seed), batch * tokens

    def ids(vocab: int) -> np.ndarray:
        return np.where(random.random((batch, tokens)) < 0.5, random.integers(0, vocab, (batch, tokens)), -1)

    index = [np.sort(random.choice(total, total // 2, replace=False)) for _ in range(2)]
    feeds: Feeds = {
        "text_ids": ids(TEXT_VOCAB),
        "hidden": random.normal(size=(total // 2, THINKER_HIDDEN)).astype(np.float32),
        "hidden_index": index[0],
        "codec_ids": ids(CODEC_VOCAB),
        "frame_codes": random.integers(0, CODEBOOK, (total // 2, GROUPS)),
        "frame_index": index[1],
        "positions": np.cumsum(random.choice([0, 0.5, 1, 1.04], (3, batch, tokens)), axis=2).astype(
            np.float32
        ),
        "query_length": np.full(batch, tokens),
        "past_length": np.zeros(batch, np.int64),
        "output_index": np.arange(total),
    }
    return feeds | greedy_sampling(total, CODEC_VOCAB)


def part(feeds: Feeds, start: int, stop: int) -> Feeds:
    """Rows start .. stop of one stream, as a call of their own."""
    cut = dict(
        feeds,
        query_length=np.array([stop - start]),
        past_length=np.array([start]),
        output_index=np.arange(stop - start),
    )
    cut |= {name: feeds[name][..., start:stop] for name in ("text_ids", "codec_ids", "positions")}
    for name, index in (("hidden", "hidden_index"), ("frame_codes", "frame_index")):
        inside = (feeds[index] >= start) & (feeds[index] < stop)
        cut[name], cut[index] = feeds[name][inside], feeds[index][inside] - start
    return cut | greedy_sampling(stop - start, CODEC_VOCAB)


def expected_rows(talker: Talker, feeds: Feeds) -> np.ndarray:
    """The input rows [batch * tokens, hidden] in float64, row by row as the specification words them."""
    stored = {name: value.astype(np.float64) for name, value in talker.tensors.items()}
    codec = stored["talker.model.codec_embedding.weight"]
    made = np.zeros((feeds["text_ids"].size, codec.shape[1]))
    for row, (text_id, codec_id) in enumerate(
        zip(feeds["text_ids"].flat, feeds["codec_ids"].flat, strict=True)
    ):
        if text_id >= 0:
            made[row] += stored["talker.model.embed_tokens.weight"][text_id]
        if codec_id >= 0:
            made[row] += codec[codec_id]
    for row, heard in zip(feeds["hidden_index"], feeds["hidden"], strict=True):
        made[row] += (
            stored["talker.hidden_projection.weight"] @ heard + stored["talker.hidden_projection.bias"]
        )
    for row, frame in zip(feeds["frame_index"], feeds["frame_codes"], strict=True):
        made[row] += codec[frame[0]] + sum(
            stored[table][code] for table, code in zip(TABLES, frame[1:], strict=True)
        )
    return made


@pytest.mark.parametrize("kept", ["text_ids", "codec_ids", "hidden", "frame_codes", ""])
def test_rows_of_each_kind_equal_the_formula(talker: Talker, kept: str) -> None:
    """One kind alone, and with "" all kinds added."""
    feeds = rows(12, seed=3, batch=2)
    if kept:
        feeds |= {name: np.full_like(feeds[name], -1) for name in ("text_ids", "codec_ids") if name != kept}
        for name, index in (("hidden", "hidden_index"), ("frame_codes", "frame_index")):
            feeds |= {given: feeds[given][:0] for given in (name, index) if name != kept}
    found = talker.module.rows(*(torch.from_numpy(feeds[name]) for name in TRACKS))
    expected = expected_rows(talker, feeds)
    assert np.abs(expected).max() > 0.5
    assert relative_error(found.flatten(0, 1), expected) < 1e-6


@pytest.mark.parametrize(("tokens", "batch", "seed"), [(19, 1, 0), (2, 1, 1), (1, 1, 2), (7, 3, 3)])
def test_logits_and_last_rows_equal_the_reference(talker: Talker, tokens: int, batch: int, seed: int) -> None:
    feeds = rows(tokens, seed, batch)
    found, model = Runner(talker.stage, talker.module, batch)(feeds), talker.pair.model
    x = torch.from_numpy(expected_rows(talker, feeds).astype(np.float32)).reshape(batch, tokens, -1)
    last = model.model(
        inputs_embeds=x, position_ids=torch.from_numpy(feeds["positions"]), use_cache=False
    ).last_hidden_state.flatten(0, 1)
    assert relative_error(found["logits"], model.lm_head(last)) < TOLERANCE
    assert relative_error(found["output_hidden"], last) < TOLERANCE
    np.testing.assert_array_equal(found["token"], found["logits"].argmax(1))


@settings(max_examples=6, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=2, max_size=8), st.integers(0, 100))
def test_prefill_in_any_chunks_and_decode_equal_one_prefill(
    talker: Talker, chunks: list[int], seed: int
) -> None:
    """Four frames and four rows of text may come in one call or in eight."""
    feeds, whole = rows(sum(chunks), seed), Runner(talker.stage, talker.module, capacity=48)
    expected, runner, start = whole(feeds), Runner(talker.stage, talker.module, capacity=48), 0
    for chunk in chunks:
        found = runner(part(feeds, start, start + chunk))
        for name in ("logits", "output_hidden"):
            assert relative_error(found[name], expected[name][start : start + chunk]) < TOLERANCE
        start += chunk
    for ours, theirs in zip(runner.states, whole.states, strict=True):
        assert relative_error(ours, theirs) < TOLERANCE


def test_streams_of_different_length_step_together(talker: Talker) -> None:
    together, expected = Runner(talker.stage, talker.module, batch=2), []
    steps = [rows(2, seed) for seed in (5, 6)]
    for row, length in enumerate((4, 9)):
        alone = Runner(talker.stage, talker.module)
        alone(rows(length, seed=row))
        for shared, own in zip(together.states, alone.states, strict=True):
            shared[row] = own[0]
        expected.append(alone(steps[row] | {"past_length": np.array([length])})["logits"])
    joined = {
        name: np.concatenate([step[name] for step in steps], axis=1 if name == "positions" else 0)
        for name in steps[0]
    }
    joined |= {"past_length": np.array([4, 9]), "output_index": np.arange(4)}
    for name in ("hidden_index", "frame_index"):
        joined[name] = np.concatenate([step[name] + 2 * row for row, step in enumerate(steps)])
    assert relative_error(together(joined)["logits"], np.concatenate(expected)) < TOLERANCE


def test_suppressed_ids_are_not_drawn_and_the_penalty_counts(talker: Talker) -> None:
    feeds = rows(3, seed=8)
    greedy = Runner(talker.stage, talker.module)(feeds)["token"]
    feeds["suppressed"][0, greedy[0]], feeds["penalised"][1, greedy[1]], feeds["repetition_penalty"][1] = (
        True,
        True,
        100.0,
    )
    found = Runner(talker.stage, talker.module)(feeds)["token"]
    assert found[0] != greedy[0] and found[1] != greedy[1] and found[2] == greedy[2]


def test_both_layouts_make_one_module_and_every_tensor_is_used() -> None:
    talker = load(next(iter(VARIANTS)))
    decoder = talker.pair.config
    stored = one_tensor_an_expert(fused_layout(talker.tensors, decoder), decoder)
    for ours, theirs in zip(
        load_module(talker.stage, Tensors(stored)).parameters(), talker.module.parameters(), strict=True
    ):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    for tensors in (stored, talker.tensors):
        assert {
            tensor for source in talker.stage.weights(Tensors(tensors)).values() for tensor in source.tensors
        } == set(tensors)


def test_example_shows_every_axis(talker: Talker) -> None:
    check_example_axes(talker.stage)
