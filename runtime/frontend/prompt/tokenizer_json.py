"""Read a tokenizer.json from another source. Only fields that byte-level BPE needs reach the library
`tokenizers`, since some files make it end the process.

With tokenizers 0.23.3, a very large padding is an allocation that aborts, a `continuing_subword_prefix` is a
panic, and a pre-tokenizer's pattern can take unlimited time.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from ...bundle.errors import AntiphonError
from ...bundle.json_file import read_json_object
from ...bundle.said import reason, short, short_path

REPAIR = "use the tokenizer of the checkpoint"
LARGEST_ID = 2**24 - 1
"""The largest token id. Published vocabularies have up to 262,144."""
LONGEST_TOKEN, MOST_ADDED = 200, 2**14
"""Characters of an added token, and number of added tokens. Each is searched for in every text."""
NORMALIZERS = ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents")
PRE_TOKENIZERS = ("ByteLevel", "Split", "Digits")
MOST_STEPS = 8
"""The most steps in a sequence of normalizers or pre-tokenizers."""
LONGEST_PATTERN, MOST_REPEATS = 2000, 1000
GROUP = re.compile(r"\?(?:[im]*(?:-[im]+)?[:)]|[=!>]|<[=!])")
"""Allowed text after the parenthesis of a group: no names, conditions, comments or recursion."""
COUNT = re.compile(r"\{(\d{0,9})(,?)(\d{0,9})\}")


def read_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of the file at `path`, without truncation, padding and added special tokens, which no
    prompt uses.

    Raises AntiphonError, one sentence, if `read_json_object` refuses the file, if it is not a byte-level BPE
    tokenizer, and if `tokenizers` cannot read it.
    """
    content = read_json_object(path, REPAIR)
    check_tokenizer(content, short_path(path))
    unused = {"truncation", "padding"} | (
        set() if _kind(content.get("post_processor")) == "ByteLevel" else {"post_processor"}
    )
    dropped = [name for name in unused if content.get(name) is not None]
    with one_sentence(f"{short_path(path)} cannot be read as a tokenizer"):
        return (
            Tokenizer.from_str(json.dumps({**content, **dict.fromkeys(dropped)}))
            if dropped
            else Tokenizer.from_file(str(path))
        )


