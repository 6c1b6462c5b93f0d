"""Decode token ids to text one at a time, without splitting a character."""

from __future__ import annotations

import codecs
from functools import cache

from tokenizers import Tokenizer


@cache
def byte_alphabet() -> dict[str, int]:
    """The 256 printable characters that byte-level BPE uses for bytes, and the byte of each (GPT-2's
    table).
    """
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {
        chr(256 + index): byte for index, byte in enumerate(others)
    }


class IncrementalDecoder:
    """Decodes one answer token by token; the joined pieces equal the decoding of the whole.

    A character whose bytes are spread over several tokens is returned with the last of them. U+FFFD appears
    only for bytes that no later token can complete. The decoder has state, so each answer needs its own.
    """

    def __init__(self, tokenizer: Tokenizer, special_ids: frozenset[int]) -> None:
        self._tokenizer, self._special_ids = tokenizer, special_ids
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """The text that `token_id` completes: "" for special tokens, unknown ids and unfinished
        characters.
        """
        token = None if token_id in self._special_ids else self._tokenizer.id_to_token(int(token_id))
        return "" if token is None else self._utf8.decode(_token_bytes(token))

    def flush(self) -> str:
        """The rest at the end of the answer: "", or U+FFFD if a character is unfinished."""
        return self._utf8.decode(b"", final=True)


def _token_bytes(token: str) -> bytes:
    alphabet = byte_alphabet()
    # Added tokens are stored as plain text. A token with a character outside the alphabet (such as a space)
    # is one of them.
    return (
        bytes(alphabet[character] for character in token)
        if all(character in alphabet for character in token)
        else token.encode()
    )
