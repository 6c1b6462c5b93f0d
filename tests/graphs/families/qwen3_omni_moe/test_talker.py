"""The Talker against HF's Talker with the same random checkpoint, teacher-forced on rows of every kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from antiphon.graphs.families.qwen3_omni_moe.talker import talker_stage
from antiphon.graphs.layers.decoder_specs import greedy_sampling

from ...decoder_pair import VARIANTS, Pair, Runner
from ...module_pair import relative_error

TOLERANCE = 1e-5
Talker = tuple[Pair, Any, Any]


@pytest.fixture(scope="module", params=list(VARIANTS))
def talker(request: pytest.FixtureRequest, pairs: Any) -> Talker:
    pair = pairs(request.param)
    stage = talker_stage(pair.config)
    return pair, stage, pair.module(stage)


def rows(pair: Pair, tokens: int, seed: int, batch: int = 1) -> dict[str, np.ndarray]:
    """Rows of all kinds: text, codec, both, Thinker rows, frame rows beside text, and none at all;
    fractional positions as of a video.
    """
    config, text = pair.config, pair.config.talker.text
    random, total = np.random.default_rng(seed), batch * tokens

    def ids(vocab: int) -> np.ndarray:
        return np.where(random.random((batch, tokens)) < 0.5, random.integers(0, vocab, (batch, tokens)), -1)

    def some(width: int) -> tuple[np.ndarray, np.ndarray]:
        index = np.sort(random.choice(total, total // 2, replace=False))
        return random.normal(size=(len(index), width)).astype(np.float32), index

    hidden, hidden_index = some(config.thinker.text.hidden_size)
    frame_rows, frame_index = some(text.hidden_size)
    feeds = {
        "text_ids": ids(config.thinker.text.vocab_size),
        "hidden": hidden,
        "hidden_index": hidden_index,
        "codec_ids": ids(text.vocab_size),
        "frame_rows": frame_rows,
        "frame_index": frame_index,
        "positions": np.cumsum(random.choice([0, 0.5, 1, 1.04], (3, batch, tokens)), axis=2).astype(
            np.float32
        ),
        "query_length": np.full(batch, tokens),
        "past_length": np.zeros(batch, np.int64),
        "output_index": np.arange(total),
    }
    return feeds | greedy_sampling(total, text.vocab_size)


def part(feeds: dict[str, np.ndarray], start: int, stop: int) -> dict[str, np.ndarray]:
    """Rows start .. stop of one stream, as a call of their own."""
    cut = dict(
        feeds,
        query_length=np.array([stop - start]),
        past_length=np.array([start]),
        output_index=np.arange(stop - start),
    )
    cut |= {name: feeds[name][..., start:stop] for name in ("text_ids", "codec_ids", "positions")}
    for name, index in (("hidden", "hidden_index"), ("frame_rows", "frame_index")):
        inside = (feeds[index] >= start) & (feeds[index] < stop)
        cut[name], cut[index] = feeds[name][inside], feeds[index][inside] - start
    return cut | greedy_sampling(stop - start, feeds["penalised"].shape[1])


def embedded(pair: Pair, feeds: dict[str, np.ndarray]) -> Any:
    """The input rows [batch, tokens, hidden] of the same tracks, by HF's tables and projections."""
    model, embedding = pair.model.talker, pair.model.thinker.get_input_embeddings()
    text_ids, codec_ids = (
        torch.from_numpy(feeds["text_ids"]).flatten(),
        torch.from_numpy(feeds["codec_ids"]).flatten(),
    )
    x = torch.zeros(len(text_ids), pair.config.talker.text.hidden_size)
    x[text_ids >= 0] += model.text_projection(embedding(text_ids[text_ids >= 0]))
    x[codec_ids >= 0] += model.get_input_embeddings()(codec_ids[codec_ids >= 0])
    x[torch.from_numpy(feeds["hidden_index"])] += model.hidden_projection(torch.from_numpy(feeds["hidden"]))
    x[torch.from_numpy(feeds["frame_index"])] += torch.from_numpy(feeds["frame_rows"])
    return x.reshape(*feeds["text_ids"].shape, -1)


