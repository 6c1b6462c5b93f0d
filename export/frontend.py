"""From a checkpoint's tokenizer and processor files to the bundle's `frontend/` folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from ..graphs.config import OmniConfig
from ..runtime.errors import AntiphonError
from ..runtime.frontend.constants import SCHEMA

PRETOKENS = r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
"""How Qwen2's tokenizer cuts text before BPE."""

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

VIDEO_PIXELS = {"min_pixels": 128 * 32 * 32, "max_pixels": 768 * 32 * 32}
"""Pixels of a video frame. Qwen3OmniMoeProcessor passes these at every call, so the size in the checkpoint's files never counts."""

TEXTUAL_TIME = "qwen3_5_omni"
"""The family whose prompts tell the time in text. Its processor is unpublished; how it is read here follows Qwen3VLProcessor, which serves Qwen3.5."""


def write_frontend(checkpoint_folder: Path, config: OmniConfig, destination: Path) -> None:
    """Write tokenizer.json, chat_template.jinja and frontend.json, all the runtime's front end needs, into the folder `destination`.

    Reads the checkpoint's tokenizer, chat template, preprocessor and generation files (a missing generation or video file means the
    defaults, as in transformers). Raises AntiphonError that names the file that is missing, broken or at odds with config.json.
    """
    checkpoint_folder, destination = Path(checkpoint_folder), Path(destination)
    tokenizer_config = _read_json(checkpoint_folder / "tokenizer_config.json", optional=True)
    tokenizer = _tokenizer(checkpoint_folder, tokenizer_config)
    names = _special_tokens(tokenizer_config)
    constants: dict[str, Any] = {
        "schema": SCHEMA,
        "family": config.family,
        "special_tokens": names,
        "ids": _ids(config, tokenizer, names, checkpoint_folder),
        "positions": _positions(config),
        **_processors(checkpoint_folder, config),
        "vision": {"num_position_embeddings": config.thinker.vision.num_position_embeddings},
        "generation": _read_json(checkpoint_folder / "generation_config.json", optional=True),
    }
    if config.family == TEXTUAL_TIME:
        constants["timestamps"] = {"format": config.thinker.timestamp_format, "audio_seconds": config.thinker.audio_timestamp_seconds}
    template = _chat_template(checkpoint_folder, tokenizer_config)
    destination.mkdir(parents=True, exist_ok=True)
    # not tokenizer.save, which raises a plain Exception where the disk is full
    (destination / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    (destination / "chat_template.jinja").write_text(template, encoding="utf-8")
    (destination / "frontend.json").write_text(json.dumps(constants, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _read_json(path: Path, optional: bool = False) -> dict[str, Any]:
    if not path.is_file():
        if optional:
            return {}
        raise AntiphonError(f"The checkpoint has no {path.name}: expected it at {path}; download the complete checkpoint.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AntiphonError(f"{path} is not valid JSON ({error}); download the file again.") from None
    if not isinstance(content, dict):
        raise AntiphonError(f"{path} holds a {type(content).__name__} where an object was expected; download the file again.")
    return content


def _tokenizer(folder: Path, tokenizer_config: dict[str, Any]) -> Tokenizer:
    """tokenizer.json, or the same built from vocab.json and merges.txt; then the added tokens that only tokenizer_config.json lists."""
    stored = folder / "tokenizer.json"
    if stored.is_file():
        try:
            tokenizer = Tokenizer.from_file(str(stored))
        except Exception as error:  # tokenizers raises a bare Exception
            raise AntiphonError(f"{stored} cannot be read as a tokenizer ({error}); download the file again.") from None
    else:
        tokenizer = _built_tokenizer(folder)
        if not tokenizer_config.get("added_tokens_decoder"):
            raise AntiphonError(f"{folder / 'tokenizer_config.json'} is missing or lists no added_tokens_decoder; download the complete checkpoint.")
    added = _as_dict(tokenizer_config.get("added_tokens_decoder"))
    for index, token in sorted(added.items(), key=lambda item: int(item[0])):
        if tokenizer.token_to_id(token["content"]) is None:
            flags = {name: bool(token.get(name, False)) for name in ("lstrip", "rstrip", "single_word", "normalized", "special")}
            tokenizer.add_tokens([AddedToken(token["content"], **flags)])
        if tokenizer.token_to_id(token["content"]) != int(index):
            raise AntiphonError(
                f"{folder / 'tokenizer_config.json'} gives {token['content']!r} the id {index}, "
                f"but the vocabulary gives it {tokenizer.token_to_id(token['content'])}; use the files of one checkpoint."
            )
    return tokenizer


def _built_tokenizer(folder: Path) -> Tokenizer:
    """Byte-level BPE from vocab.json and merges.txt, without added tokens. Source: Qwen2Tokenizer."""
    for name in ("vocab.json", "merges.txt"):
        if not (folder / name).is_file():
            raise AntiphonError(f"The checkpoint has no tokenizer: expected tokenizer.json, or vocab.json and merges.txt, in {folder}, and {name} is missing.")
    try:
        tokenizer = Tokenizer(BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    except Exception as error:  # tokenizers raises a bare Exception
        raise AntiphonError(f"vocab.json and merges.txt in {folder} cannot be read as a BPE vocabulary ({error}); download them again.") from None
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(PRETOKENS), behavior="isolated", invert=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _special_tokens(tokenizer_config: dict[str, Any]) -> dict[str, str]:
    """Named tokens (eos_token, audio_eos_token, ...) that chat templates may mention."""
    named = {**tokenizer_config, **_as_dict(tokenizer_config.get("extra_special_tokens"))}
    texts = {name: value.get("content") if isinstance(value, dict) else value for name, value in named.items() if name.endswith("_token")}
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def _as_dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _chat_template(folder: Path, tokenizer_config: dict[str, Any]) -> str:
    """chat_template.jinja, else chat_template.json, else the tokenizer's; of several named templates the one called default."""
    stored = folder / "chat_template.jinja"
    if stored.is_file():
        return stored.read_text(encoding="utf-8")
    template = _read_json(folder / "chat_template.json", optional=True).get("chat_template") or tokenizer_config.get("chat_template")
    if isinstance(template, list):
        template = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
    if isinstance(template, dict):
        template = template.get("default")
    if not isinstance(template, str):
        raise AntiphonError(f"The checkpoint has no chat template: expected chat_template.jinja or chat_template.json in {folder}; download it completely.")
    return template


def _ids(config: OmniConfig, tokenizer: Tokenizer, names: dict[str, str], folder: Path) -> dict[str, int]:
    thinker = config.thinker
    ids = {
        "im_start": config.im_start_token_id, "im_end": config.im_end_token_id,
        "system": config.system_token_id, "user": config.user_token_id, "assistant": config.assistant_token_id,
        "audio": thinker.audio_token_id, "image": thinker.image_token_id, "video": thinker.video_token_id,
        "audio_start": thinker.audio_start_token_id, "vision_start": thinker.vision_start_token_id, "tts_pad": config.tts_pad_token_id,
    }  # fmt: skip
    for name, index in ids.items():
        if tokenizer.id_to_token(index) is None:
            raise AntiphonError(f"config.json in {folder} gives {name} the token id {index}, which the tokenizer lacks; use the tokenizer of the checkpoint.")
    ids["audio_end"] = _mark(tokenizer, names.get("audio_eos_token", "<|audio_end|>"), "ends audio", folder)
    if config.family == TEXTUAL_TIME:
        ids["vision_end"] = _mark(tokenizer, names.get("vision_eos_token", "<|vision_end|>"), "ends an image or a video", folder)
        thoughts = {"think_open": tokenizer.token_to_id("<think>"), "think_close": tokenizer.token_to_id("</think>")}
        ids |= {name: index for name, index in thoughts.items() if index is not None}
    return ids


def _mark(tokenizer: Tokenizer, token: str, purpose: str, folder: Path) -> int:
    index: int | None = tokenizer.token_to_id(token)
    if index is None:
        raise AntiphonError(f"The tokenizer in {folder} has no token {token!r}, which {purpose} in a prompt; use the tokenizer of the checkpoint.")
    return index


def _positions(config: OmniConfig) -> dict[str, dict[str, int]]:
    thinker = {"position_id_per_seconds": config.thinker.position_id_per_seconds, "spatial_merge_size": config.thinker.vision.spatial_merge_size}
    talker = config.talker
    if talker is None:
        return {"thinker": thinker, "talker": thinker}
    return {"thinker": thinker, "talker": {"position_id_per_seconds": talker.position_id_per_seconds, "spatial_merge_size": talker.spatial_merge_size}}


def _processors(folder: Path, config: OmniConfig) -> dict[str, dict[str, Any]]:
    """Constants of feature extraction, with the defaults of the Hugging Face classes where the files leave them out."""
    thinker, is_textual = config.thinker, config.family == TEXTUAL_TIME
    together = _read_json(folder / "processor_config.json", optional=True)
    image_path, video_path = folder / "preprocessor_config.json", folder / "video_preprocessor_config.json"
    nested = "image_processor" in together and "feature_extractor" in together and not image_path.is_file()
    image = _as_dict(together["image_processor"]) if nested else _read_json(image_path)
    sound = _as_dict(together["feature_extractor"]) if nested else image
    video = _as_dict(together.get("video_processor")) if nested else _read_json(video_path, optional=True)
    sampling = {name: sound.get(name, default) for name, default in (("sampling_rate", 16000), ("n_fft", 400), ("hop_length", 160), ("feature_size", 80))}
    sections = {
        "audio": {**sampling, "n_window": thinker.audio.n_window, "n_window_infer": thinker.audio.n_window_infer},
        "image": {**_vision(image, image_path), **_image_pixels(image)},
        "video": {**_vision(video or image, video_path if video else image_path), **(_video_pixels(video) if is_textual else VIDEO_PIXELS)},
    }
    if is_textual:
        sections["audio"]["convolutions"] = thinker.audio.convolutions
    _expect(image_path, "feature_size", sampling["feature_size"], thinker.audio.num_mel_bins)
    for name in ("image", "video"):
        path = video_path if name == "video" and video else image_path
        _expect(path, "patch_size", sections[name]["patch_size"], thinker.vision.patch_size)
        _expect(path, "temporal_patch_size", sections[name]["temporal_patch_size"], thinker.vision.temporal_patch_size)
        _expect(path, "merge_size", sections[name]["merge_size"], thinker.vision.spatial_merge_size)
    if sound.get("dither"):
        raise AntiphonError(f"{image_path} asks for dither {sound['dither']}, which makes features random; set it to 0.")
    return sections


def _vision(section: dict[str, Any], path: Path) -> dict[str, Any]:
    for step in ("do_resize", "do_rescale", "do_normalize", "do_convert_rgb"):
        if section.get(step) is False:
            raise AntiphonError(f"{path} switches {step} off; expected it on, as the published models have it.")
    return {
        "patch_size": section.get("patch_size", 14), "temporal_patch_size": section.get("temporal_patch_size", 2), "merge_size": section.get("merge_size", 2),
        "image_mean": list(section.get("image_mean") or CLIP_MEAN), "image_std": list(section.get("image_std") or CLIP_STD),
        "rescale_factor": section.get("rescale_factor", 1 / 255), "resample": section.get("resample", 3),
    }  # fmt: skip


def _image_pixels(section: dict[str, Any]) -> dict[str, int]:
    size = _as_dict(section.get("size"))
    return {
        "min_pixels": section.get("min_pixels") or size.get("shortest_edge") or 56 * 56,
        "max_pixels": section.get("max_pixels") or size.get("longest_edge") or 28 * 28 * 1280,
    }


def _video_pixels(section: dict[str, Any]) -> dict[str, int]:
    """Pixels of a video frame. The size of a Qwen3VLVideoProcessor counts for whole videos: there its cap per frame stands, which is VIDEO_PIXELS."""
    size = _as_dict(section.get("size"))
    if section.get("video_processor_type") == "Qwen3VLVideoProcessor" or not size:
        return VIDEO_PIXELS
    return {
        "min_pixels": size.get("shortest_edge") or VIDEO_PIXELS["min_pixels"],
        "max_pixels": size.get("longest_edge") or VIDEO_PIXELS["max_pixels"],
    }


def _expect(path: Path, name: str, found: object, expected: object) -> None:
    if found != expected:
        raise AntiphonError(f"{path} and config.json disagree: {name} is {found}, expected {expected}; use the files of one checkpoint.")
