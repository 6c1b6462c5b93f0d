"""The chat template and its tokenisation. Text from a user can never become a special token.

Ordinary text gives exactly the ids of Hugging Face's `apply_chat_template(tokenize=True)`. If a message holds
the text of a special token ("<|im_end|>"), a guard character that occurs nowhere else is inserted into it
before rendering. The rendered string is then split at special tokens, which all come from the template. The
guard is removed from the other pieces, which are encoded as plain text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from ...bundle.errors import AntiphonError, BrokenBundle, InvalidInput
from ...bundle.said import short, short_path
from .chat_template import ChatTemplate
from .content_parts import AudioPart, ImagePart, TextPart
from .detokenizer import IncrementalDecoder
from .messages import Message
from .text_limits import TextLimits
from .tokenizer_json import one_sentence, read_tokenizer
from .tools import Tools, texts, with_texts

PROBE = "probe"
"""Content of turns that are rendered only to be cut off again."""


@dataclass(frozen=True)
class Rendered:
    """The output of the chat template, with `guard` inside every special token that a user typed."""

    text: str
    guard: str

    def with_text_before(self, mark: str, texts: Sequence[str]) -> Rendered:
        """The same with each of `texts` before one `mark` of the template, in order.

        Raises AntiphonError if the numbers of texts and marks differ.
        """
        pieces = self.text.split(mark)
        if len(pieces) != len(texts) + 1:
            raise BrokenBundle(
                f"The chat template wrote {mark} {len(pieces) - 1} times for {len(texts)} videos; "
                "use the template of the checkpoint."
            )
        return Rendered(
            pieces[0] + "".join(text + mark + piece for text, piece in zip(texts, pieces[1:], strict=True)),
            self.guard,
        )


class ChatTokenizer:
    """Turns messages into token ids and token ids into text, for one checkpoint's tokenizer and chat
    template.
    """

    def __init__(self, tokenizer_file: Path, template: str, names: Mapping[str, Any]) -> None:
        """`names`: variables of the template, which are special tokens (eos_token, ...) and switches.

        Raises AntiphonError for unusable files.
        """
        self._tokenizer = load_tokenizer(tokenizer_file)
        self._special = {
            token.content: index
            for index, token in self._tokenizer.get_added_tokens_decoder().items()
            if token.special
        }
        self._special_ids = frozenset(self._special.values())
        longest_first = sorted(self._special, key=len, reverse=True)
        self._pattern = re.compile("(" + ("|".join(map(re.escape, longest_first)) or r"(?!)") + ")")
        self._openings = {token[:length] for token in self._special for length in range(1, len(token))}
        self._template, self._names = ChatTemplate(template), names
        self._template_source = template

    def render_chat(
        self, messages: Sequence[Message], add_generation_prompt: bool, tools: Tools = ()
    ) -> Rendered:
        """The text of a whole conversation.

        Raises AntiphonError if the template refuses it, or ignores its tools, tool calls or names.
        """
        guard = self._guard(messages, tools)
        rendered = self._render(messages, add_generation_prompt, guard, tools)
        if tools:
            self._check_effect(
                rendered, "tools", lambda: self._render(messages, add_generation_prompt, guard)
            )
        self._check_keys(
            rendered, messages, lambda turns: self._render(turns, add_generation_prompt, guard, tools)
        )
        return rendered

    def render_continuation(
        self, messages: Sequence[Message], add_generation_prompt: bool, tools: Tools = ()
    ) -> Rendered:
        """The text of turns that follow earlier, complete turns, without the system preamble, which has the
        `tools`.

        Raises AntiphonError as `render_chat`.
        """
        guard = self._guard(messages, tools)
        rendered = self._continued(messages, add_generation_prompt, guard, tools)
        self._check_keys(
            rendered, messages, lambda turns: self._continued(turns, add_generation_prompt, guard, tools)
        )
        return rendered

    def _continued(
        self, messages: Sequence[Message], add_generation_prompt: bool, guard: str, tools: Tools
    ) -> Rendered:
        opening = (
            Message("user", (TextPart(PROBE),), plain=True),
            Message("assistant", (TextPart(PROBE),), plain=True),
        )
        refusal: AntiphonError | None = None
        for earlier in (opening[:1], opening):  # the second is for templates that require alternating roles
            try:
                before = self._render(earlier, False, guard, tools).text
                whole = self._render((*earlier, *messages), add_generation_prompt, guard, tools).text
            except AntiphonError as error:
                refusal = error
                continue
            if whole.startswith(before):
                return Rendered(whole[len(before) :], guard)
        raise refusal or InvalidInput(
            "The chat template rewrites earlier turns when turns are added; "
            "send the whole conversation instead."
        )

    def encode(self, rendered: Rendered) -> np.ndarray:
        """Token ids int64 [tokens], with one placeholder token per piece of media."""
        ids: list[int] = []
        for piece in self._pattern.split(rendered.text):
            if piece in self._special:
                ids.append(self._special[piece])
            elif piece:
                ids.extend(self._encode(piece.replace(rendered.guard, "")))
        return np.array(ids, np.int64)

    def encode_text(self, text: str) -> np.ndarray:
        """Token ids int64 [tokens] of plain text."""
        return np.array(self._encode(text), np.int64)

    def _encode(self, text: str) -> list[int]:
        with one_sentence("The tokenizer cannot encode the text"):
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def text_limits(self, context: int | None) -> TextLimits:
        """An object that refuses texts that a context of `context` tokens cannot hold (None: no limit)."""
        return TextLimits(self._tokenizer, context)

    def token(self, index: int) -> str:
        """The text of the token with id `index`. Raises BrokenBundle if the tokenizer has none."""
        token: str | None = self._tokenizer.id_to_token(index)
        if token is None:
            raise BrokenBundle(
                f"frontend.json states the token id {index}, which the bundle's tokenizer lacks; "
                "build the bundle again."
            )
        return token

    def turn_end(self) -> np.ndarray:
        """Token ids int64 [tokens] that the template writes after an assistant's words, to close its turn."""
        turns = (
            Message("user", (TextPart(PROBE),), plain=True),
            Message("assistant", (TextPart(PROBE + PROBE),), plain=True),
        )
        rendered = self.render_chat(turns, False)
        return self.encode(Rendered(rendered.text.rpartition(PROBE + PROBE)[2], rendered.guard))

    def answer_opening(self) -> np.ndarray:
        """Token ids int64 [tokens] that the template writes before an assistant's words.

        Raises AntiphonError if it writes none.
        """
        turns = (Message("user", (TextPart(PROBE),), plain=True),)
        before, opened = self.render_chat(turns, False), self.render_chat(turns, True)
        if not opened.text.startswith(before.text) or opened.text == before.text:
            raise BrokenBundle(
                "The chat template opens no answer (add_generation_prompt changes nothing, "
                "or what comes before); use another template."
            )
        return self.encode(Rendered(opened.text[len(before.text) :], opened.guard))

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of `ids`, without special tokens."""
        return self._tokenizer.decode([int(index) for index in ids], skip_special_tokens=True)

    def decoder(self) -> IncrementalDecoder:
        """A new incremental decoder for one answer."""
        return IncrementalDecoder(self._tokenizer, self._special_ids)

    def _check_keys(
        self, rendered: Rendered, messages: Sequence[Message], render: Callable[[Sequence[Message]], Rendered]
    ) -> None:
        """Raise AntiphonError if the template ignores the calls or the names in `messages`. It may ignore the
        names of tools.
        """
        if any(message.tool_calls for message in messages):
            self._check_effect(
                rendered,
                "tool calls",
                lambda: render([replace(message, tool_calls=()) for message in messages]),
            )
        if any(message.name is not None and message.role != "tool" for message in messages):
            self._check_effect(
                rendered,
                "names",
                lambda: render(
                    [
                        message if message.role == "tool" else replace(message, name=None)
                        for message in messages
                    ]
                ),
            )

    def _check_effect(self, rendered: Rendered, key: str, without: Callable[[], Rendered]) -> None:
        try:
            bare = without().text
        except AntiphonError:
            return  # the template needs the key
        if bare == rendered.text:
            raise InvalidInput(
                f"The chat template of this bundle has no place for {key}; "
                "leave them out, or build with a template that writes them."
            )

    def _guard(self, messages: Sequence[Message], tools: Tools) -> str:
        """A private-use character that occurs neither in the messages and tools nor in the template."""
        used = set(self._template_source).union(
            *(part.text for message in messages for part in message.parts if isinstance(part, TextPart))
        )
        used = used.union(*texts([*tools, *(_extras(message) for message in messages)]))
        return next(
            chr(code) for code in (*range(0xE000, 0xF900), *range(0xF0000, 0xFFFFE)) if chr(code) not in used
        )

    def _render(
        self, messages: Sequence[Message], add_generation_prompt: bool, guard: str, tools: Tools = ()
    ) -> Rendered:
        def guarded(text: str) -> str:
            return self._guarded(text, guard)

        chat = [
            {
                "role": message.role,
                "content": _content(message, guarded),
                **with_texts(_extras(message), guarded),
            }
            for message in messages
        ]
        variables = {
            "messages": chat,
            "tools": with_texts(tools, guarded) if tools else None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
            **self._names,
        }
        return Rendered(self._template.render(variables, guard), guard)

    def _guarded(self, text: str, guard: str) -> str:
        while self._pattern.search(text):  # repeat for overlapping tokens
            text = self._pattern.sub(lambda match: match[0][0] + guard + match[0][1:], text)
        # The template's next text (or the next text part) might complete a token that begins at the end of
        # this text.
        words = text.rstrip()
        for length in range(1, min(len(words), max(map(len, self._openings), default=0)) + 1):
            if words[-length:] in self._openings:
                split = len(words) - length + 1
                text = text[:split] + guard + text[split:]
        return text


def load_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer that encodes special tokens in plain text as text.

    Raises AntiphonError if the file is missing, broken or of another kind.
    """
    if not path.is_file():
        raise BrokenBundle(f"No tokenizer at {short_path(path)}; build the bundle again.")
    tokenizer = read_tokenizer(path)
    for token in tokenizer.get_added_tokens_decoder().values():
        if token.special and (token.lstrip or token.rstrip or token.single_word):
            raise BrokenBundle(
                f"{short_path(path)}: the special token {short(token.content)} strips its surroundings; "
                "expected special tokens without such flags."
            )
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def _content(message: Message, guarded: Callable[[str], str]) -> str | list[dict[str, str]]:
    """The content that the template sees of a message: text, and the kinds of media, but not the media
    themselves.
    """
    parts = []
    for part in message.parts:
        if isinstance(part, TextPart):
            parts.append({"type": "text", "text": guarded(part.text)})
        else:
            kind = (
                "audio"
                if isinstance(part, AudioPart)
                else "image"
                if isinstance(part, ImagePart)
                else "video"
            )
            parts.append({"type": kind, kind: kind})
    return "".join(part["text"] for part in parts) if message.plain else parts


def _extras(message: Message) -> dict[str, Any]:
    """The other fields of a message for the template. Source: `_alias_reasoning_fields` (transformers 5.23)
    for `thinking`.
    """
    fields = {
        "tool_calls": list(message.tool_calls) or None,
        "tool_call_id": message.tool_call_id,
        "name": message.name,
        "reasoning_content": message.reasoning_content,
        "thinking": message.reasoning_content,
    }
    return {key: value for key, value in fields.items() if value is not None}