def reference(pair: Pair, feeds: dict[str, np.ndarray]) -> tuple[Any, Any]:
    """HF's logits [rows, vocab] and last rows [rows, hidden]."""
    outputs = pair.model.talker.model(
        inputs_embeds=embedded(pair, feeds), position_ids=torch.from_numpy(feeds["positions"])
    )
    last = outputs.last_hidden_state.flatten(0, 1)
    return pair.model.talker.codec_head(last), last


@pytest.mark.parametrize(("tokens", "batch", "seed"), [(19, 1, 0), (2, 1, 1), (1, 1, 2), (7, 3, 3)])
def test_logits_and_last_rows_equal_the_reference(talker: Talker, tokens: int, batch: int, seed: int) -> None:
    pair, stage, module = talker
    feeds = rows(pair, tokens, seed, batch)
    found, (logits, last) = Runner(stage, module, batch)(feeds), reference(pair, feeds)
    assert relative_error(found["logits"], logits) < TOLERANCE
    assert relative_error(found["output_hidden"], last) < TOLERANCE
    np.testing.assert_array_equal(found["token"], found["logits"].argmax(1))


def test_input_rows_are_the_sum_of_their_tracks(talker: Talker) -> None:
    pair, _, module = talker
    feeds = rows(pair, 12, seed=4, batch=2)
    names = ("text_ids", "hidden", "hidden_index", "codec_ids", "frame_rows", "frame_index")
    found = module.rows(*(torch.from_numpy(feeds[name]) for name in names))
    assert relative_error(found, embedded(pair, feeds)) < 1e-6
    bare = dict(feeds, text_ids=feeds["text_ids"] * 0 - 1, codec_ids=feeds["codec_ids"] * 0 - 1)
    bare |= {name: feeds[name][:0] for name in ("hidden", "hidden_index", "frame_rows", "frame_index")}
    assert module.rows(*(torch.from_numpy(bare[name]) for name in names)).abs().max() == 0


@settings(max_examples=6, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=2, max_size=8), st.integers(0, 100))
def test_prefill_in_any_chunks_and_decode_equal_one_prefill(
    talker: Talker, chunks: list[int], seed: int
) -> None:
    """Text that is late joins the next frame's row in one call:
    calls of any number of rows give the same logits.
    """
    pair, stage, module = talker
    feeds = rows(pair, sum(chunks), seed)
    whole, runner, start = Runner(stage, module, capacity=48)(feeds), Runner(stage, module, capacity=48), 0
    for chunk in chunks:
        found = runner(part(feeds, start, start + chunk))
        for name in ("logits", "output_hidden"):
            assert relative_error(found[name], whole[name][start : start + chunk]) < TOLERANCE
        start += chunk


def test_streams_of_different_length_step_together(talker: Talker) -> None:
    pair, stage, module = talker
    together, expected = Runner(stage, module, batch=2), []
    steps = [rows(pair, 1, seed) for seed in (5, 6)]
    for row, length in enumerate((4, 9)):
        alone = Runner(stage, module)
        alone(rows(pair, length, seed=row))
        for shared, own in zip(together.states, alone.states, strict=True):
            shared[row] = own[0]
        expected.append(alone(steps[row] | {"past_length": np.array([length])})["logits"][0])
    joined = {
        name: np.concatenate([step[name] for step in steps], axis=1 if name == "positions" else 0)
        for name in steps[0]
    }
    joined |= {"past_length": np.array([4, 9]), "output_index": np.array([0, 1])}
    for name in ("hidden_index", "frame_index"):
        joined[name] = np.concatenate([step[name] + row for row, step in enumerate(steps)])
    assert relative_error(together(joined)["logits"], np.stack(expected)) < TOLERANCE


def test_suppressed_ids_are_not_drawn_and_the_penalty_counts(talker: Talker) -> None:
    pair, stage, module = talker
    feeds = rows(pair, 3, seed=8)
    greedy = Runner(stage, module)(feeds)["token"]
    feeds["suppressed"][0, greedy[0]], feeds["penalised"][1, greedy[1]], feeds["repetition_penalty"][1] = (
        True,
        True,
        100.0,
    )
    found = Runner(stage, module)(feeds)["token"]
    assert found[0] != greedy[0] and found[1] != greedy[1] and found[2] == greedy[2]
