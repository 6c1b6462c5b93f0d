"""The ARIA cursor against word times."""

from __future__ import annotations

from antiphon.runtime.stages.aria import adaptive, chunked
from antiphon.scripts.quality.cursor import (
    Schedule,
    aligned_starts,
    cursor_errors,
    heard_starts,
    words_by_token,
)
from antiphon.scripts.quality.recognisers import Word
from antiphon.scripts.quality.synthesisers import Alignment


def test_even_speech_has_no_error_afterwards_and_a_lead_while_it_lasts() -> None:
    # ten words of two frames each, a token a word; text leads by four
    schedule = Schedule(adaptive(4, 2), 0.08, None)
    after, live = cursor_errors(schedule, [0.16 * word for word in range(10)], list(range(11)), 20)
    assert set(after) == {0}
    assert max(live) == 3


def test_an_estimate_of_frames_a_token_takes_the_lead_away() -> None:
    schedule = Schedule(chunked(4, 4), 0.08, 2.0)
    assert set(cursor_errors(schedule, [0.16 * word for word in range(10)], list(range(11)), 20)[1]) == {0}


def test_tokens_within_a_word_are_one_word_begun() -> None:
    pieces = ["fif", "ty", " one", "."]
    assert words_by_token(range(4), lambda ids: "".join(pieces[index] for index in ids)) == [0, 1, 1, 2, 2]


def test_words_that_run_together_share_their_time_by_letters() -> None:
    alignment = Alignment(2.0, ((("ðɛɹwˌʌz", 0.1), ("ɐn", 0.5), ("ˈoʊld", 1.0)),))
    starts = aligned_starts(alignment, "There was an old.")
    assert starts is not None
    assert [round(start, 3) for start in starts] == [0.1, 0.35, 0.5, 1.0]


def test_words_that_cannot_be_matched_are_left_out() -> None:
    assert aligned_starts(Alignment(1.0, ((("kˈæt", 0.0), ("kˈæt", 0.5)),)), "cat") is None


def test_heard_words_count_where_they_are_the_written_ones() -> None:
    heard = [Word("21", 0.0, 0.8), Word("plus", 1.0, 1.2)]
    assert heard_starts(heard, "Twenty one plus.") == [0.0, 0.4, 1.0]
    assert heard_starts(heard, "Twenty two plus.") is None
