"""Reads a Thinker that was saved alone as an omni checkpoint without speech.

These transformers classes save a Thinker alone: `Qwen3OmniMoeThinkerForConditionalGeneration`,
`Qwen3_5MoeForConditionalGeneration` (text and vision) and `Qwen3_5MoeForCausalLM` (text). Its config.json is
the section `thinker_config` or `thinker_config.text_config` of a whole config.json. The ids of a conversation
are at the root of a whole config.json, so here they come from the tokenizer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...runtime.bundle.errors import AntiphonError
from ...runtime.bundle.json_file import read_json_object
from ..families.registry import families

ROLES = {"system_token_id": "system", "user_token_id": "user", "assistant_token_id": "assistant"}
TURN_MARKS = {"im_start_token_id": "<|im_start|>", "im_end_token_id": "<|im_end|>"}
MEDIA_MARKS = {
    "audio_token_id": "<|audio_pad|>",
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "audio_start_token_id": "<|audio_start|>",
    "vision_start_token_id": "<|vision_start|>",
}


def whole_config(raw: dict[str, Any], path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The whole configuration for `raw`, and the prefixes by which its tensors are renamed.

    Returns `raw` and {} for a whole configuration. Raises AntiphonError for a part that cannot be used alone,
    and if the tokenizer beside `path` lacks a token that a conversation needs.
    """
    kind = raw.get("model_type")
    if not isinstance(kind, str):
        return raw, {}
    family = next(
        (known for known in families() if kind in known.parts_alone or kind in known.thinkers), None
    )
    if family is None:
        return raw, {}
    if kind in family.parts_alone:
        raise AntiphonError(
            f"{path} is of a {family.parts_alone[kind]} alone (model_type {kind}); put its tensors and "
            "its section of config.json into the folder of the whole checkpoint, and give that."
        )
    alone = family.thinkers[kind]
    section = raw
    if len(alone.section) == 2:
        section = {alone.section[1]: raw}
    found = _Tokens(path.parent)
    media = {name: index for name, mark in MEDIA_MARKS.items() if (index := found.find(mark)) is not None}
    marks = {name: found.require(mark) for name, mark in (*TURN_MARKS.items(), *ROLES.items())}
    return {
        "model_type": family.name,
        "enable_audio_output": False,
        **marks,
        alone.section[0]: {**media, **section},
    }, alone.rename


class _Tokens:
    """Token texts to ids, from the tokenizer's files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ids: dict[str, int] = {}
        whole, vocabulary = folder / "tokenizer.json", folder / "vocab.json"
        if whole.is_file():
            content = read_json_object(whole)
            self._take(_object(content.get("model")).get("vocab"))
            listed = content.get("added_tokens")
            for token in listed if isinstance(listed, list) else ():
                self._take({_object(token).get("content"): _object(token).get("id")})
        elif vocabulary.is_file():
            self._take(read_json_object(vocabulary))
        settings = folder / "tokenizer_config.json"
        if settings.is_file():
            for index, token in _object(read_json_object(settings).get("added_tokens_decoder")).items():
                self._take({_object(token).get("content"): int(index) if str(index).isdecimal() else None})

    def find(self, text: str) -> int | None:
        """The id of the token `text`; None if there is none."""
        return self.ids.get(text)

    def require(self, text: str) -> int:
        """The id of the token `text`. Raises AntiphonError if there is none."""
        index = self.ids.get(text)
        if index is None:
            raise AntiphonError(
                f"{self.folder} holds a Thinker alone, "
                f"and its tokenizer has no token {text!r}, which its conversations need; "
                "put tokenizer.json and tokenizer_config.json of the whole checkpoint beside it."
            )
        return index

    def _take(self, entries: Any) -> None:
        for text, index in _object(entries).items():
            if (
                isinstance(text, str)
                and isinstance(index, int)
                and not isinstance(index, bool)
                and index >= 0
            ):
                self.ids[text] = index


def _object(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}
