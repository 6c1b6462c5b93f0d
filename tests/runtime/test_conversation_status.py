"""The table of legal moves, by itself and as a conversation keeps it."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from antiphon.runtime.bundle.errors import AntiphonError, Busy, InvalidInput
from antiphon.runtime.conversation_status import (
    IN_FLIGHT,
    MOVES,
    NO_ANSWER,
    NO_QUESTION,
    NOT_ENDED,
    Move,
    Status,
    after,
    check,
)


@given(moves=st.lists(st.sampled_from(Move), max_size=20))
def test_every_sequence_of_moves_follows_the_table_or_is_refused_with_its_sentence(moves: list[Move]) -> None:
    status = Status.NEW
    for move in moves:
        rule = MOVES[move]
        if status in rule.sources:
            status = after(status, move)
            assert status is rule.target
        else:
            with pytest.raises(InvalidInput) as refused:
                after(status, move)
            assert str(refused.value) == rule.refusals.get(status, rule.refusal)


@pytest.mark.parametrize("move", Move)
def test_nothing_is_legal_while_a_reply_is_in_flight(move: Move) -> None:
    with pytest.raises(Busy, match=IN_FLIGHT):
        check(Status.BUSY, move)


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.BUSY])
def test_every_status_can_be_reached_and_left(status: Status) -> None:
    assert status is Status.NEW or any(rule.target is status for rule in MOVES.values())
    assert any(status in rule.sources for rule in MOVES.values())


CALLS = {
    Move.APPEND: lambda one: one.append(text="abc"),
    Move.SPEAK: lambda one: list(one.reply(max_frames=2)),
    Move.WRITE: lambda one: list(one.reply(modalities=("text",))),
    Move.TRUNCATE: lambda one: one.truncate(0),
}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=st.lists(st.sampled_from([*CALLS]), max_size=8))
def test_a_conversation_keeps_the_table_and_an_illegal_move_changes_nothing(fakes, moves: list[Move]) -> None:
    conversation = fakes.omni().conversation()
    for move in moves:
        before, history, ids = conversation.status, conversation.history, conversation.token_ids
        try:
            check(before, move)
        except AntiphonError as refused:
            with pytest.raises(type(refused)) as found:
                CALLS[move](conversation)
            assert str(found.value) == str(refused)
            assert (conversation.status, conversation.history, conversation.token_ids) == (
                before,
                history,
                ids,
            )
        else:
            CALLS[move](conversation)
            assert conversation.status is MOVES[move].target


def test_a_reply_in_flight_makes_a_conversation_busy_until_it_is_closed(fakes) -> None:
    fakes.engines["talker"].tail = None
    conversation = fakes.omni().conversation()
    conversation.append(text="abc")
    stream = conversation.reply()
    assert conversation.status is Status.BUSY
    for call in CALLS.values():
        with pytest.raises(Busy, match=IN_FLIGHT):
            call(conversation)
    stream.close()
    assert conversation.status is Status.SPOKEN


def test_the_sentences_name_what_to_do_first() -> None:
    for status, move, sentence in (
        (Status.NEW, Move.SPEAK, NO_QUESTION),
        (Status.LISTENING, Move.WRITE, NOT_ENDED),
        (Status.WRITTEN, Move.TRUNCATE, NO_ANSWER),
    ):
        with pytest.raises(InvalidInput, match=sentence):
            check(status, move)
