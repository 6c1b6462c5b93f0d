"""Find out whether a text can fit into the model's context, without tokenising all of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

from tokenizers import Tokenizer

from ...bundle.errors import ContextFull

PIECE = 16_384
"""Characters tokenised at a time. A tokenizer takes about 200 bytes of memory for each byte of text."""
NFC_SHRINKS = 3
"""The largest factor by which Unicode composition (NFC) shortens UTF-8 text. Tokenizers apply it first."""
MARGIN = 8
"""A cut between two pieces may split a word, which adds tokens: always far fewer than an eighth of all
tokens.
"""


class TextLimits:
    """Checks the texts of one call against a context of `context` tokens (None: any number)."""

    def __init__(self, tokenizer: Tokenizer, context: int | None) -> None:
        self._tokenizer, self._context = tokenizer, context

    @cached_property
    def longest_token(self) -> int:
        """The most bytes of text in one token. A character of a byte-level token is one byte; one of an added
        token has up to four.
        """
        added = {token.content for token in self._tokenizer.get_added_tokens_decoder().values()}
        return max(
            (len(token.encode() if token in added else token) for token in self._tokenizer.get_vocab()),
            default=1,
        )

    def check(self, texts: Sequence[str]) -> None:
        """Raise AntiphonError for texts that certainly do not fit into the context.

        Applies a cheap bound first, and then counts tokens until there are too many.
        """
        context = self._context
        if context is None or 4 * sum(map(len, texts)) <= context:
            return
        size = sum(len(piece.encode()) for piece in _pieces(texts))
        if size <= context:  # a token has at least one byte
            return
        if size > context * self.longest_token * NFC_SHRINKS:
            raise self._refusal(size)
        tokens = 0
        for piece in _pieces(texts):
            tokens += len(self._tokenizer.encode_batch_fast([piece], add_special_tokens=False)[0].ids)
            if tokens > context + context // MARGIN:
                raise self._refusal(size)

    def _refusal(self, size: int) -> ContextFull:
        return ContextFull(
            f"The text has {size:,} bytes and too many tokens, the model's context holds {self._context}; "
            "shorten it."
        )


def _pieces(texts: Sequence[str]) -> Iterator[str]:
    return (text[start : start + PIECE] for text in texts for start in range(0, len(text), PIECE))
