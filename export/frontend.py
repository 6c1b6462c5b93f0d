"""Writes the bundle's `frontend/` folder from a checkpoint's tokenizer and processor files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from ..graphs.config import NO_ID, AudioConfig, OmniConfig, VisionConfig
from ..runtime.bundle.errors import AntiphonError
from ..runtime.bundle.json_file import read_json_object
from ..runtime.frontend.constants import SCHEMA
from ..runtime.frontend.prompt.tokenizer_json import (
    check_added,
    check_vocabulary,
    one_sentence,
    read_tokenizer,
)
from .chat_template import read_chat_template
from .processor_values import check_generation, check_processors, short

PRETOKENS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| "
    r"?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The pattern by which Qwen2's tokenizer splits text before BPE."""

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

VIDEO_PIXELS = {"min_pixels": 128 * 32 * 32, "max_pixels": 768 * 32 * 32}
"""Pixels of a video frame. Qwen3OmniMoeProcessor always passes these; the size in a checkpoint is ignored."""


LARGEST_JSON = 8 * 2**20
"""Bytes of a tokenizer, processor or generation configuration; published files have up to 15,000."""
LARGEST_MERGES = 64 * 2**20
TRIED = tuple(letter * 500 for letter in (" ", "\n", "a", "A", "1", "'", ".", "\u00e9", "\u4f60"))
"""Texts on which a backtracking pattern takes longest."""


