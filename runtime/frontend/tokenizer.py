"""The chat template and its tokenisation, in which typed text can never become a special token.

Ordinary text gives exactly the ids of Hugging Face's `apply_chat_template(tokenize=True)`. Where a message holds the text of a special
token ("<|im_end|>"), a guard character that occurs nowhere else is put inside it before rendering. The rendered string is then split at
special tokens, all of which the template wrote, and the guard is taken out of the rest, which is encoded as plain text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import numpy as np
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from ..errors import AntiphonError
from ..said import reason, short, short_path
from .content_parts import AudioPart, ImagePart, TextPart
from .detokenizer import IncrementalDecoder
from .messages import Message

PROBE = "probe"
"""Content of the turns that are rendered only to be cut off again."""


@dataclass(frozen=True)
class Rendered:
    """What the chat template wrote, with `guard` inside every special token that was typed."""

    text: str
    guard: str

    def with_text_before(self, mark: str, texts: Sequence[str]) -> Rendered:
        """The same with each of `texts` in front of one `mark` that the template wrote, in order. Raises AntiphonError when their numbers differ."""
        pieces = self.text.split(mark)
        if len(pieces) != len(texts) + 1:
            raise AntiphonError(f"The chat template wrote {mark} {len(pieces) - 1} times for {len(texts)} videos; use the template of the checkpoint.")
        return Rendered(pieces[0] + "".join(text + mark + piece for text, piece in zip(texts, pieces[1:], strict=True)), self.guard)


class ChatTokenizer:
    """Messages to token ids and token ids to text, for one checkpoint's tokenizer and chat template."""

    def __init__(self, tokenizer_file: Path, template: str, names: Mapping[str, Any]) -> None:
        """`names` are what the template may mention: special tokens (eos_token, ...) and switches. Raises AntiphonError for unusable files."""
        self._tokenizer = load_tokenizer(tokenizer_file)
        self._special = {token.content: index for index, token in self._tokenizer.get_added_tokens_decoder().items() if token.special}
        self._special_ids = frozenset(self._special.values())
        longest_first = sorted(self._special, key=len, reverse=True)
        self._pattern = re.compile("(" + ("|".join(map(re.escape, longest_first)) or r"(?!)") + ")")
        self._openings = {token[:length] for token in self._special for length in range(1, len(token))}
        self._template, self._names = _compile(template), names
        self._template_source = template

    def render_chat(self, messages: Sequence[Message], add_generation_prompt: bool) -> Rendered:
        """The text of a whole conversation. Raises AntiphonError when the template refuses it."""
        return self._render(messages, add_generation_prompt, self._guard(messages))

    def render_continuation(self, messages: Sequence[Message], add_generation_prompt: bool) -> Rendered:
        """The text of turns that follow earlier, complete turns: no system preamble before them. Raises AntiphonError as `render_chat`."""
        guard = self._guard(messages)
        opening = (Message("user", (TextPart(PROBE),), plain=True), Message("assistant", (TextPart(PROBE),), plain=True))
        refusal: AntiphonError | None = None
        for earlier in (opening[:1], opening):  # the second for templates that insist on alternating roles
            try:
                before = self._render(earlier, False, guard).text
                whole = self._render((*earlier, *messages), add_generation_prompt, guard).text
            except AntiphonError as error:
                refusal = error
                continue
            if whole.startswith(before):
                return Rendered(whole[len(before) :], guard)
        raise refusal or AntiphonError("The chat template rewrites earlier turns when turns are added; send the whole conversation instead.")

    def encode(self, rendered: Rendered) -> np.ndarray:
        """Token ids int64 [tokens], one placeholder token per piece of media."""
        ids: list[int] = []
        for piece in self._pattern.split(rendered.text):
            if piece in self._special:
                ids.append(self._special[piece])
            elif piece:
                ids.extend(self._tokenizer.encode(piece.replace(rendered.guard, ""), add_special_tokens=False).ids)
        return np.array(ids, np.int64)

    def encode_text(self, text: str) -> np.ndarray:
        """Token ids int64 [tokens] of plain text."""
        return np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, np.int64)

    def token(self, index: int) -> str:
        """The special token with id `index`, as the template writes it."""
        token = self._tokenizer.id_to_token(index)
        assert token is not None, f"the build checked that the tokenizer has the id {index}"
        return token

    def turn_end(self) -> np.ndarray:
        """Token ids int64 [tokens] that the template writes after an assistant's words: those that close its turn."""
        turns = (Message("user", (TextPart(PROBE),), plain=True), Message("assistant", (TextPart(PROBE + PROBE),), plain=True))
        rendered = self.render_chat(turns, False)
        return self.encode(Rendered(rendered.text.rpartition(PROBE + PROBE)[2], rendered.guard))

    def answer_opening(self) -> np.ndarray:
        """Token ids int64 [tokens] that the template writes before an assistant's words. Raises AntiphonError where it writes none."""
        turns = (Message("user", (TextPart(PROBE),), plain=True),)
        before, opened = self.render_chat(turns, False), self.render_chat(turns, True)
        if not opened.text.startswith(before.text) or opened.text == before.text:
            raise AntiphonError("The chat template opens no answer (add_generation_prompt changes nothing, or what comes before); use another template.")
        return self.encode(Rendered(opened.text[len(before.text) :], opened.guard))

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of `ids`, special tokens left out."""
        return self._tokenizer.decode([int(index) for index in ids], skip_special_tokens=True)

    def decoder(self) -> IncrementalDecoder:
        """A fresh incremental decoder for one answer."""
        return IncrementalDecoder(self._tokenizer, self._special_ids)

    def _guard(self, messages: Sequence[Message]) -> str:
        """A private-use character found neither in the messages nor in the template."""
        used = set(self._template_source).union(*(part.text for message in messages for part in message.parts if isinstance(part, TextPart)))
        return next(chr(code) for code in (*range(0xE000, 0xF900), *range(0xF0000, 0xFFFFE)) if chr(code) not in used)

    def _render(self, messages: Sequence[Message], add_generation_prompt: bool, guard: str) -> Rendered:
        chat = [{"role": message.role, "content": _content(message, lambda text: self._guarded(text, guard))} for message in messages]
        try:
            text = self._template.render(messages=chat, tools=None, documents=None, add_generation_prompt=add_generation_prompt, **self._names)
            return Rendered(text, guard)
        except jinja2.TemplateError as error:
            raise AntiphonError(f"The chat template refuses these messages: {reason(error)}; change the order or the roles of the messages.") from None

    def _guarded(self, text: str, guard: str) -> str:
        while self._pattern.search(text):  # again while tokens overlap
            text = self._pattern.sub(lambda match: match[0][0] + guard + match[0][1:], text)
        # What the template writes next (or the next text part) might complete a token that is open at the end of this text.
        words = text.rstrip()
        for length in range(1, min(len(words), max(map(len, self._openings), default=0)) + 1):
            if words[-length:] in self._openings:
                split = len(words) - length + 1
                text = text[:split] + guard + text[split:]
        return text


def load_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer that takes special tokens in plain text for text. Raises AntiphonError for a missing, broken or foreign file."""
    if not path.is_file():
        raise AntiphonError(f"No tokenizer at {short_path(path)}; build the bundle again.")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises a bare Exception
        raise AntiphonError(f"{short_path(path)} cannot be read as a tokenizer ({reason(error)}); use the tokenizer of the checkpoint.") from None
    decoder = (json.loads(path.read_text(encoding="utf-8")).get("decoder") or {}).get("type")
    if decoder != "ByteLevel":
        raise AntiphonError(
            f"{short_path(path)} decodes by {short(decoder)}; expected a byte-level BPE tokenizer (decoder ByteLevel), as the Qwen models have."
        )
    for token in tokenizer.get_added_tokens_decoder().values():
        if token.special and (token.lstrip or token.rstrip or token.single_word):
            raise AntiphonError(
                f"{short_path(path)}: the special token {short(token.content)} strips its surroundings; expected special tokens without such flags."
            )
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def _content(message: Message, guarded: Callable[[str], str]) -> str | list[dict[str, str]]:
    """What the template sees of a message: text, and that there is media, never the media itself."""
    parts = []
    for part in message.parts:
        if isinstance(part, TextPart):
            parts.append({"type": "text", "text": guarded(part.text)})
        else:
            kind = "audio" if isinstance(part, AudioPart) else "image" if isinstance(part, ImagePart) else "video"
            parts.append({"type": kind, kind: kind})
    return parts[0]["text"] if message.plain else parts


def _raise_exception(message: str) -> None:
    raise jinja2.exceptions.TemplateError(message)


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False) -> str:
    # Jinja's own filter escapes HTML characters, which no chat template wants.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _strftime_now(layout: str) -> str:
    return datetime.now().strftime(layout)


class _GenerationTag(jinja2.ext.Extension):
    """`{% generation %}` marks what an assistant wrote, for training; its body is rendered as it is."""

    tags = {"generation"}

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _compile(template: str) -> jinja2.Template:
    """The template in a sandbox with the settings of `transformers.utils.chat_template_utils`."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, jinja2.ext.loopcontrols])
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    try:
        return environment.from_string(template)
    except jinja2.TemplateError as error:
        raise AntiphonError(f"The chat template is not valid Jinja ({reason(error)}); use the chat template of the checkpoint.") from None
