"""Reads a checkpoint's configuration files once and checks them; every error names the file and the field."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from ..runtime.errors import AntiphonError
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

ALIASES = {"qwen3_omni_next": "qwen3_5_omni"}
"""Other names that checkpoints give a family."""


def read_config(checkpoint: str | Path) -> OmniConfig:
    """Read and check `config.json` of the folder `checkpoint`.

    Raises AntiphonError when the file is missing, is not JSON, names an unknown family, lacks a field or contradicts itself.
    """
    path = Path(checkpoint) / "config.json"
    if not path.is_file():
        raise AntiphonError(f"No checkpoint at {checkpoint}: expected a folder with config.json; give the folder of a Hugging Face checkpoint.")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AntiphonError(f"{path} is not valid JSON ({error}); download the file again.") from None
    if not isinstance(raw, dict):
        raise AntiphonError(f"{path} holds a {type(raw).__name__} where an object was expected; download the file again.")
    name = raw.get("model_type")
    family = ALIASES.get(name, name) if isinstance(name, str) else name
    if family not in FAMILIES:
        raise AntiphonError(f"{path}: unknown model family {family!r}; expected model_type to be one of {', '.join((*FAMILIES, *ALIASES))}.")
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
            value = section.get(entry.name)
            if value is None:
                if entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING:
                    raise AntiphonError(f"{self.path}: field {'.'.join((*keys, entry.name))} is missing; use the complete config.json of the checkpoint.")
                continue
            values[entry.name] = tuple(value) if isinstance(value, list) else value
        for entry in dataclasses.fields(cls):
            if entry.name in values:
                expected = _violated(entry, values[entry.name])
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
            raise AntiphonError(f"{self.path}: {'.'.join(keys)} asks for rope_type {kind!r}; only default rotary embeddings are supported.")
        theta = parameters.get("rope_theta", section.get("rope_theta"))
        if theta is None:
            raise AntiphonError(f"{self.path}: field {'.'.join(keys)}.rope_theta is missing; use the complete config.json of the checkpoint.")
        sections = parameters.get("mrope_section") or []
        if isinstance(theta, bool) or not isinstance(theta, int | float) or theta <= 0:
            raise AntiphonError(f"{self.path}: {'.'.join(keys)}.rope_theta is {_short(theta)}, expected a number above 0; correct the file.")
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
            speaker_id = {name.lower(): row for name, row in voices.items()}
            talker = self.build(TalkerConfig, ("talker_config",), text=text, predictor=predictor, speaker_id=speaker_id)
            code2wav = self.build(Code2WavConfig, ("code2wav_config",), rope=self.rope(("code2wav_config",)))
        return self.build(OmniConfig, (), family=family, thinker=thinker, talker=talker, code2wav=code2wav, raw=self.raw)


def _violated(entry: dataclasses.Field[Any], value: Any) -> str:
    """What the value of a plain field should be instead; empty where it is right. Sizes are positive; ids and optional counts may be 0."""
    if entry.type == "int":
        lowest = 0 if "_id" in entry.name or entry.default == 0 or entry.name in ("accept_hidden_layer", "intermediate_size") else 1
        return "" if _is_count(value) and value >= lowest else f"an integer of at least {lowest}"
    if entry.type == "tuple[int, ...]":
        return "" if isinstance(value, tuple) and all(_is_count(item) for item in value) else "a list of integers of at least 0"
    if entry.type == "float":
        plain = isinstance(value, int | float) and not isinstance(value, bool)
        return "" if plain and (value > 0 or value == entry.default) else "a number above 0"
    kinds = {"bool": bool, "str": str}
    return "" if isinstance(value, kinds.get(str(entry.type), object)) else f"a value of type {entry.type}"


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
