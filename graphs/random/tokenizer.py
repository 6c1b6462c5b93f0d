"""A small real byte-level BPE tokenizer in the Qwen2 layout, trained from the shipped corpus each
time a checkpoint is made.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

BASE_SIZE = 1984
PADDED_TO = 64
ROLES = ("system", "user", "assistant")
# The word splitter of the Qwen2 tokenizers; a format fact that the published tokenizer.json carries too.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Order and `special` flags as in the published tokenizer_config.json. Tool, code and think tokens are not
# special, so skip_special_tokens keeps them.
_CHAT_AND_MEDIA = (
    "<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|> <|box_start|> <|box_end|> "
    "<|quad_start|> <|quad_end|> <|vision_start|> <|vision_end|> <|vision_pad|> <|image_pad|> <|video_pad|>"
).split()
_TOOLS_AND_CODE = (
    "<tool_call> </tool_call> <|fim_prefix|> <|fim_middle|> <|fim_suffix|> <|fim_pad|> <|repo_name|> "
    "<|file_sep|> <tool_response> </tool_response> <think> </think>"
).split()
_SPEECH = (
    "<|audio_start|> <|audio_end|> <tts_pad> <tts_text_bos> <tts_text_eod> "
    "<tts_text_bos_single> <|audio_pad|>"
).split()
SPECIAL_TOKENS = (*_CHAT_AND_MEDIA, *_TOOLS_AND_CODE, *_SPEECH)
KEPT_IN_TEXT = frozenset(_TOOLS_AND_CODE)
NAMED_TOKENS = {
    "image_token": "<|image_pad|>",
    "audio_token": "<|audio_pad|>",
    "video_token": "<|video_pad|>",
    "vision_bos_token": "<|vision_start|>",
    "vision_eos_token": "<|vision_end|>",
    "audio_bos_token": "<|audio_start|>",
    "audio_eos_token": "<|audio_end|>",
}


@dataclass(frozen=True)
class TokenIds:
    """What the rest of a checkpoint needs to know of its tokenizer."""

    ids: dict[str, int]
    """Special tokens and the three role words, by text."""

    readable: tuple[int, ...]
    """Ids that decode to printable text on their own: whole characters, more than white space."""

    size: int
    padded_size: int

    def __getitem__(self, token: str) -> int:
        return self.ids[token]


@cache
def train() -> Tokenizer:
    """The tokenizer of random checkpoints, from corpus.txt."""
    return train_on(
        resources.files(__package__).joinpath("corpus.txt").read_text(encoding="utf-8").splitlines(),
        BASE_SIZE,
    )


def train_on(lines: Iterable[str], size: int) -> Tokenizer:
    """Train a tokenizer of `size` ids before the special ones;
    the same text gives the same vocabulary and merges.
    """
    tokenizer = Tokenizer(models.BPE(fuse_unk=False, byte_fallback=False))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=1,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(_with_roles(lines), trainer)
    tokenizer.add_tokens(
        [AddedToken(token, normalized=False, special=token not in KEPT_IN_TEXT) for token in SPECIAL_TOKENS]
    )
    return tokenizer


def _with_roles(lines: Iterable[str]) -> Iterator[str]:
    yield from lines
    # The role words must be one token each, as in the published vocabulary: the prompt
    # rules compare a single id.
    for role in ROLES:
        yield from [role] * 50


def token_ids(tokenizer: Tokenizer) -> TokenIds:
    """The ids a configuration needs;
    the vocabulary is padded to a multiple of 64 as published checkpoints do.
    """
    ids: dict[str, int] = {}
    for token in (*SPECIAL_TOKENS, *ROLES):
        encoded = tokenizer.encode(token, add_special_tokens=False).ids
        assert len(encoded) == 1, token
        ids[token] = encoded[0]
    size = tokenizer.get_vocab_size()
    special = {ids[token] for token in SPECIAL_TOKENS}
    texts = ((i, tokenizer.decode([i])) for i in range(size) if i not in special)
    readable = tuple(
        i for i, text in texts if text.strip() and text.strip().isprintable() and "\ufffd" not in text
    )
    return TokenIds(ids, readable, size, -(-size // PADDED_TO) * PADDED_TO)


def save(
    tokenizer: Tokenizer, folder: Path, model_max_length: int, processor_class: str | None = None
) -> None:
    """Write tokenizer.json, vocab.json, merges.txt and tokenizer_config.json into `folder`;
    the last states the two values (see RandomCheckpoint).
    """
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    try:
        tokenizer.model.save(str(folder))
    except Exception as error:  # the library raises no other kind where the disk is full
        raise OSError(errno.EIO, str(error)) from None
    added = {
        str(tokenizer.token_to_id(token)): {
            "content": token,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": token not in KEPT_IN_TEXT,
        }
        for token in SPECIAL_TOKENS
    }
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        **({} if processor_class is None else {"processor_class": processor_class}),
        "add_prefix_space": False,
        "add_bos_token": False,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "errors": "replace",
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": False,
        "model_max_length": model_max_length,
        "added_tokens_decoder": added,
        "additional_special_tokens": [token for token in SPECIAL_TOKENS if token not in KEPT_IN_TEXT],
        "extra_special_tokens": NAMED_TOKENS,
        **NAMED_TOKENS,
    }
    (folder / "tokenizer_config.json").write_text(
        json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
