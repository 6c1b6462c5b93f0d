"""What may happen next in a conversation: its statuses and the table of legal moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

from .bundle.errors import Busy, InvalidInput


class Status(Enum):
    """Where a conversation stands."""

    NEW = auto()
    """Nothing was appended yet."""
    ASKED = auto()
    """A turn waits for an answer."""
    LISTENING = auto()
    """A user's turn is being spoken: its sound is appended in pieces."""
    SPOKEN = auto()
    """The last turn is an answer with speech, which can be cut to what was heard."""
    WRITTEN = auto()
    """The last turn is an answer without speech, or one that was cut."""
    BUSY = auto()
    """A reply is in flight, or another call runs."""


class Move(Enum):
    """What a caller asks of a conversation."""

    APPEND = auto()
    """Add whole turns."""
    LISTEN = auto()
    """Add a piece of the turn that is being spoken; the first one begins it."""
    END_TURN = auto()
    """End the turn that is being spoken."""
    SPEAK = auto()
    """Answer with speech."""
    WRITE = auto()
    """Answer in text alone."""
    TRUNCATE = auto()
    """Cut the last answer to what was heard."""


ANSWERED = frozenset((Status.SPOKEN, Status.WRITTEN))
"""The last turn is an answer. Its end is queued with what follows it."""

IN_FLIGHT = "A reply of this conversation is in flight; finish or close it first."
IS_SPOKEN = (
    "A turn is being spoken; give further audio, end it with an append without more, "
    "and then append the rest."
)
NOT_ENDED = "A turn is being spoken; end it with an append without more before asking for a reply."
NO_QUESTION = "There is nothing to answer; append a turn before asking for a reply."
NO_TURN = "No turn is being spoken; begin one with audio and more."
NO_ANSWER = (
    "There is no spoken answer to truncate; "
    "truncate after a reply with speech and before the next turn is appended."
)


@dataclass(frozen=True)
class Rule:
    """When a move is legal, where it leads, and what is said otherwise."""

    sources: frozenset[Status]
    target: Status
    refusal: str
    """The sentence in every status that is neither in `sources` nor in `refusals`."""
    refusals: Mapping[Status, str]


def _rule(sources: tuple[Status, ...], target: Status, refusal: str, **refusals: str) -> Rule:
    return Rule(
        frozenset(sources), target, refusal, {Status[name]: sentence for name, sentence in refusals.items()}
    )


_AT_REST = (Status.NEW, Status.ASKED, Status.SPOKEN, Status.WRITTEN)

MOVES: Mapping[Move, Rule] = {
    Move.APPEND: _rule(_AT_REST, Status.ASKED, IS_SPOKEN),
    Move.LISTEN: _rule((*_AT_REST, Status.LISTENING), Status.LISTENING, IS_SPOKEN),
    Move.END_TURN: _rule((Status.LISTENING,), Status.ASKED, NO_TURN),
    Move.SPEAK: _rule((Status.ASKED,), Status.SPOKEN, NO_QUESTION, LISTENING=NOT_ENDED),
    Move.WRITE: _rule((Status.ASKED,), Status.WRITTEN, NO_QUESTION, LISTENING=NOT_ENDED),
    Move.TRUNCATE: _rule((Status.SPOKEN,), Status.WRITTEN, NO_ANSWER),
}
"""No move is legal while a conversation is BUSY: that raises Busy with IN_FLIGHT,
everything else that is illegal InvalidInput.
"""


def check(status: Status, move: Move) -> None:
    """Raise Busy or InvalidInput with the sentence of the table where `move` is illegal in `status`."""
    rule = MOVES[move]
    if status is Status.BUSY:
        raise Busy(IN_FLIGHT)
    if status not in rule.sources:
        raise InvalidInput(rule.refusals.get(status, rule.refusal))


def after(status: Status, move: Move) -> Status:
    """The status that `move` leads to. Raises as `check` where it is illegal."""
    check(status, move)
    return MOVES[move].target
