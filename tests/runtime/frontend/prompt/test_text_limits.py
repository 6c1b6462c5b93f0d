from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import antiphon
from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.frontend.prompt.text_limits import TextLimits
from antiphon.runtime.frontend.prompt.tokenizer import load_tokenizer

TOKENIZER = load_tokenizer(Path(antiphon.__path__[0]) / "graphs" / "pretrained" / "tiny" / "tokenizer.json")
PIECES = st.one_of(
    st.text(min_size=1, max_size=40),
    st.sampled_from(["The quick brown fox. ", "aaaa", " " * 30, "\n\n", "e\u0301", "\u1112\u1161\u11ab"]),
)


def tokens(text: str) -> int:
    return len(TOKENIZER.encode(text, add_special_tokens=False).ids)


@given(st.lists(st.tuples(PIECES, st.integers(1, 400)), min_size=1, max_size=4))
def test_what_fits_is_never_refused(parts: list[tuple[str, int]]) -> None:
    text = "".join(piece * count for piece, count in parts)
    TextLimits(TOKENIZER, tokens(text)).check([text])


@given(st.lists(st.tuples(PIECES, st.integers(1, 400)), min_size=1, max_size=4))
def test_no_token_has_more_bytes_than_the_bound_says(parts: list[tuple[str, int]]) -> None:
    text = "".join(piece * count for piece, count in parts)
    assert len(text.encode()) <= 3 * TextLimits(TOKENIZER, None).longest_token * tokens(text)


@pytest.mark.parametrize("texts", [["a b " * 5000], ["a"] * 20_000, ["\u4f60" * 8000]])
def test_what_is_far_too_long_is_refused(texts: list[str]) -> None:
    with pytest.raises(
        AntiphonError,
        match="The text has .* bytes and too many tokens, the model's context holds 1000; shorten it",
    ):
        TextLimits(TOKENIZER, 1000).check(texts)
    TextLimits(TOKENIZER, None).check(texts)


def test_counting_stops_once_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting:
        pieces = 0

        def __getattr__(self, name: str) -> object:
            return getattr(TOKENIZER, name)

        def encode_batch_fast(self, texts: list[str], **options: bool) -> object:
            self.pieces += 1
            return TOKENIZER.encode_batch_fast(texts, **options)

    counting = Counting()
    monkeypatch.setattr(TextLimits, "longest_token", 10**6)
    with pytest.raises(AntiphonError):
        TextLimits(counting, 10_000).check(["ab " * 1_000_000])  # type: ignore[arg-type]
    assert counting.pieces < 4
