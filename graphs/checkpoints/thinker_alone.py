"""A Thinker that was saved without the rest, read as an omni checkpoint without speech.

transformers saves it so with `Qwen3OmniMoeThinkerForConditionalGeneration`, `Qwen3_5MoeForConditionalGeneration` (text and vision) and
`Qwen3_5MoeForCausalLM` (text). Such a config.json holds what stands in `thinker_config` or in `thinker_config.text_config` of the whole, so the ids of
the conversation, which stand at the root of the whole, come from the tokenizer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runtime.bundle.errors import AntiphonError
from ...runtime.bundle.json_file import read_json_object

ROLES = {"system_token_id": "system", "user_token_id": "user", "assistant_token_id": "assistant"}
TURN_MARKS = {"im_start_token_id": "<|im_start|>", "im_end_token_id": "<|im_end|>"}
MEDIA_MARKS = {
    "audio_token_id": "<|audio_pad|>",
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "audio_start_token_id": "<|audio_start|>",
    "vision_start_token_id": "<|vision_start|>",
}


@dataclass(frozen=True)
class ThinkerAlone:
    """How one `model_type` is read: its family, the section that its config.json holds, and the prefix of its tensors in a whole checkpoint."""

    family: str
    section: tuple[str, ...]
    rename: dict[str, str]
    """Prefix in these weights to prefix in the whole. Newer versions of transformers keep `thinker.` when they save, older ones leave it out."""


_TEXT = {"model.": "thinker.model.", "lm_head.": "thinker.lm_head."}
_SEEING = {"model.language_model.": "thinker.model.", "model.visual.": "thinker.visual.", "visual.": "thinker.visual.", **_TEXT}
THINKERS = {
    "qwen3_omni_moe_thinker": ThinkerAlone("qwen3_omni_moe", ("thinker_config",), {"audio_tower.": "thinker.audio_tower.", **_SEEING}),
    "qwen3_omni_next_thinker": ThinkerAlone("qwen3_5_omni", ("thinker_config",), {"audio_tower.": "thinker.audio_tower.", **_SEEING}),
    "qwen3_5_moe": ThinkerAlone("qwen3_5_omni", ("thinker_config",), _SEEING),
    "qwen3_5": ThinkerAlone("qwen3_5_omni", ("thinker_config",), _SEEING),
    "qwen3_5_moe_text": ThinkerAlone("qwen3_5_omni", ("thinker_config", "text_config"), _TEXT),
    "qwen3_5_text": ThinkerAlone("qwen3_5_omni", ("thinker_config", "text_config"), _TEXT),
}
ALONE = {"qwen3_omni_moe_talker": "Talker", "qwen3_omni_moe_talker_code_predictor": "code predictor", "qwen3_omni_moe_code2wav": "Code2Wav"}
"""Parts that do not answer anything without a Thinker."""


def whole_config(raw: dict[str, Any], path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The configuration of the whole checkpoint for the one in `raw`, and how its tensors are renamed; `raw` itself where it is a whole one.

    Raises AntiphonError for a part that cannot be used alone, and where the tokenizer beside `path` lacks a token that a conversation needs.
    """
    kind = raw.get("model_type")
    if not isinstance(kind, str):
        return raw, {}
    if kind in ALONE:
        raise AntiphonError(
            f"{path} is of a {ALONE[kind]} alone (model_type {kind}); put its tensors and its section of config.json into the folder of the "
            "whole checkpoint, and give that."
        )
    alone = THINKERS.get(kind)
    if alone is None:
        return raw, {}
    section = raw
    if len(alone.section) == 2:
        section = {alone.section[1]: raw}
    found = _Tokens(path.parent)
    media = {name: index for name, mark in MEDIA_MARKS.items() if (index := found.find(mark)) is not None}
    marks = {name: found.require(mark) for name, mark in (*TURN_MARKS.items(), *ROLES.items())}
    return {"model_type": alone.family, "enable_audio_output": False, **marks, alone.section[0]: {**media, **section}}, alone.rename


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
        """The id of the token `text`."""
        return self.ids.get(text)

    def require(self, text: str) -> int:
        """The id of the token `text`. Raises AntiphonError where there is none."""
        index = self.ids.get(text)
        if index is None:
            raise AntiphonError(
                f"{self.folder} holds a Thinker alone, and its tokenizer has no token {text!r}, which its conversations need; "
                "put tokenizer.json and tokenizer_config.json of the whole checkpoint beside it."
            )
        return index

    def _take(self, entries: Any) -> None:
        for text, index in _object(entries).items():
            if isinstance(text, str) and isinstance(index, int) and not isinstance(index, bool) and index >= 0:
                self.ids[text] = index


def _object(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}
