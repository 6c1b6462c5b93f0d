"""Where the text of a reply comes from: the Thinker writes it, or it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..bundle.sampling import SamplingParameters
from .thinker import Thinker, ThinkerContext, Token


class TextSource(Protocol):
    """The text of one reply."""

    @property
    def prompt_tokens(self) -> int:
        """Tokens that are prefilled before the first token of the text."""

    def tokens(self, before_run: Callable[[], int], on_step: Callable[[float], None]) -> Iterator[Token]:
        """The tokens of the text in order.

        `before_run` returns the priority of the next run of the Thinker, may wait, and may raise to stop;
        `on_step` gets the seconds of each decode run.
        """


@dataclass(frozen=True)
class ThinkerText:
    """The Thinker's answer to the turns that are queued in `context`."""

    thinker: Thinker
    context: ThinkerContext
    sampling: SamplingParameters
    seed: int

    @property
    def prompt_tokens(self) -> int:
        """See TextSource."""
        return self.context.waiting_tokens

    def tokens(self, before_run: Callable[[], int], on_step: Callable[[float], None]) -> Iterator[Token]:
        """See TextSource. Wherever the iterator stops, the context is whole and the next turn can follow."""
        return self.thinker.answer(self.context, self.sampling, self.seed, before_run, on_step)


@dataclass(frozen=True)
class GivenText:
    """A given text. All of it is spoken.

    The Thinker prefills the turns that are queued in `context`, whose hidden rows the Talker may read. It
    runs not at all where none is queued, and it never reads the text: the context ends with its prompt
    and serves no further turn.
    """

    thinker: Thinker
    context: ThinkerContext
    token_ids: Sequence[int]

    @property
    def prompt_tokens(self) -> int:
        """See TextSource."""
        return self.context.waiting_tokens

    def tokens(self, before_run: Callable[[], int], on_step: Callable[[float], None]) -> Iterator[Token]:
        """See TextSource."""
        if self.context.waiting_tokens:
            self.thinker.prefill(self.context, before_run)
        self.context.answer_row = self.context.states.length
        for token in self.token_ids:
            yield Token(token, spoken=True, is_last=False)
