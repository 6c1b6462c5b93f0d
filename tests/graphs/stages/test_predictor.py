"""The code predictor's step against HF's code predictor with the same random checkpoint:
all 15 steps of a frame, teacher-forced.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from antiphon.graphs.layers.decoder_specs import greedy_sampling
from antiphon.graphs.stages.predictor import predictor_stage

from ..decoder_pair import VARIANTS, Pair, Runner
from ..module_pair import relative_error

TOLERANCE = 1e-5
Predictor = tuple[Pair, Any, Any]


@pytest.fixture(scope="module", params=list(VARIANTS))
def predictor(request: pytest.FixtureRequest, pairs: Any) -> Predictor:
    pair = pairs(request.param)
    stage = predictor_stage(pair.config)
    return pair, stage, pair.module(stage)


def frame(pair: Pair, batch: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A Talker row [batch, hidden] and the 16 codes [batch, 16] that are forced."""
    random, talker = np.random.default_rng(seed), pair.config.talker
    hidden = random.normal(size=(batch, talker.text.hidden_size)).astype(np.float32)
    return hidden, random.integers(0, talker.predictor.vocab_size, (batch, talker.num_code_groups))


def step_feeds(hidden: np.ndarray, code: np.ndarray, step: int, codebook: int) -> dict[str, np.ndarray]:
    rows = hidden[:, None] if step == 0 else hidden[:, None][:, :0]
    past = np.full(len(code), step + 1 if step else 0)
    return {"hidden": rows, "code": code, "step": np.array([step]), "past_length": past} | greedy_sampling(
        len(code), codebook
    )


def run_frame(
    pair: Pair, stage: Any, module: Any, hidden: np.ndarray, codes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """logits [batch, 15, codebook], the embeddings [batch, 15, hidden] of codes 0 ..
    14, and greedy tokens [batch, 15].
    """
    steps = pair.config.talker.num_code_groups - 1
    runner = Runner(stage, module, len(codes), capacity=steps + 1)
    found = [
        runner(step_feeds(hidden, codes[:, step], step, pair.config.talker.predictor.vocab_size))
        for step in range(steps)
    ]
    return tuple(
        np.stack([result[name] for result in found], axis=1) for name in ("logits", "code_row", "token")
    )  # type: ignore[return-value]


def reference(pair: Pair, hidden: np.ndarray, codes: np.ndarray) -> tuple[Any, Any]:
    """HF's logits and the embeddings of all 16 codes:
    two rows first, then one code at a time behind the cache.
    """
    talker, forced = pair.model.talker, torch.from_numpy(codes)
    model, rows = talker.code_predictor, [talker.get_input_embeddings()(forced[:, 0])]
    outputs = model(inputs_embeds=torch.stack([torch.from_numpy(hidden), rows[0]], dim=1), use_cache=True)
    logits = [outputs.logits[:, -1]]
    for step in range(1, codes.shape[1] - 1):
        outputs = model(
            input_ids=forced[:, step : step + 1],
            past_key_values=outputs.past_key_values,
            generation_steps=step,
            use_cache=True,
        )
        logits.append(outputs.logits[:, -1])
    rows += [table(forced[:, group + 1]) for group, table in enumerate(model.get_input_embeddings())]
    return torch.stack(logits, dim=1), torch.stack(rows, dim=1)


@pytest.mark.parametrize(("batch", "seed"), [(1, 0), (3, 1), (2, 2)])
def test_all_steps_equal_the_reference(predictor: Predictor, batch: int, seed: int) -> None:
    pair, stage, module = predictor
    hidden, codes = frame(pair, batch, seed)
    logits, rows, tokens = run_frame(pair, stage, module, hidden, codes)
    expected, embedded = reference(pair, hidden, codes)
    for step in range(logits.shape[1]):
        assert relative_error(logits[:, step], expected[:, step]) < TOLERANCE, f"step {step}"
    np.testing.assert_array_equal(rows, embedded[:, :-1].numpy())
    np.testing.assert_array_equal(tokens, logits.argmax(-1))


def test_the_last_table_holds_the_last_codes_so_that_the_frame_row_is_a_sum_of_16_rows(
    predictor: Predictor,
) -> None:
    pair, stage, module = predictor
    hidden, codes = frame(pair, 2, seed=3)
    _, embedded = reference(pair, hidden, codes)
    book, groups = pair.config.talker.predictor.vocab_size, pair.config.talker.num_code_groups
    assert module.code_embedding.shape == (groups * book, hidden.shape[1])
    tables = module.code_embedding.reshape(groups, book, -1)
    ours = torch.stack([tables[group][torch.from_numpy(codes[:, group])] for group in range(groups)], dim=1)
    np.testing.assert_array_equal(ours.numpy(), embedded.numpy())


def test_a_step_depends_on_every_code_before_it(predictor: Predictor) -> None:
    pair, stage, module = predictor
    hidden, codes = frame(pair, 1, seed=4)
    logits, _, _ = run_frame(pair, stage, module, hidden, codes)
    changed = codes.copy()
    changed[:, 5] = (changed[:, 5] + 1) % pair.config.talker.predictor.vocab_size
    other, _, _ = run_frame(pair, stage, module, hidden, changed)
    np.testing.assert_array_equal(other[:, :5], logits[:, :5])
    assert (np.abs(other[:, 5:] - logits[:, 5:]).max(axis=2) > 1e-4).all()


def test_sampling_filters_apply_in_every_step(predictor: Predictor) -> None:
    pair, stage, module = predictor
    hidden, codes = frame(pair, 1, seed=5)
    runner = Runner(stage, module, capacity=16)
    feeds = step_feeds(hidden, codes[:, 0], 0, pair.config.talker.predictor.vocab_size)
    best = Runner(stage, module, capacity=16)(feeds)["logits"].argsort(axis=1)[0, ::-1]
    feeds |= {
        "temperature": np.ones(1, np.float32),
        "top_k": np.array([2]),
        "noise": np.array([1 - 2**-24], np.float32),
    }
    feeds["suppressed"][0, best[0]] = True
    assert runner(feeds)["token"][0] == max(best[1], best[2])
