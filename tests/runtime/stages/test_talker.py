from __future__ import annotations

import numpy as np
import pytest

from antiphon.runtime.bundle.manifest import Manifest, ModelConstants
from antiphon.runtime.bundle.sampling import SamplingParameters
from antiphon.runtime.scheduling.engine_lock import NORMAL, EngineLock
from antiphon.runtime.stages.aria import dual_track
from antiphon.runtime.stages.noise import uniform
from antiphon.runtime.stages.talker import Talker
from antiphon.runtime.stages.talker_rows.joined_prompt import talker_prompt
from antiphon.runtime.stages.talker_rows.rows import SummedRows


@pytest.fixture
def make(fakes):
    def make_talker(seed=4, chunk=512, priority=lambda: NORMAL):
        ids = [1, 5, 3, 20, 7, 7, 2, 3, 1, 6, 3]
        hidden = {4: np.ones(2, np.float32), 5: np.full(2, 2, np.float32)}
        manifest = Manifest(
            "fake",
            "0",
            "cpu",
            "fp32",
            {},
            fakes.ids,
            ModelConstants(**fakes.constants),
            {},
            talker=fakes.contract,
        )
        rows = SummedRows(
            lambda first: talker_prompt(ids, hidden, 2, [], fakes.ids, 38, first, fakes.front_end(), 1),
            fakes.ids["tts_pad"],
        )
        return Talker(
            fakes.engines,
            manifest,
            EngineLock(),
            rows,
            dual_track(),
            SamplingParameters(0.9, 50, 1.0, 1.05),
            SamplingParameters(1.0, 50, 0.8),
            seed,
            priority,
            chunk,
        )

    return make_talker


def test_a_step_adds_the_text_row_to_the_row_of_the_last_frame(fakes, make):
    talker = make()
    first = talker.step([50], True)
    talker.step([51], True)
    talker.step([], True)
    prefill, second, third = fakes.engines["talker"].feeds
    assert prefill["text_ids"].shape == (1, 17) and prefill["frame_rows"].shape == (0, 1)
    assert second["text_ids"].tolist() == [[51]] and third["text_ids"].tolist() == [[fakes.ids["tts_pad"]]]
    assert second["codec_ids"].tolist() == [[-1]] and second["hidden"].shape == (0, 2)
    assert second["frame_rows"].tolist() == [[first.sum()]] and second["frame_index"].tolist() == [0]


def test_positions_and_lengths_go_on_by_one_after_the_prompt(fakes, make):
    talker = make()
    for _ in range(3):
        talker.step([50], True)
    assert [feeds["positions"][:, 0, -1].tolist() for feeds in fakes.engines["talker"].feeds] == [
        [16.0] * 3,
        [17.0] * 3,
        [18.0] * 3,
    ]
    assert [int(feeds["past_length"][0]) for feeds in fakes.engines["talker"].feeds] == [0, 17, 18]


@pytest.mark.parametrize("chunk", [1, 4, 5, 16])
def test_a_prompt_read_in_chunks_gives_the_same_codes(make, chunk):
    whole, pieces = make(), make(chunk=chunk)
    assert [whole.step([50], True).tolist() for _ in range(3)] == [
        pieces.step([50], True).tolist() for _ in range(3)
    ]


def test_every_draw_has_the_noise_of_its_frame_and_codebook(fakes, make):
    talker = make(seed=9)
    for _ in range(2):
        talker.step([50], True)
    assert [feeds["noise"][0] for feeds in fakes.engines["talker"].feeds] == [
        uniform(9, 1, frame) for frame in range(2)
    ]
    for frame, feeds in enumerate(fakes.engines["predictor"].feeds):
        assert np.array_equal(feeds["noise"][0], uniform(9, 2, frame, np.arange(1, 4)))


def test_the_predictor_gets_the_hidden_row_and_code_of_its_own_frame(fakes, make):
    codes = make().step([50], True)
    feeds = fakes.engines["predictor"].feeds[0]
    assert feeds["code0"][0] == codes[0] and feeds["hidden"][0, 0] == codes[0] + 0.5


def test_only_codes_and_the_end_are_allowed_and_the_end_not_before_the_first_frame(fakes, make):
    talker = make()
    talker.step([50], True)
    talker.step([50], True)
    talker.step([50], False)
    first, second, third = (feeds["suppressed"][0] for feeds in fakes.engines["talker"].feeds)
    end = fakes.ids["codec_eos"]
    assert not first[:32].any() and first[32:].all()
    assert not second[end] and second[32:].sum() == 15
    assert third[32:].all()


def test_the_repetition_penalty_sees_the_first_codes_of_earlier_frames_alone(fakes, make):
    talker = make()
    seen = [int(talker.step([50], True)[0]) for _ in range(3)]
    masks = [set(np.flatnonzero(feeds["penalised"][0])) for feeds in fakes.engines["talker"].feeds]
    assert masks == [set(), {seen[0]}, set(seen[:2])]
    assert fakes.engines["talker"].feeds[0]["repetition_penalty"][0] == np.float32(1.05)


def test_the_end_runs_no_predictor(fakes, make):
    talker = make()
    talker.step([50], True)
    talker.step([fakes.ids["tts_eos"]], True)
    while talker.step([], True) is not None:
        pass
    assert talker.ended and len(fakes.engines["talker"].feeds) == len(fakes.engines["predictor"].feeds) + 1


def test_cancelling_stops_between_the_talker_and_its_predictor(fakes, make):
    asked = []

    def priority() -> int:
        asked.append(1)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return NORMAL

    with pytest.raises(KeyboardInterrupt):
        make(priority=priority).step([50], True)
    assert not fakes.engines["predictor"].feeds


def test_speech_stops_as_at_a_limit_when_the_context_has_no_room_for_the_next_rows(fakes, make):
    fakes.constants["talker_context"] = 19
    talker = make()
    assert [talker.step([50], True) is None for _ in range(4)] == [False, False, False, True]
    assert not talker.ended and len(fakes.engines["talker"].feeds) == 3