def write_frontend(checkpoint_folder: Path, config: OmniConfig, destination: Path) -> None:
    """Write tokenizer.json, chat_template.jinja and frontend.json into the folder `destination`.

    These are all files that the runtime's front end needs. Reads the checkpoint's tokenizer, chat template,
    preprocessor and generation files. As in transformers, a missing generation or video file means the
    defaults. Raises AntiphonError, with the name of the file, if one is missing, damaged or contradicts
    config.json.
    """
    checkpoint_folder, destination = Path(checkpoint_folder), Path(destination)
    tokenizer_config = _read_json(checkpoint_folder / "tokenizer_config.json", optional=True)
    tokenizer = _tokenizer(checkpoint_folder, tokenizer_config)
    names = _special_tokens(tokenizer_config)
    _try_tokenizer(tokenizer, config, checkpoint_folder)
    generation = _read_json(checkpoint_folder / "generation_config.json", optional=True)
    check_generation(generation, checkpoint_folder / "generation_config.json")
    constants: dict[str, Any] = {
        "schema": SCHEMA,
        "family": config.family,
        "special_tokens": names,
        # With thinking enabled, the Talker would speak the thinking text.
        "template_switches": {"enable_thinking": False} if config.thinker.may_think else {},
        "ids": _ids(config, tokenizer, names, checkpoint_folder),
        "positions": _positions(config),
        **_processors(checkpoint_folder, config),
        "vision": {"num_position_embeddings": config.thinker.vision.num_position_embeddings}
        if config.thinker.vision
        else None,
        "generation": generation,
    }
    if config.thinker.textual_time:
        constants["timestamps"] = {
            "format": config.thinker.timestamp_format,
            "audio_seconds": config.thinker.audio_timestamp_seconds,
        }
    packed = (
        {}
        if (checkpoint_folder / "chat_template.jinja").is_file()
        else _read_json(checkpoint_folder / "chat_template.json", optional=True)
    )
    media = ("audio",) * (config.thinker.audio is not None) + ("image", "video") * (
        config.thinker.vision is not None
    )
    template = read_chat_template(
        checkpoint_folder, tokenizer_config, packed, {**names, **constants["template_switches"]}, media
    )
    destination.mkdir(parents=True, exist_ok=True)
    # tokenizer.save raises a plain Exception if the disk is full
    (destination / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    (destination / "chat_template.jinja").write_text(template, encoding="utf-8")
    (destination / "frontend.json").write_text(
        json.dumps(constants, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def _read_json(path: Path, optional: bool = False) -> dict[str, Any]:
    if not path.is_file():
        if optional:
            return {}
        raise AntiphonError(
            f"The checkpoint has no {path.name}: expected it at {path}; download the complete checkpoint."
        )
    return read_json_object(path, largest=LARGEST_JSON)


def _tokenizer(folder: Path, tokenizer_config: dict[str, Any]) -> Tokenizer:
    """The tokenizer of tokenizer.json, or built from vocab.json and merges.txt.

    The tokens that only tokenizer_config.json lists are added.
    """
    stored = folder / "tokenizer.json"
    if stored.is_file():
        tokenizer = read_tokenizer(stored)
    else:
        tokenizer = _built_tokenizer(folder)
        if not tokenizer_config.get("added_tokens_decoder"):
            raise AntiphonError(
                f"{folder / 'tokenizer_config.json'} is missing or lists no added_tokens_decoder; "
                "download the complete checkpoint."
            )
    added, source = (
        _as_dict(tokenizer_config.get("added_tokens_decoder")),
        f"{folder / 'tokenizer_config.json'}",
    )
    numbered = {index: int(index) if index.isdecimal() and len(index) < 10 else index for index in added}
    for index, token in added.items():
        check_added(token, numbered[index], source)
    for index, token in sorted(added.items(), key=lambda item: numbered[item[0]]):
        if tokenizer.token_to_id(token["content"]) is None:
            flags = {
                name: bool(token.get(name, False))
                for name in ("lstrip", "rstrip", "single_word", "normalized", "special")
            }
            tokenizer.add_tokens([AddedToken(token["content"], **flags)])
        if tokenizer.token_to_id(token["content"]) != numbered[index]:
            raise AntiphonError(
                f"{source} gives {short(token['content'])} the id {index}, but the vocabulary gives it "
                f"{tokenizer.token_to_id(token['content'])}; use the files of one checkpoint."
            )
    return tokenizer


def _built_tokenizer(folder: Path) -> Tokenizer:
    """A byte-level BPE tokenizer from vocab.json and merges.txt, without added tokens (Qwen2Tokenizer)."""
    for name in ("vocab.json", "merges.txt"):
        if not (folder / name).is_file():
            raise AntiphonError(
                "The checkpoint has no tokenizer: expected tokenizer.json, or vocab.json and merges.txt, "
                f"in {folder}, and {name} is missing."
            )
    check_vocabulary(read_json_object(folder / "vocab.json"), f"{folder / 'vocab.json'}")
    if (folder / "merges.txt").stat().st_size > LARGEST_MERGES:
        raise AntiphonError(
            f"{folder / 'merges.txt'} has more than {LARGEST_MERGES:,} bytes, which no vocabulary needs; "
            "download the file again."
        )
    with one_sentence(f"vocab.json and merges.txt in {folder} cannot be read as a BPE vocabulary"):
        tokenizer = Tokenizer(BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(PRETOKENS), behavior="isolated", invert=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _try_tokenizer(tokenizer: Tokenizer, config: OmniConfig, folder: Path) -> None:
    """Raise AntiphonError if the tokenizer fails on plain text or exceeds the Thinker's vocabulary."""
    with one_sentence(f"The tokenizer in {folder} cannot encode plain text"):
        for text in TRIED:
            tokenizer.encode(text, add_special_tokens=False)
    last, rows = (
        max(tokenizer.get_vocab(with_added_tokens=True).values(), default=0),
        config.thinker.text.vocab_size,
    )
    if last >= rows:
        raise AntiphonError(
            f"The tokenizer in {folder} has the id {last}, for which the {rows} of vocab_size are too few; "
            "use the files of one checkpoint."
        )


def _special_tokens(tokenizer_config: dict[str, Any]) -> dict[str, str]:
    """The named tokens (eos_token, audio_eos_token, ...) that a chat template can use."""
    named = {**tokenizer_config, **_as_dict(tokenizer_config.get("extra_special_tokens"))}
    texts = {
        name: value.get("content") if isinstance(value, dict) else value
        for name, value in named.items()
        if name.endswith("_token")
    }
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def _as_dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _ids(config: OmniConfig, tokenizer: Tokenizer, names: dict[str, str], folder: Path) -> dict[str, int]:
    thinker = config.thinker
    ids = {
        "im_start": config.im_start_token_id,
        "im_end": config.im_end_token_id,
        "system": config.system_token_id,
        "user": config.user_token_id,
        "assistant": config.assistant_token_id,
        "audio": thinker.audio_token_id,
        "image": thinker.image_token_id,
        "video": thinker.video_token_id,
        "audio_start": thinker.audio_start_token_id,
        "vision_start": thinker.vision_start_token_id,
        "tts_pad": config.tts_pad_token_id,
    }
    for name, index in ids.items():
        if index != NO_ID and tokenizer.id_to_token(index) is None:
            raise AntiphonError(
                f"config.json in {folder} gives {name} the token id {index}, which the tokenizer lacks; "
                "use the tokenizer of the checkpoint."
            )
    ids["audio_end"] = (
        _mark(tokenizer, names.get("audio_eos_token", "<|audio_end|>"), "ends audio", folder)
        if thinker.audio
        else NO_ID
    )
    if thinker.textual_time:
        seen = thinker.vision is not None
        ids["vision_end"] = (
            _mark(
                tokenizer, names.get("vision_eos_token", "<|vision_end|>"), "ends an image or a video", folder
            )
            if seen
            else NO_ID
        )
    if thinker.may_think:
        thoughts = {
            "think_open": tokenizer.token_to_id("<think>"),
            "think_close": tokenizer.token_to_id("</think>"),
        }
        ids |= {name: index for name, index in thoughts.items() if index is not None}
    return ids


def _mark(tokenizer: Tokenizer, token: str, purpose: str, folder: Path) -> int:
    index: int | None = tokenizer.token_to_id(token)
    if index is None:
        raise AntiphonError(
            f"The tokenizer in {folder} has no token {short(token)}, which {purpose} in a prompt; "
            "use the tokenizer of the checkpoint."
        )
    return index


def _positions(config: OmniConfig) -> dict[str, dict[str, int]]:
    vision = config.thinker.vision
    thinker = {
        "position_id_per_seconds": config.thinker.position_id_per_seconds or 1,
        "spatial_merge_size": vision.spatial_merge_size if vision else 1,
    }
    talker = config.talker
    if talker is None:
        return {"thinker": thinker, "talker": thinker}
    return {
        "thinker": thinker,
        "talker": {
            "position_id_per_seconds": talker.position_id_per_seconds,
            "spatial_merge_size": talker.spatial_merge_size,
        },
    }


def _processors(folder: Path, config: OmniConfig) -> dict[str, dict[str, Any] | None]:
    """The constants of feature extraction; None for media that the model does not take.

    Constants that the files do not state have the defaults of the Hugging Face classes.
    """
    thinker = config.thinker
    if thinker.audio is None and thinker.vision is None:
        return {"audio": None, "image": None, "video": None}
    together = _read_json(folder / "processor_config.json", optional=True)
    image_path, video_path = folder / "preprocessor_config.json", folder / "video_preprocessor_config.json"
    nested = ("image_processor" in together or "feature_extractor" in together) and not image_path.is_file()
    image = _as_dict(together.get("image_processor")) if nested else _read_json(image_path)
    sound = _as_dict(together.get("feature_extractor")) if nested else image
    video = _as_dict(together.get("video_processor")) if nested else _read_json(video_path, optional=True)
    pictures = (
        _pictures(config, thinker.vision, image, image_path, video, video_path)
        if thinker.vision
        else {"image": None, "video": None}
    )
    sections = {"audio": _sound(thinker.audio, sound, image_path) if thinker.audio else None, **pictures}
    check_processors({name: section for name, section in sections.items() if section is not None}, image_path)
    return sections


def _sound(audio: AudioConfig, section: dict[str, Any], path: Path) -> dict[str, Any]:
    constants = {
        name: section.get(name, default)
        for name, default in (
            ("sampling_rate", 16000),
            ("n_fft", 400),
            ("hop_length", 160),
            ("feature_size", 80),
        )
    }
    _expect(path, "feature_size", constants["feature_size"], audio.num_mel_bins)
    if section.get("dither"):
        raise AntiphonError(
            f"{path} asks for dither {short(section['dither'])}, which makes features random; set it to 0."
        )
    return constants | {
        "n_window": audio.n_window,
        "n_window_infer": audio.n_window_infer,
        "convolutions": audio.convolutions,
    }


def _pictures(
    config: OmniConfig,
    vision: VisionConfig,
    image: dict[str, Any],
    image_path: Path,
    video: dict[str, Any],
    video_path: Path,
) -> dict[str, dict[str, Any] | None]:
    sections: dict[str, dict[str, Any] | None] = {}
    for name, section, path, pixels in (
        ("image", image, image_path, _image_pixels(image)),
        (
            "video",
            video or image,
            video_path if video else image_path,
            _video_pixels(video) if config.thinker.states_video_size else VIDEO_PIXELS,
        ),
    ):
        sections[name] = constants = {**_vision(section, path), **pixels}
        _expect(path, "patch_size", constants["patch_size"], vision.patch_size)
        _expect(path, "temporal_patch_size", constants["temporal_patch_size"], vision.temporal_patch_size)
        _expect(path, "merge_size", constants["merge_size"], vision.spatial_merge_size)
    return sections


def _vision(section: dict[str, Any], path: Path) -> dict[str, Any]:
    for step in ("do_resize", "do_rescale", "do_normalize", "do_convert_rgb"):
        if section.get(step) is False:
            raise AntiphonError(
                f"{path} switches {step} off; expected it on, as the published models have it."
            )
    return {
        "patch_size": section.get("patch_size", 14),
        "temporal_patch_size": section.get("temporal_patch_size", 2),
        "merge_size": section.get("merge_size", 2),
        "image_mean": _three(section, "image_mean", CLIP_MEAN, path),
        "image_std": _three(section, "image_std", CLIP_STD, path),
        "rescale_factor": section.get("rescale_factor", 1 / 255),
        "resample": section.get("resample", 3),
    }


def _three(section: dict[str, Any], name: str, default: tuple[float, ...], path: Path) -> list[Any]:
    value = section.get(name) or list(default)
    if not isinstance(value, list):
        raise AntiphonError(f"{path}: {name} is {short(value)}, expected three numbers; correct the file.")
    return value


def _image_pixels(section: dict[str, Any]) -> dict[str, int]:
    size = _as_dict(section.get("size"))
    return {
        "min_pixels": section.get("min_pixels") or size.get("shortest_edge") or 56 * 56,
        "max_pixels": section.get("max_pixels") or size.get("longest_edge") or 28 * 28 * 1280,
    }


def _video_pixels(section: dict[str, Any]) -> dict[str, int]:
    """The pixel limits of a video frame.

    The size in the files of a Qwen3VLVideoProcessor limits a whole video; its limit per frame is
    VIDEO_PIXELS.
    """
    size = _as_dict(section.get("size"))
    if section.get("video_processor_type") == "Qwen3VLVideoProcessor" or not size:
        return VIDEO_PIXELS
    return {
        "min_pixels": size.get("shortest_edge") or VIDEO_PIXELS["min_pixels"],
        "max_pixels": size.get("longest_edge") or VIDEO_PIXELS["max_pixels"],
    }


def _expect(path: Path, name: str, found: object, expected: object) -> None:
    if found != expected or type(found) is not type(expected):
        raise AntiphonError(
            f"{path} and config.json disagree: {name} is {short(found)}, expected {expected}; "
            "use the files of one checkpoint."
        )
