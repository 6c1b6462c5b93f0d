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
from .stored_parts import StoredParts, stored_parts
from .thinker_alone import THINKERS, whole_config

ALIASES = {"qwen3_omni_next": "qwen3_5_omni"}
"""Other names that checkpoints give a family."""
THINKER = ("thinker_config",)
FIELD_ALIASES: dict[tuple[type, str], tuple[str, ...]] = {
    (DecoderConfig, "num_experts"): ("num_local_experts",),
    (AudioConfig, "encoder_layers"): ("num_hidden_layers",),
    (AudioConfig, "encoder_attention_heads"): ("num_attention_heads",),
    (AudioConfig, "d_model"): ("hidden_size",),
    (VisionConfig, "num_heads"): ("num_attention_heads",),
    (VisionConfig, "depth"): ("num_hidden_layers",),
    (VisionConfig, "in_channels"): ("in_chans",),
}
"""Further names of fields: those of the attribute maps in transformers 4.57 to 5.23, and of TensorRT-Edge-LLM 0.11. The first one that is there counts."""
SQUARES = ("patch_size", "temporal_patch_size")
"""Sizes that transformers 5 may write as a list with one number an axis."""
SPLIT_FIELDS = ("codebook_dim", "quantizer_dim", "latent_dim", "pre_conv_kernel", "num_semantic_quantizers", "symmetric_trim", "sample_rate")
"""What says how a SplitRVQ is built: published Qwen3-Omni files carry some of these, and the reference ignores them."""


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
    raw, rename = whole_config(raw, path)
    name = raw.get("model_type")
    family = ALIASES.get(name, name) if isinstance(name, str) else name
    if family not in FAMILIES:
        known = ", ".join((*FAMILIES, *ALIASES, *THINKERS))
        raise AntiphonError(f"{path}: unknown model family {_short(family)}; expected model_type to be one of {known}.")
    reader = ConfigReader(raw, path, stored_parts(path.parent, rename))
    if family == "qwen3_5_omni":
        from .qwen3_5_omni.config import read_qwen3_5_omni

        config = read_qwen3_5_omni(reader)
    else:
        config = reader.omni()
    config = dataclasses.replace(config, rename=rename, left_out=tuple(reader.left_out))
    check_config(config, path)
    return config


