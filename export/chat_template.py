"""Finds and reads a checkpoint's chat template and tests it on plain conversations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..runtime.bundle.errors import AntiphonError
from ..runtime.frontend.prompt.chat_template import ChatTemplate

USER, ASSISTANT, SYSTEM = ({"role": role, "content": "words"} for role in ("user", "assistant", "system"))
PLAIN: dict[str, list[dict[str, Any]]] = {
    "a user's text": [USER],
    "a text after a system prompt": [SYSTEM, USER],
    "a second turn": [USER, ASSISTANT, USER],
    "a text in a part": [{"role": "user", "content": [{"type": "text", "text": "words"}]}],
}
"""Description -> conversation that every template must render; the runtime passes messages of these forms."""


def read_chat_template(
    folder: Path,
    tokenizer_config: Mapping[str, Any],
    packed: Mapping[str, Any],
    names: Mapping[str, Any],
    media: Sequence[str] = ("audio", "image", "video"),
) -> str:
    """The chat template of a checkpoint.

    It is chat_template.jinja in `folder`, else the template in `packed` (chat_template.json), else the one in
    `tokenizer_config`. If these have several named templates, it is the one named default.
    `names`: variables of the template, special tokens and switches.
    `media`: the kinds of media that the model takes.
    Raises AntiphonError, with the name of the file, if the template is missing, is not UTF-8 or not Jinja, or
    fails on a plain conversation.
    """
    path, template = _find(folder, tokenizer_config, packed)
    compiled = ChatTemplate(template, f"The chat template in {path}")
    with_media = {
        f"{kind} and text": [
            {"role": "user", "content": [{"type": kind, kind: kind}, {"type": "text", "text": "words"}]}
        ]
        for kind in media
    }
    for what, messages in (PLAIN | with_media).items():
        try:
            text = compiled.render(
                {
                    "messages": messages,
                    "tools": None,
                    "documents": None,
                    "add_generation_prompt": True,
                    **names,
                }
            )
        except AntiphonError as error:
            raise AntiphonError(f"{str(error).rstrip('.')} (tried on {what}).") from None
        if "words" not in text:
            raise AntiphonError(
                f"The chat template in {path} writes nothing of the words in {what}; "
                "use the chat template of the checkpoint."
            )
    return template


def _find(folder: Path, tokenizer_config: Mapping[str, Any], packed: Mapping[str, Any]) -> tuple[Path, str]:
    stored = folder / "chat_template.jinja"
    if stored.is_file():
        try:
            return stored, stored.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise AntiphonError(
                f"{stored} is not UTF-8 text (byte {error.start}); download the file again."
            ) from None
        except OSError as error:
            raise AntiphonError(
                f"{stored} cannot be read ({error.strerror or error}); make it readable or download it again."
            ) from None
    template, name = packed.get("chat_template"), "chat_template.json"
    if not template:
        template, name = tokenizer_config.get("chat_template"), "tokenizer_config.json"
    if isinstance(template, list):
        template = {
            entry["name"]: entry.get("template")
            for entry in template
            if isinstance(entry, dict) and isinstance(entry.get("name"), str)
        }
    if isinstance(template, dict):
        template = template.get("default")
    if not isinstance(template, str):
        raise AntiphonError(
            "The checkpoint has no chat template: "
            f"expected chat_template.jinja or chat_template.json in {folder}; download it completely."
        )
    return folder / name, template