@contextlib.contextmanager
def one_sentence(what: str) -> Iterator[None]:
    """Turn the errors of `tokenizers` into AntiphonError that begins with `what`. They are bare Exceptions,
    or panics that are not Exceptions.
    """
    try:
        yield
    except (AntiphonError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        raise AntiphonError(f"{what} ({reason(error)}); {REPAIR}.") from None


def check_tokenizer(content: dict[str, Any], where: str) -> None:
    """Raise AntiphonError unless `content` is a byte-level BPE tokenizer that is safe to load. `where`: the
    file's name.
    """
    model = content.get("model")
    if (
        not isinstance(model, dict)
        or model.get("type", "BPE") != "BPE"
        or not isinstance(model.get("vocab"), dict)
    ):
        raise AntiphonError(
            f"{where} holds no BPE model with its vocab; expected a byte-level BPE tokenizer, "
            f"as the Qwen models have; {REPAIR}."
        )
    check_vocabulary(model["vocab"], f"{where}: model.vocab")
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise AntiphonError(
                f"{where}: model.{name} is {short(model[name])}, expected null, "
                f"as the Qwen models have; {REPAIR}."
            )
    decoder = _kind(content.get("decoder"))
    if decoder != "ByteLevel":
        raise AntiphonError(
            f"{where} decodes by {decoder}; expected a byte-level BPE tokenizer (decoder ByteLevel), "
            f"as the Qwen models have; {REPAIR}."
        )
    for name, kinds, parts in (
        ("normalizer", NORMALIZERS, "normalizers"),
        ("pre_tokenizer", PRE_TOKENIZERS, "pretokenizers"),
    ):
        _check_steps(content.get(name), kinds, parts, f"{where}: {name}")
    added = content.get("added_tokens") or []
    if not isinstance(added, list) or len(added) > MOST_ADDED:
        raise AntiphonError(
            f"{where}: added_tokens is {short(added)}, expected a list of at most {MOST_ADDED} tokens; "
            f"{REPAIR}."
        )
    for token in added:
        check_added(token, token.get("id") if isinstance(token, dict) else None, where)


def check_vocabulary(vocabulary: dict[str, Any], where: str) -> None:
    """Raise AntiphonError unless every token of `vocabulary` has a different id in 0 .. LARGEST_ID."""
    ids = vocabulary.values()
    wrong = next(
        (
            token
            for token, index in vocabulary.items()
            if type(index) is not int or not 0 <= index <= LARGEST_ID
        ),
        None,
    )
    if wrong is not None:
        raise AntiphonError(
            f"{where} gives {short(wrong)} the id {short(vocabulary[wrong])}, expected an integer in 0 .. "
            f"{LARGEST_ID}; {REPAIR}."
        )
    if len(set(ids)) < len(vocabulary):
        raise AntiphonError(f"{where} gives two tokens the same id; {REPAIR}.")


def check_added(token: Any, index: Any, where: str) -> None:
    """Raise AntiphonError unless the added token `token` has 1 to LONGEST_TOKEN characters, and its id
    `index` is possible.
    """
    content = token.get("content") if isinstance(token, dict) else None
    if not isinstance(content, str) or not 0 < len(content) <= LONGEST_TOKEN:
        raise AntiphonError(
            f"{where} lists the added token {short(token)}, expected its content, "
            f"1 to {LONGEST_TOKEN} letters; {REPAIR}."
        )
    if type(index) is not int or not 0 <= index <= LARGEST_ID:
        raise AntiphonError(
            f"{where} gives the added token {short(content)} the id {short(index)}, "
            f"expected an integer in 0 .. {LARGEST_ID}; {REPAIR}."
        )


def _check_steps(step: Any, kinds: tuple[str, ...], parts: str, where: str) -> None:
    steps = step.get(parts) if _kind(step) == "Sequence" else [] if step is None else [step]
    if not isinstance(steps, list) or len(steps) > MOST_STEPS:
        raise AntiphonError(f"{where} is {short(step)}, expected at most {MOST_STEPS} steps; {REPAIR}.")
    for part in steps:
        if _kind(part) not in kinds:
            raise AntiphonError(
                f"{where} is of type {short(_kind(part))}, "
                f"expected {', '.join(kinds)} or a Sequence of them; {REPAIR}."
            )
        pattern = part.get("pattern")
        stated = pattern.get("Regex") if isinstance(pattern, dict) else None
        if isinstance(stated, str) and (fault := pattern_fault(stated)):
            raise AntiphonError(
                f"{where} has the pattern {short(stated)}, which {fault} and could take any time; {REPAIR}."
            )


def pattern_fault(pattern: str) -> str:
    """The reason why an Oniguruma regular expression is dangerous to run on any text, as the rest of a
    sentence; empty if there is none.

    No published tokenizer repeats a group. With a repeated group, the time of a match can be exponential in
    the text. Repetitions of characters and classes alone are polynomial, and the library stops a match after
    ten million steps.
    """
    if len(pattern) > LONGEST_PATTERN:
        return f"has more than {LONGEST_PATTERN} letters"
    place, classes, previous = 0, 0, ""
    while place < len(pattern):
        letter, before, previous = pattern[place], previous, ""
        count = COUNT.match(pattern, place)
        if letter == "\\":
            if pattern[place + 1 : place + 2] in (*"gk123456789",) and not classes:
                return "refers back to a group"
            place += 1
        elif classes or letter == "[":
            classes += (letter == "[") - (letter == "]")
        elif letter == "(":
            if pattern[place + 1 : place + 2] == "?" and not GROUP.match(pattern, place + 1):
                return "holds a group of an unusual kind"
            place += pattern[place + 1 : place + 2] == "?"
        elif letter == ")":
            previous = "group"
        elif letter in "*+" or count:
            if before == "group" or before == "count" or (before == "repeat" and letter != "+"):
                return "repeats a group or a repetition"
            if count and max(int(number or 0) for number in count.group(1, 3)) > MOST_REPEATS:
                return f"repeats more than {MOST_REPEATS} times"
            previous = "count" if count else "repeat"
            place += len(count[0]) - 1 if count else 0
        elif letter == "?":
            previous = "repeat"  # optional, or the sign of a lazy repetition
        place += 1
    return ""


def _kind(part: Any) -> Any:
    return part.get("type") if isinstance(part, dict) else None if part is None else type(part).__name__
