"""The Thinker against HF's Thinker with the same random checkpoint:
teacher-forced logits and the tapped rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from antiphon.graphs.layers.decoder_specs import greedy_sampling
from antiphon.graphs.stages.thinker import thinker_stage

from ..decoder_pair import VARIANTS, Pair, Runner
from ..module_pair import relative_error

TOLERANCE = 1e-5
Thinker = tuple[Pair, Any, Any]


@pytest.fixture(scope="module", params=list(VARIANTS))
def thinker(request: pytest.FixtureRequest, pairs: Any) -> Thinker:
    pair = pairs(request.param)
    stage = thinker_stage(pair.config)
    return pair, stage, pair.module(stage)


def prompt(pair: Pair, tokens: int, seed: int, batch: int = 1) -> dict[str, np.ndarray]:
    """Random ids with runs of features, the later ones visual with deepstack rows, at fractional positions;
    every row's logits are wanted.
    """
    text = pair.config.thinker.text
    random = np.random.default_rng(seed)
    layers = len(pair.config.thinker.vision.deepstack_visual_indexes)
    indexed = np.sort(random.choice(batch * tokens, batch * tokens * 2 // 3, replace=False))
    visual = indexed[len(indexed) // 3 :]
    feeds = {
        "input_ids": random.integers(0, text.vocab_size, (batch, tokens)),
        "positions": np.cumsum(random.choice([0, 1, 1.04, 3], (3, batch, tokens)), axis=2).astype(np.float32),
        "query_length": np.full(batch, tokens),
        "past_length": np.zeros(batch, np.int64),
        "features": random.normal(size=(len(indexed), text.hidden_size)).astype(np.float32) * 0.5,
        "feature_index": indexed,
        "deepstack": random.normal(size=(layers, len(visual), text.hidden_size)).astype(np.float32) * 0.5,
        "deepstack_index": visual,
        "output_index": np.arange(batch * tokens),
    }
    return feeds | greedy_sampling(batch * tokens, text.vocab_size)


def part(feeds: dict[str, np.ndarray], start: int, stop: int) -> dict[str, np.ndarray]:
    """Tokens start .. stop of a prompt of one stream, as a chunk of its own."""
    cut = dict(
        feeds,
        query_length=np.array([stop - start]),
        past_length=np.array([start]),
        output_index=np.arange(stop - start),
    )
    cut["input_ids"], cut["positions"] = (
        feeds["input_ids"][:, start:stop],
        feeds["positions"][:, :, start:stop],
    )
    for rows, index in (("features", "feature_index"), ("deepstack", "deepstack_index")):
        inside = (feeds[index] >= start) & (feeds[index] < stop)
        cut[rows], cut[index] = feeds[rows][..., inside, :], feeds[index][inside] - start
    return cut | greedy_sampling(stop - start, feeds["penalised"].shape[1])


def only(feeds: dict[str, np.ndarray], row: int) -> dict[str, np.ndarray]:
    """One row of a batch, as a prompt of one stream."""
    tokens = feeds["input_ids"].shape[1]
    cut = dict(
        feeds, input_ids=feeds["input_ids"][row : row + 1], positions=feeds["positions"][:, row : row + 1]
    )
    for rows, index in (("features", "feature_index"), ("deepstack", "deepstack_index")):
        inside = feeds[index] // tokens == row
        cut[rows], cut[index] = feeds[rows][..., inside, :], feeds[index][inside] - row * tokens
    return cut


def reference(pair: Pair, feeds: dict[str, np.ndarray]) -> tuple[Any, Any]:
    """HF's logits [batch, tokens, vocab] and tapped rows [batch, tokens, hidden] for the same
    embeddings, features and positions.
    """
    model = pair.model.thinker
    language = model.model.language_model
    rows = language.embed_tokens(torch.from_numpy(feeds["input_ids"]))
    flat, mask = (
        rows.reshape(-1, rows.shape[-1]).clone(),
        torch.zeros(rows.shape[0] * rows.shape[1], dtype=torch.bool),
    )
    flat[torch.from_numpy(feeds["feature_index"])] = torch.from_numpy(feeds["features"])
    mask[torch.from_numpy(feeds["deepstack_index"])] = True
    deepstack = {
        "visual_pos_masks": mask.reshape(rows.shape[:2]),
        "deepstack_visual_embeds": list(torch.from_numpy(feeds["deepstack"])),
    }
    outputs = language(
        inputs_embeds=flat.reshape(rows.shape),
        position_ids=torch.from_numpy(feeds["positions"]),
        output_hidden_states=True,
        **deepstack,
    )
    return model.lm_head(outputs.last_hidden_state), outputs.hidden_states[
        pair.config.talker.accept_hidden_layer
    ]


@pytest.mark.parametrize(("tokens", "batch", "seed"), [(17, 1, 0), (1, 1, 1), (9, 3, 2), (30, 1, 3)])
def test_logits_and_tapped_rows_equal_the_reference(
    thinker: Thinker, tokens: int, batch: int, seed: int
) -> None:
    pair, stage, module = thinker
    feeds = prompt(pair, tokens, seed, batch)
    found, (logits, tapped) = Runner(stage, module, batch)(feeds), reference(pair, feeds)
    assert relative_error(found["logits"], logits.flatten(0, 1)) < TOLERANCE
    assert relative_error(found["hidden"], tapped) < TOLERANCE
    np.testing.assert_array_equal(found["token"], found["logits"].argmax(1))


@settings(max_examples=6, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=2, max_size=8), st.integers(0, 100))
def test_prefill_in_any_chunks_and_decode_equal_one_prefill(
    thinker: Thinker, chunks: list[int], seed: int
) -> None:
    pair, stage, module = thinker
    feeds = prompt(pair, sum(chunks), seed)
    whole, runner, start = Runner(stage, module, capacity=48)(feeds), Runner(stage, module, capacity=48), 0
    for chunk in chunks:
        found = runner(part(feeds, start, start + chunk))
        for name, expected in (("logits", whole["logits"]), ("hidden", whole["hidden"][0])):
            assert relative_error(found[name].reshape(chunk, -1), expected[start : start + chunk]) < TOLERANCE
        start += chunk
    for ours, theirs in zip(runner.states, Runner(stage, module, capacity=48).states, strict=True):
        assert ours.shape == theirs.shape and ours[:, :, start:].abs().max() == 0


def test_padded_rows_leave_the_others_and_the_cache_as_they_are(thinker: Thinker) -> None:
    pair, stage, module = thinker
    feeds = prompt(pair, 8, seed=4, batch=2)
    feeds["query_length"] = np.array([8, 5])
    runner = Runner(stage, module, 2)
    found, (logits, _) = runner(feeds), reference(pair, feeds)
    valid = np.r_[0:8, 8:13]
    assert relative_error(found["logits"][valid], logits.flatten(0, 1)[valid]) < TOLERANCE
    assert all(state[1, :, 5:].abs().max() == 0 for state in runner.states)
    step = prompt(pair, 1, seed=5, batch=2) | {"past_length": np.array([8, 5])}
    both = runner(step)
    for row, length in enumerate((8, 5)):
        alone = Runner(stage, module)
        alone(part(only(feeds, row), 0, length))
        last = part(only(step, row), 0, 1) | {"past_length": np.array([length])}
        assert relative_error(both["logits"][row], alone(last)["logits"][0]) < TOLERANCE


def test_audio_and_images_of_the_reference_scattered_in_give_its_own_forward(thinker: Thinker) -> None:
    """HF's encoders make the features, HF's rope index the positions: only what lies between is ours."""
    pair, stage, module = thinker
    model, thinker_config = pair.model.thinker, pair.config.raw["thinker_config"]
    generator = torch.Generator().manual_seed(6)
    grid, mel_frames = torch.tensor([[1, 6, 4]]), 130
    sound = torch.randn(1, 128, mel_frames, generator=generator)
    mask, pixels = (
        torch.ones(1, mel_frames, dtype=torch.long),
        torch.randn(24, 3 * 2 * 16 * 16, generator=generator),
    )
    audio = model.get_audio_features(sound, mask, return_dict=True).last_hidden_state
    image = model.get_image_features(pixels, grid, return_dict=True)
    pictured = torch.cat(list(image.pooler_output))
    names = (
        "audio_start_token_id",
        "audio_token_id",
        "audio_end_token_id",
        "vision_start_token_id",
        "image_token_id",
        "vision_end_token_id",
    )
    a0, a, a1, v0, v, v1 = (thinker_config[name] for name in names)
    ids = np.array([[5, 6, a0, *[a] * len(audio), a1, 7, v0, *[v] * len(pictured), v1, 8, 9]])
    inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.ones(ids.shape, dtype=torch.long)}
    media = {
        "input_features": sound,
        "feature_attention_mask": mask,
        "pixel_values": pixels,
        "image_grid_thw": grid,
    }
    expected = model(**inputs, **media, output_hidden_states=True)
    positions, _ = model.get_rope_index(
        inputs["input_ids"], grid, None, inputs["attention_mask"], False, torch.tensor([mel_frames]), None
    )
    feeds = prompt(pair, ids.shape[1], seed=0)
    heard, seen = np.flatnonzero(ids[0] == a), np.flatnonzero(ids[0] == v)
    deepstack = np.array([torch.cat(list(rows)).numpy() for rows in image.deepstack_features])
    feeds |= {
        "input_ids": ids,
        "positions": positions.float().numpy(),
        "features": torch.cat([audio, pictured]).numpy(),
        "feature_index": np.r_[heard, seen],
    }
    found = Runner(stage, module, capacity=64)(feeds | {"deepstack": deepstack, "deepstack_index": seen})
    assert relative_error(found["logits"], expected.logits[0]) < TOLERANCE
    assert (
        relative_error(found["hidden"], expected.hidden_states[pair.config.talker.accept_hidden_layer])
        < TOLERANCE
    )


def test_only_the_wanted_rows_are_put_out_and_sampled(thinker: Thinker) -> None:
    pair, stage, module = thinker
    feeds = prompt(pair, 6, seed=7)
    whole = Runner(stage, module)(feeds)
    wanted = (
        feeds | {"output_index": np.array([5, 2])} | greedy_sampling(2, pair.config.thinker.text.vocab_size)
    )
    wanted["suppressed"][1, whole["token"][2]] = True
    found = Runner(stage, module)(wanted)
    np.testing.assert_allclose(found["logits"], whole["logits"][[5, 2]], rtol=0, atol=1e-5)
    assert found["token"][0] == whole["token"][5] and found["token"][1] != whole["token"][2]
