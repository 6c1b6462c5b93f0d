"""Whether a text can fit into the model's context, found out without tokenising all of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

from tokenizers import Tokenizer

from ...bundle.errors import ContextFull

PIECE = 16_384
"""Characters tokenised at a time: a tokenizer takes about 200 bytes of memory for each byte of text."""
NFC_SHRINKS = 3
"""The most by which Unicode's composition (NFC), which tokenizers apply first, makes UTF-8 text shorter."""
MARGIN = 8
"""A cut between two pieces may part a word, which then has more tokens; far fewer, though, than an eighth of them all."""


class TextLimits:
    """The texts of one call against a context of so many tokens (None: any number)."""

    def __init__(self, tokenizer: Tokenizer, context: int | None) -> None:
        self._tokenizer, self._context = tokenizer, context

    @cached_property
    def longest_token(self) -> int:
        """The most bytes of text that one token stands for: every character of a byte-level token is one byte, of an added token up to four."""
        added = {token.content for token in self._tokenizer.get_added_tokens_decoder().values()}
        return max((len(token.encode() if token in added else token) for token in self._tokenizer.get_vocab()), default=1)

    def check(self, texts: Sequence[str]) -> None:
        """Raise AntiphonError for texts that surely do not fit into the context; the cheap bound first, then by counting tokens until they are too many."""
        context = self._context
        if context is None or 4 * sum(map(len, texts)) <= context:
            return
        size = sum(len(piece.encode()) for piece in _pieces(texts))
        if size <= context:  # a token has a byte at least
            return
        if size > context * self.longest_token * NFC_SHRINKS:
            raise self._refusal(size)
        tokens = 0
        for piece in _pieces(texts):
            tokens += len(self._tokenizer.encode_batch_fast([piece], add_special_tokens=False)[0].ids)
            if tokens > context + context // MARGIN:
                raise self._refusal(size)

    def _refusal(self, size: int) -> ContextFull:
        return ContextFull(f"The text has {size:,} bytes and too many tokens, the model's context holds {self._context}; shorten it.")


def _pieces(texts: Sequence[str]) -> Iterator[str]:
    return (text[start : start + PIECE] for text in texts for start in range(0, len(text), PIECE))
