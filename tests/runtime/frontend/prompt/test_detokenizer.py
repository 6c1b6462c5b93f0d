from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from antiphon.runtime.frontend.prompt.detokenizer import IncrementalDecoder
from antiphon.runtime.frontend.prompt.front_end import FrontEnd

SCRIPTS = {
    "latin": (0x20, 0x17F),
    "greek": (0x370, 0x3FF),
    "cyrillic": (0x400, 0x4FF),
    "arabic": (0x600, 0x6FF),
    "devanagari": (0x900, 0x97F),
    "thai": (0xE01, 0xE5B),
    "hangul": (0xAC00, 0xD7A3),
    "kana": (0x3041, 0x30FF),
    "han": (0x4E00, 0x9FFF),
    "georgian": (0x10A0, 0x10FF),
    "emoji": (0x1F300, 0x1FAFF),
}
letters = st.one_of(
    [
        st.characters(min_codepoint=low, max_codepoint=high, exclude_categories=("Cs", "Cn"))
        for low, high in SCRIPTS.values()
    ]
)
texts = st.text(st.one_of(letters, st.sampled_from(" \n👩\u200d👩\u200d👧🏽é")), max_size=60)

SENTENCES = {
    "latin": "Ça va, naïve façade; Ελ? smørrebrød ½ ﬂuß!",
    "cyrillic": "Съешь ещё этих мягких французских булок.",
    "greek": "Ξεσκεπάζω τὴν ψυχοφθόρα βδελυγμία.",
    "arabic": "نصٌّ حكيمٌ له سرٌّ قاطعٌ ١٢٣.",
    "hebrew": "דָּג סַקְרָן שָׁט בַּיָּם.",
    "devanagari": "ऋषियों को सताने वाले दुष्ट राक्षसों।",
    "thai": "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า",
    "chinese": "我能吞下玻璃而不伤身体，𠮷野家。",
    "japanese": "いろはにほへど、チリヌルヲ。ｶﾞ",
    "korean": "다람쥐 헌 쳇바퀴에 타고파 ᄒᆞᆫ글",
    "emoji with joiners": (
        "👩\u200d👩\u200d👧\u200d👦 👨🏿\u200d🚀 🏳️\u200d🌈 🇰🇷 1️⃣ "
        "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
    ),
    "a replacement character of its own": "what \ufffd is",
}


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint) -> Tokenizer:
    return Tokenizer.from_file(str(tiny_checkpoint / "tokenizer.json"))


@settings(max_examples=300, deadline=None)
@given(text=texts)
def test_deltas_join_to_the_full_decoding_and_never_split_a_character(
    front_end: FrontEnd, tokenizer: Tokenizer, text: str
) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    decoder = front_end.decoder()
    deltas = [*map(decoder.push, ids), decoder.flush()]
    assert "".join(deltas) == front_end.decode(ids)
    assert not any("\ufffd" in delta for delta in deltas)


@pytest.mark.parametrize("sentence", SENTENCES.values(), ids=SENTENCES)
def test_any_script_streams_cleanly(front_end: FrontEnd, tokenizer: Tokenizer, sentence: str) -> None:
    composed = unicodedata.normalize("NFC", sentence)
    decoder, text = front_end.decoder(), ""
    for index in tokenizer.encode(sentence, add_special_tokens=False).ids:
        delta = decoder.push(index)
        delta.encode("utf-8")
        # so a replacement character comes only where the text has one
        assert composed.startswith(text + delta)
        text += delta
    assert text + decoder.flush() == composed


@settings(max_examples=200, deadline=None)
@given(sentences=st.lists(st.sampled_from(list(SENTENCES.values())), max_size=4), cut=st.integers(0, 400))
def test_an_answer_cut_anywhere_is_a_beginning_of_the_whole(
    front_end: FrontEnd, tokenizer: Tokenizer, sentences: list[str], cut: int
) -> None:
    whole = unicodedata.normalize("NFC", " ".join(sentences))
    decoder = front_end.decoder()
    text = "".join(map(decoder.push, tokenizer.encode(whole, add_special_tokens=False).ids[:cut]))
    assert whole.startswith(text) and decoder.flush() in ("", "\ufffd")


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.integers(0, 2100), max_size=40))
def test_deltas_join_to_the_full_decoding_when_the_bytes_are_broken(
    front_end: FrontEnd, ids: list[int]
) -> None:
    decoder = front_end.decoder()
    assert "".join([*map(decoder.push, ids), decoder.flush()]) == front_end.decode(ids)


def test_an_unfinished_character_comes_out_at_the_end_only(front_end: FrontEnd, tokenizer: Tokenizer) -> None:
    first_byte = tokenizer.token_to_id("ð")  # 0xF0, the first of four bytes
    decoder = front_end.decoder()
    assert decoder.push(first_byte) == "" and decoder.flush() == "\ufffd"


def test_special_tokens_and_unknown_ids_give_no_text(front_end: FrontEnd) -> None:
    decoder = front_end.decoder()
    assert [
        decoder.push(index) for index in (front_end.im_start, front_end.im_end, front_end.audio, 10**6)
    ] == [""] * 4
    assert decoder.flush() == ""


def test_a_special_token_between_the_bytes_of_a_character_does_not_break_it(
    front_end: FrontEnd, tokenizer: Tokenizer
) -> None:
    ids = tokenizer.encode("𒀀", add_special_tokens=False).ids
    assert len(ids) > 1
    decoder = front_end.decoder()
    assert "".join(map(decoder.push, [ids[0], front_end.im_end, *ids[1:]])) == "𒀀"


def test_an_added_token_with_a_space_stands_for_itself() -> None:
    from tokenizers import AddedToken, decoders, models

    tokenizer = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken("<a b>", special=False)])
    decoder = IncrementalDecoder(tokenizer, frozenset())
    assert decoder.push(1) + decoder.push(0) == tokenizer.decode([1, 0]) == "<a b>a"
