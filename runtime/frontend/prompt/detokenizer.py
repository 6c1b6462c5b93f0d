"""Text from token ids as they come, never splitting a character."""

from __future__ import annotations

import codecs
from functools import cache

from tokenizers import Tokenizer


@cache
def byte_alphabet() -> dict[str, int]:
    """The 256 printable characters that byte-level BPE writes for bytes, and the byte each stands for (GPT-2's table)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}


class IncrementalDecoder:
    """Decodes one answer token by token; the pieces joined equal the decoding of the whole.

    A character whose bytes are spread over several tokens is returned with the last of them. U+FFFD appears only for bytes that no
    later token could complete. Holds state: one decoder per answer.
    """

    def __init__(self, tokenizer: Tokenizer, special_ids: frozenset[int]) -> None:
        self._tokenizer, self._special_ids = tokenizer, special_ids
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """The text that `token_id` completes: "" for special tokens, ids outside the vocabulary and unfinished characters."""
        token = None if token_id in self._special_ids else self._tokenizer.id_to_token(int(token_id))
        return "" if token is None else self._utf8.decode(_token_bytes(token))

    def flush(self) -> str:
        """What is left at the end of the answer: "" or, where a character was never finished, U+FFFD."""
        return self._utf8.decode(b"", final=True)


def _token_bytes(token: str) -> bytes:
    alphabet = byte_alphabet()
    # Added tokens are stored as plain text; one with a character outside the alphabet (a space, say) stands for itself.
    return bytes(alphabet[character] for character in token) if all(character in alphabet for character in token) else token.encode()
