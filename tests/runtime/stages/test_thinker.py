from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.bundle.sampling import SamplingParameters
from antiphon.runtime.scheduling.engine_lock import NORMAL
from antiphon.runtime.stages.noise import uniform
from antiphon.runtime.stages.thinker import Thinker

GREEDY = SamplingParameters(0.0)


def answer(thinker, context, sampling=GREEDY, seed=0, before=lambda: NORMAL):
    return list(thinker.answer(context, sampling, seed, before, lambda seconds: None))


@pytest.fixture
def ask(fakes):
    """A Thinker of the given chunk size and a context in which a question waits."""

    def make(text="abc", chunk=512, clip=0):
        omni = fakes.omni(prefill_chunk=chunk)
        context = omni.model.thinker.new_context()
        parts = [
            {"type": "text", "text": text[:1]},
            {"type": "input_audio", "input_audio": {"data": np.zeros(clip)}},
            {"type": "text", "text": text[1:]},
        ]
        context.queue_prompt(omni.front_end.prompt([{"role": "user", "content": parts}]))
        return omni.model.thinker, context

    return make


def test_tokens_come_until_the_end_of_the_turn(fakes, ask):
    tokens = answer(*ask("abc"))
    assert [token.id for token in tokens] == fakes.letters("abc") and all(
        token.spoken and not token.is_last for token in tokens
    )


@pytest.mark.parametrize("chunk", [1, 2, 5, 7, 11])
def test_a_prompt_read_in_chunks_is_the_prompt_read_at_once(fakes, ask, chunk):
    contexts = []
    for size in (512, chunk):
        thinker, context = ask("abcd", size, clip=6)
        assert [token.id for token in answer(thinker, context)] == fakes.letters("abcd")
        contexts.append(context)
    whole, pieces = contexts
    assert (
        whole.token_ids == pieces.token_ids
        and whole.hidden_rows.keys() == pieces.hidden_rows.keys() == set(range(4, 10))
    )
    assert all(np.array_equal(whole.hidden_rows[row], pieces.hidden_rows[row]) for row in range(4, 10))


@pytest.mark.parametrize("chunk", [3, 5, 512])
def test_features_reach_the_tokens_they_belong_to(fakes, ask, chunk):
    answer(*ask("ab", chunk, clip=5))
    past, rows = 0, {}
    for feeds in fakes.engines["thinker"].feeds:
        for row, place in zip(feeds["features"], feeds["feature_index"], strict=True):
            assert feeds["input_ids"][0, place] == fakes.ids["audio"]
            rows[past + int(place)] = row.tolist()
        past += feeds["input_ids"].shape[1]
    assert rows == {row: [2.0, 2.0] for row in range(4, 9)}


def test_positions_go_on_by_one_after_the_prompt(fakes, ask):
    answer(*ask("abc"))
    assert [feeds["positions"][:, 0, -1].tolist() for feeds in fakes.engines["thinker"].feeds] == [
        [p] * 3 for p in (10.0, 11.0, 12.0, 13.0)
    ]


def test_the_last_token_before_the_limit_is_text_but_neither_fed_nor_spoken(fakes, ask):
    thinker, context = ask("abcdef")
    tokens = answer(thinker, context, SamplingParameters(0.0, max_tokens=3))
    assert [(token.spoken, token.is_last) for token in tokens] == [
        (True, False),
        (True, False),
        (False, True),
    ]
    assert [context.pending_id] == fakes.letters("c") and context.token_ids[
        context.answer_row :
    ] == fakes.letters("ab")


def test_the_end_is_forbidden_before_the_minimum(ask):
    thinker, context = ask("a")
    assert len(answer(thinker, context, SamplingParameters(0.0, min_tokens=4))) == 4


def test_every_draw_has_the_noise_of_its_position(fakes, ask):
    answer(*ask("abc"), SamplingParameters(1.0), seed=5)
    assert [feeds["noise"][0] for feeds in fakes.engines["thinker"].feeds] == [
        uniform(5, 0, position) for position in range(4)
    ]


def test_the_repetition_penalty_sees_prompt_and_answer(fakes, ask):
    answer(*ask("ab"), SamplingParameters(0.0, repetition_penalty=1.1))
    masks = [set(np.flatnonzero(feeds["penalised"][0])) for feeds in fakes.engines["thinker"].feeds]
    assert masks[0] == {1, 2, 3, 5, 6, 20, 21} and masks[-1] == masks[0]


def test_an_interrupted_prefill_leaves_the_context_as_it_was(fakes, ask):
    thinker, context = ask("abc", 4, clip=3)
    runs = []

    def stop() -> int:
        runs.append(1)
        if len(runs) == 4:
            raise KeyboardInterrupt
        return NORMAL

    with pytest.raises(KeyboardInterrupt):
        answer(thinker, context, before=stop)
    assert (
        context.states.length == 0
        and context.token_ids == []
        and context.hidden_rows == {}
        and context.waiting
    )
    assert [token.id for token in answer(thinker, context)] == fakes.letters("abc")


def test_a_prompt_beyond_the_context_is_refused_before_any_run(fakes, ask):
    fakes.constants["thinker_context"] = 11
    thinker, context = ask("abc")
    with pytest.raises(AntiphonError, match="has 11 tokens, the model's context holds 11"):
        answer(thinker, context)
    assert not fakes.engines["thinker"].feeds


def test_a_full_context_stops_the_answer_by_length(fakes, ask):
    fakes.constants["thinker_context"] = 13
    assert [token.is_last for token in answer(*ask("abc"))] == [False, True]


@pytest.mark.parametrize(
    ("opening", "written", "spoken"),
    [
        ([], "abc", "abc"),
        ([], "aymnzb", "ab"),  # y opens and z closes a think block
        ([44], "mnzbc", "bc"),  # opened by the template
        ([44, 45], "abc", "abc"),
        ([], "yab", ""),
    ],
)
def test_what_the_model_thinks_is_written_and_not_spoken(fakes, opening, written, spoken):
    omni = fakes.omni()
    thinker = Thinker(
        fakes.engines,
        dataclasses.replace(omni.manifest, ids=fakes.ids | {"think_open": 44, "think_close": 45}),
        omni.model.engine_lock,
    )
    context = thinker.new_context()
    # the script has a letter for every token after the answer's start, those of the template included
    context.queue_text([1, 5, 3, *fakes.letters("k" * len(opening) + written), 2, 3, 1, 6, 3, *opening])
    tokens = answer(thinker, context)
    assert [token.id for token in tokens] == fakes.letters(written)
    assert [token.id for token in tokens if token.spoken] == fakes.letters(spoken)