class ConfigReader:
    """Turns the JSON object into dataclasses; a missing field names its full path."""

    def __init__(self, raw: dict[str, Any], path: Path, stored: StoredParts) -> None:
        self.raw, self.path, self.stored = raw, path, stored
        self.left_out: list[str] = []

    def optional(self, part: str, *keys: str) -> bool:
        """Whether the checkpoint has `part` of the model, whose section is `keys`; notes the reason where it has not.

        A section that is absent, null or empty, and weights without a tensor of the part, both mean a variant without it.
        """
        node: Any = self.raw
        for key in keys:
            node = node.get(key) if isinstance(node, dict) else None
        if node is None or node == {}:
            self.refuse_if_stored(part, ".".join(keys))
            self.left_out.append(f"{part}: config.json has no {'.'.join(keys)}")
            return False
        return self.holds(part)

    def holds(self, part: str) -> bool:
        """Whether the weights hold `part`; notes the reason where they do not."""
        stored: bool = getattr(self.stored, part)
        if not stored:
            self.left_out.append(f"{part}: the weights hold no tensor of it")
        return stored

    def refuse_if_stored(self, part: str, section: str) -> None:
        """Raise AntiphonError where the weights hold `part`, whose `section` is missing: the configuration belongs to other weights."""
        if self.stored.known and getattr(self.stored, part):
            raise AntiphonError(f"{self.path}: section {section} is missing, but the weights hold {part}; use the config.json that belongs to these weights.")

    def speaks(self, *sections: str) -> bool:
        """Whether the checkpoint has speech: `enable_audio_output` is not false, one of `sections` is there, and so are tensors.

        Raises AntiphonError where it is half there.
        """
        flag = self.raw.get("enable_audio_output")
        if flag is not None and not isinstance(flag, bool):
            raise AntiphonError(f"{self.path}: enable_audio_output is {_short(flag)}, expected true or false; correct the file.")
        if flag is False:
            self.left_out.append("speech: enable_audio_output is false")
            return False
        missing = [name for name in sections if not self.raw.get(name)]
        if len(missing) == len(sections):
            self.refuse_if_stored("speech", missing[0])
            self.left_out.append(f"speech: config.json has no {' and no '.join(missing)}")
            return False
        if not self.holds("speech"):
            return False
        if missing:
            there = next(name for name in sections if name not in missing)
            raise AntiphonError(
                f"{self.path}: section {missing[0]} is missing beside {there}; use the complete config.json of the checkpoint, or set "
                "enable_audio_output to false for a bundle without speech."
            )
        return True

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
            value = self.value(cls, section, entry.name)
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

    def value(self, cls: type, section: dict[str, Any], name: str) -> Any:
        """Field `name` of `section` under any name that transformers wrote for it; None where it is absent."""
        value = next((section[alias] for alias in (name, *FIELD_ALIASES.get((cls, name), ())) if section.get(alias) is not None), None)
        if name in SQUARES and isinstance(value, list) and value and all(item == value[0] for item in value):
            return value[0]
        return value

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

    def omni(self) -> OmniConfig:
        """A checkpoint of Qwen3-Omni. What only the other family has is not read, whatever fields of its names a file carries."""
        thinker = self.build(
            ThinkerConfig, THINKER, text=self._experts(THINKER, least=0),
            audio=self.build(AudioConfig, (*THINKER, "audio_config"), convolutions=3) if self.optional("audio", *THINKER, "audio_config") else None,
            vision=self.vision((*THINKER, "vision_config")) if self.optional("vision", *THINKER, "vision_config") else None,
            **_defaults(ThinkerConfig, "timestamp_format", "audio_timestamp_seconds", "mtp_num_hidden_layers"),
        )  # fmt: skip
        talker = code2wav = None
        if self.speaks("talker_config", "code2wav_config"):
            predictor = self._plain(("talker_config", "code_predictor_config"))
            # The reference gives every Talker layer experts, whatever mlp_only_layers and decoder_sparse_step say.
            text = dataclasses.replace(self._experts(("talker_config",), least=1), mlp_only_layers=(), decoder_sparse_step=1)
            voices = self.section("talker_config").get("speaker_id") or {}
            if not isinstance(voices, dict) or not all(_is_count(row) for row in voices.values()):
                raise AntiphonError(f"{self.path}: talker_config.speaker_id is {_short(voices)}, expected voices with their codec ids; correct the file.")
            speaker_id = {name.lower(): row for name, row in voices.items()}
            talker = self.build(TalkerConfig, ("talker_config",), text=text, predictor=predictor, speaker_id=speaker_id, **_defaults(TalkerConfig))
            code2wav = self.build(Code2WavConfig, ("code2wav_config",), rope=self.rope(("code2wav_config",)), **_defaults(Code2WavConfig, *SPLIT_FIELDS))
        return self.build(OmniConfig, (), family="qwen3_omni_moe", thinker=thinker, talker=talker, code2wav=code2wav, raw=self.raw, codec_encoder=None)

    def _plain(self, keys: tuple[str, ...]) -> DecoderConfig:
        """A decoder of Qwen3-Omni: plain full attention in every layer."""
        section = self.section(*keys)
        types = section.get("layer_types") or []
        if not isinstance(types, list) or any(kind != "full_attention" for kind in types):
            raise AntiphonError(f"{self.path}: {'.'.join(keys)}.layer_types is {_short(types)}, expected full_attention alone; use a model of this family.")
        return dataclasses.replace(self.decoder(keys), **_defaults(DecoderConfig, "layer_types", "linear", "gated_attention", "zero_centred_norms"))

    def _experts(self, keys: tuple[str, ...], least: int) -> DecoderConfig:
        """The text decoder of a Thinker (`least` 0 experts: it may be dense) or Talker; what decides its experts is stated, never assumed."""
        keys = (*keys, "text_config")
        section, wanted = self.section(*keys), ["num_experts"]
        count = self.value(DecoderConfig, section, "num_experts")
        if count != 0 or least:
            wanted += ["num_experts_per_tok", "moe_intermediate_size", "norm_topk_prob"] + ["shared_expert_intermediate_size"] * least
        for name in wanted:
            if self.value(DecoderConfig, section, name) is None:
                raise AntiphonError(f"{self.path}: field {'.'.join((*keys, name))} is missing; use the complete config.json of the checkpoint.")
        if least and not count:
            raise AntiphonError(f"{self.path}: {'.'.join(keys)}.num_experts is {_short(count)}, expected at least {least}; correct the file.")
        text = self._plain(keys)
        return text if least else dataclasses.replace(text, shared_expert_intermediate_size=0)  # the reference's Thinker has no shared expert


def _defaults(cls: type, *names: str) -> dict[str, Any]:
    """The default of each field `names` of dataclass `cls`; of every field that has one where none is named."""
    found: dict[str, Any] = {}
    for entry in dataclasses.fields(cls):
        if entry.default is not dataclasses.MISSING:
            found[entry.name] = entry.default
        elif entry.default_factory is not dataclasses.MISSING:
            found[entry.name] = entry.default_factory()
    return {name: found[name] for name in names} if names else found


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
