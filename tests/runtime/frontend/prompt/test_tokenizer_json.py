"""A tokenizer.json of others: what the library would not survive never reaches it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.frontend.prompt.tokenizer import PROBE, ChatTokenizer
from antiphon.runtime.frontend.prompt.tokenizer_json import (
    check_tokenizer,
    one_sentence,
    pattern_fault,
    read_tokenizer,
)

QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| "
    r"?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN3_5 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| "
    r"?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT2 = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| "
    r"?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT4O = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}]*[\p{Ll}\p{Lm}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| "
    r"?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.fixture
def content(tiny_checkpoint: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((tiny_checkpoint / "tokenizer.json").read_text())
    return loaded


def put(*keys: Any) -> Callable[[Any, Any], None]:
    def change(content: Any, value: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    "pattern",
    [QWEN2, QWEN3_5, GPT2, LLAMA3, GPT4O, r"[(a+)+]x", r"\(a+\)+", r"(?:a|b)?c*?", r"a++", "[a[b]+]{2}"],
)
def test_published_and_harmless_patterns_pass(pattern: str) -> None:
    assert pattern_fault(pattern) == ""


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        ("(a+)+", "repeats a group"),
        ("(?:a|b)*", "repeats a group"),
        ("(ab){2,}", "repeats a group"),
        (r"(a)\1", "refers back"),
        (r"\k<x>", "refers back"),
        (r"\g<0>", "refers back"),
        ("a{5000}", "more than 1000 times"),
        ("a{0,5000}", "more than 1000 times"),
        ("a{9}{9}", "a repetition"),
        ("a+*", "a repetition"),
        ("a?{9}", "a repetition"),
        ("(?<x>a)", "unusual kind"),
        ("(?~a)", "unusual kind"),
        ("(?x) a", "unusual kind"),
        ("(?#a)b", "unusual kind"),
        ("a" * 2001, "more than 2000 letters"),
    ],
)
def test_patterns_that_could_take_any_time_are_named(pattern: str, fault: str) -> None:
    assert fault in pattern_fault(pattern)


@pytest.mark.parametrize(
    ("change", "value", "said"),
    [
        (put("model"), None, "holds no BPE model"),
        (put("model", "type"), "Unigram", "holds no BPE model"),
        (put("model", "vocab"), [], "holds no BPE model"),
        (put("model", "vocab", "!"), 1.5, "gives '!' the id 1.5, expected an integer"),
        (put("model", "vocab", "!"), 2**24, "expected an integer in 0"),
        (put("model", "vocab", "!"), True, "the id True"),
        (put("model", "vocab", "!"), 1, "two tokens the same id"),
        (put("model", "continuing_subword_prefix"), "##", "continuing_subword_prefix is '##', expected null"),
        (put("model", "dropout"), 0.5, "dropout is 0.5"),
        (put("decoder"), None, "decodes by None"),
        (put("decoder"), {"type": "Metaspace"}, "decodes by Metaspace"),
        (put("decoder"), 7, "decodes by int"),
        (put("normalizer"), {"type": "Precompiled"}, "normalizer is of type 'Precompiled', expected NFC"),
        (
            put("normalizer"),
            {"type": "Sequence", "normalizers": [{"type": "Strip"}]},
            "normalizer is of type 'Strip'",
        ),
        (put("normalizer"), {"type": "Sequence", "normalizers": [{"type": "NFC"}] * 9}, "at most 8 steps"),
        (
            put("pre_tokenizer"),
            {"type": "Split", "pattern": {"Regex": "(a|b)+"}},
            r"pattern '\(a|b\)\+', which repeats a group",
        ),
        (
            put("pre_tokenizer"),
            {"type": "Sequence", "pretokenizers": [{"type": "Sequence"}]},
            "pre_tokenizer is of type 'Sequence'",
        ),
        (put("added_tokens"), {}, None),
        (put("added_tokens"), 7, "added_tokens is 7"),
        (put("added_tokens", 0), {"id": 3}, "added token a dict of 1"),
        (put("added_tokens", 0, "content"), "x" * 201, "1 to 200 letters"),
        (put("added_tokens", 0, "id"), -1, "the id -1"),
    ],
)
def test_what_no_byte_level_bpe_has_is_named(
    content: dict[str, Any], change: Any, value: Any, said: str | None
) -> None:
    change(content, value)
    if said is None:
        check_tokenizer(content, "tokenizer.json")
        return
    with pytest.raises(AntiphonError, match=said) as caught:
        check_tokenizer(content, "tokenizer.json")
    assert str(caught.value).startswith("tokenizer.json") and len(str(caught.value)) < 300


def test_truncation_padding_and_tokens_around_a_text_are_left_out(
    content: dict[str, Any], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    content["truncation"] = {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0}
    content["padding"] = {
        "strategy": {"Fixed": 9},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "!",
    }
    text, other, mark = (
        {"Sequence": {"id": "A", "type_id": 0}},
        {"Sequence": {"id": "B", "type_id": 1}},
        {"SpecialToken": {"id": "!", "type_id": 0}},
    )
    special = {"!": {"id": "!", "ids": [0], "tokens": ["!"]}}
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [mark, text],
        "pair": [text, other],
        "special_tokens": special,
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    plain = read_tokenizer(tiny_checkpoint / "tokenizer.json").encode("one two three").ids
    assert read_tokenizer(tmp_path / "tokenizer.json").encode("one two three").ids == plain


class Panic(BaseException):
    """As a panic of the library arrives: no Exception."""


def test_a_panic_is_one_sentence_and_an_interrupt_stays_one() -> None:
    with (
        pytest.raises(
            AntiphonError,
            match=r"^It failed \(slice index x+\.\.\.\); use the tokenizer of the checkpoint\.$",
        ) as caught,
        one_sentence("It failed"),
    ):
        raise Panic("slice\n index " + "x" * 1000)
    assert len(str(caught.value)) < 300
    with pytest.raises(KeyboardInterrupt), one_sentence("It failed"):
        raise KeyboardInterrupt


def test_a_tokenizer_that_fails_while_it_encodes_is_one_sentence(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def encode(self, text: str, add_special_tokens: bool) -> Any:
            raise Panic("gave up")

    tokenizer = ChatTokenizer(tiny_checkpoint / "tokenizer.json", "{{ messages }}", {})
    monkeypatch.setattr(tokenizer, "_tokenizer", Broken())
    with pytest.raises(AntiphonError, match=r"The tokenizer cannot encode the text \(gave up\)"):
        tokenizer.encode_text(PROBE)
