"""Reads a checkpoint's configuration files once and checks them; every error names the file and the field."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ..runtime.errors import AntiphonError
from ..runtime.json_file import read_json_object
from .check_config import check_config
from .config import (
    FAMILIES,
    AudioConfig,
    Code2WavConfig,
    DecoderConfig,
    OmniConfig,
    RopeConfig,
    TalkerConfig,
    ThinkerConfig,
    VisionConfig,
)
from .config_bounds import LARGEST_NUMBER, LONGEST_NAME, excess, unusable_name
from .quantized_checkpoint import refuse_quantized_config

ALIASES = {"qwen3_omni_next": "qwen3_5_omni"}
"""Other names that checkpoints give a family."""
LARGEST_CONFIG = 8 * 2**20
"""Bytes of config.json; the published ones have up to 40,000, and one that lists every expert that stays unquantised some 3,000,000."""


def read_config(checkpoint: str | Path) -> OmniConfig:
    """Read and check `config.json` of the folder `checkpoint`.

    Raises AntiphonError when the file is missing, is not JSON, names an unknown family or a quantised checkpoint, lacks a field, states a size beyond all
    bounds or contradicts itself.
    """
    path = Path(checkpoint) / "config.json"
    if not is_file(path):
        raise AntiphonError(f"No checkpoint at {str(checkpoint):.200}: expected a folder with config.json; give the folder of a Hugging Face checkpoint.")
    raw = read_json_object(path, largest=LARGEST_CONFIG)
    name = raw.get("model_type")
    family = ALIASES.get(name, name) if isinstance(name, str) else name
    if family not in FAMILIES:
        raise AntiphonError(f"{path}: unknown model family {_short(family)}; expected model_type to be one of {', '.join((*FAMILIES, *ALIASES))}.")
    refuse_quantized_config(path, raw)
    reader = ConfigReader(raw, path)
    if family == "qwen3_5_omni":
        from .qwen3_5_omni.config import read_qwen3_5_omni

        config = read_qwen3_5_omni(reader)
    else:
        config = reader.omni(family)
    check_config(config, path)
    return config


class ConfigReader:
    """Turns the JSON object into dataclasses; a missing field names its full path."""

    def __init__(self, raw: dict[str, Any], path: Path) -> None:
        self.raw, self.path = raw, path

    def section(self, *keys: str) -> dict[str, Any]:
        node: Any = self.raw
        for depth, key in enumerate(keys):
            node = node.get(key) if isinstance(node, dict) else None
            if not isinstance(node, dict):
                raise AntiphonError(f"{self.path}: section {'.'.join(keys[: depth + 1])} is missing; use the complete config.json of the checkpoint.")
        return node

    def build(self, cls: type, keys: tuple[str, ...], **given: Any) -> Any:
        """Fill dataclass `cls` from section `keys`; `given` are fields computed by the caller."""
        section = self.section(*keys) if keys else self.raw
        values = dict(given)
        for entry in dataclasses.fields(cls):
            if entry.name in values:
                continue
            value = section.get(entry.name) if entry.type in PLAIN_TYPES else None
            if value is None:
                if entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING:
                    raise AntiphonError(f"{self.path}: field {'.'.join((*keys, entry.name))} is missing; use the complete config.json of the checkpoint.")
                continue
            values[entry.name] = tuple(value) if isinstance(value, list) else value
        for entry in dataclasses.fields(cls):
            if entry.name in values:
                expected = _violated(cls, entry, values[entry.name])
                if expected:
                    name, found = ".".join((*keys, entry.name)), _short(values[entry.name])
                    raise AntiphonError(f"{self.path}: field {name} is {found}, expected {expected}; correct the file.")
        return cls(**values)

    def rope(self, keys: tuple[str, ...]) -> RopeConfig:
        section = self.section(*keys)
        parameters = section.get("rope_parameters") or section.get("rope_scaling") or {}
        if not isinstance(parameters, dict):
            raise AntiphonError(f"{self.path}: {'.'.join(keys)}.rope_scaling is {_short(parameters)}, expected an object; correct the file.")
        kind = parameters.get("rope_type", parameters.get("type", "default"))
        if kind not in ("default", "mrope"):
            raise AntiphonError(f"{self.path}: {'.'.join(keys)} asks for rope_type {_short(kind)}; only default rotary embeddings are supported.")
        theta = parameters.get("rope_theta", section.get("rope_theta"))
        if theta is None:
            raise AntiphonError(f"{self.path}: field {'.'.join(keys)}.rope_theta is missing; use the complete config.json of the checkpoint.")
        sections = parameters.get("mrope_section") or []
        if isinstance(theta, bool) or not isinstance(theta, int | float) or not 0 < theta <= LARGEST_NUMBER:
            raise AntiphonError(
                f"{self.path}: {'.'.join(keys)}.rope_theta is {_short(theta)}, expected a number above 0 and up to {LARGEST_NUMBER:g}; correct the file."
            )
        if not isinstance(sections, list) or not all(_is_count(count) for count in sections):
            raise AntiphonError(f"{self.path}: {'.'.join(keys)}.mrope_section is {_short(sections)}, expected a list of counts; correct the file.")
        return RopeConfig(float(theta), tuple(sections))

    def vision(self, keys: tuple[str, ...]) -> VisionConfig:
        section = self.section(*keys)
        # Published files leave the base out; files written by transformers 5.23 state it.
        parameters = section.get("rope_parameters")
        stated = {**section, **(parameters if isinstance(parameters, dict) else {})}.get("rope_theta")
        given = {} if stated is None else {"rope_theta": stated}
        if section.get("num_heads") is None and section.get("num_attention_heads") is not None:  # TensorRT-Edge-LLM takes either name
            given["num_heads"] = section["num_attention_heads"]
        vision: VisionConfig = self.build(VisionConfig, keys, **given)
        return vision

    def decoder(self, keys: tuple[str, ...]) -> DecoderConfig:
        section = self.section(*keys)
        heads, hidden = section.get("num_attention_heads"), section.get("hidden_size")
        if not isinstance(heads, int) or not isinstance(hidden, int) or heads <= 0:
            raise AntiphonError(f"{self.path}: {'.'.join(keys)} needs hidden_size and num_attention_heads as positive integers; correct the file.")
        if section.get("hidden_act") not in (None, "silu"):
            raise AntiphonError(f"{self.path}: {'.'.join(keys)}.hidden_act is {_short(section['hidden_act'])}, expected 'silu'; use a model of this family.")
        tied = bool(section.get("tie_word_embeddings", False)) or bool(self.section(*keys[:-1]).get("tie_word_embeddings", False))
        return self.build(
            DecoderConfig, keys, head_dim=section.get("head_dim") or hidden // heads, rope=self.rope(keys),
            intermediate_size=section.get("intermediate_size") or 0, tie_word_embeddings=tied,
        )  # fmt: skip

    def check_names(self, field: str, names: Any) -> None:
        """Refuse a name that a sentence, a prompt or a table cannot hold."""
        found = unusable_name(names)
        if found is not None:
            raise AntiphonError(f"{self.path}: {field} holds the name {found}, expected 1 to {LONGEST_NAME} printable letters; correct the file.")

    def omni(self, family: str) -> OmniConfig:
        thinker = self.build(
            ThinkerConfig, ("thinker_config",), text=self.decoder(("thinker_config", "text_config")),
            audio=self.build(AudioConfig, ("thinker_config", "audio_config")),
            vision=self.vision(("thinker_config", "vision_config")),
        )  # fmt: skip
        talker = code2wav = None
        if self.raw.get("enable_audio_output", True):
            predictor = self.decoder(("talker_config", "code_predictor_config"))
            # The reference gives every Talker layer experts, whatever mlp_only_layers and decoder_sparse_step say.
            text = dataclasses.replace(self.decoder(("talker_config", "text_config")), mlp_only_layers=(), decoder_sparse_step=1)
            voices = self.section("talker_config").get("speaker_id") or {}
            if not isinstance(voices, dict) or not all(_is_count(row) for row in voices.values()):
                raise AntiphonError(f"{self.path}: talker_config.speaker_id is {_short(voices)}, expected voices with their codec ids; correct the file.")
            self.check_names("talker_config.speaker_id", voices)
            speaker_id = {name.lower(): row for name, row in voices.items()}
            talker = self.build(TalkerConfig, ("talker_config",), text=text, predictor=predictor, speaker_id=speaker_id)
            code2wav = self.build(Code2WavConfig, ("code2wav_config",), rope=self.rope(("code2wav_config",)))
        return self.build(OmniConfig, (), family=family, thinker=thinker, talker=talker, code2wav=code2wav, raw=self.raw)


PLAIN_TYPES = ("int", "float", "bool", "str", "tuple[int, ...]", "tuple[str, ...]")
"""Of the fields that a file may state; the others are made from sections."""


def _violated(cls: type, entry: dataclasses.Field[Any], value: Any) -> str:
    """What the value of a plain field of `cls` should be instead; empty where it is right. Sizes are positive; ids and optional counts may be 0."""
    if entry.type == "int":
        lowest = 0 if "_id" in entry.name or entry.default == 0 or entry.name in ("accept_hidden_layer", "intermediate_size") else 1
        return excess(cls, entry.name, value) if _is_count(value) and value >= lowest else f"an integer of at least {lowest}"
    if entry.type == "tuple[int, ...]":
        counts = isinstance(value, tuple) and all(_is_count(item) for item in value)
        return excess(cls, entry.name, value) if counts else "a list of integers of at least 0"
    if entry.type == "tuple[str, ...]":
        names = isinstance(value, tuple) and unusable_name(value) is None
        return excess(cls, entry.name, value) if names else "a list of names"
    if entry.type == "float":
        plain = isinstance(value, int | float) and not isinstance(value, bool)
        return "" if plain and (0 < value <= LARGEST_NUMBER or value == entry.default) else f"a number above 0 and up to {LARGEST_NUMBER:g}"
    kinds = {"bool": bool, "str": str}
    return excess(cls, entry.name, value) if isinstance(value, kinds.get(str(entry.type), object)) else f"a value of type {entry.type}"


def is_file(path: Path) -> bool:
    """Whether a file is at `path`; also where the path is longer than any file system takes."""
    try:
        return path.is_file()
    except OSError:
        return False


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
