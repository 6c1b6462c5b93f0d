"""Converts the JSON object of a config.json to dataclasses. Every error names the file and the field."""

# No library does this: msgspec and cattrs read one name per field. Here a field has several names, in the
# sections of two families. A default can come from another field (head_dim) or section
# (tie_word_embeddings). A part can be absent, with a reason that the plan prints. Bounds are a table by class
# and field, and errors name file, path, value and bound. A library could only replace the type checks, the
# four lines of `_violated`.

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ...runtime.bundle.errors import AntiphonError
from ..config import AudioConfig, DecoderConfig, RopeConfig, VisionConfig
from .config_bounds import LARGEST_NUMBER, LONGEST_NAME, excess, unusable_name
from .stored_parts import StoredParts

FIELD_ALIASES: dict[tuple[type, str], tuple[str, ...]] = {
    (DecoderConfig, "num_experts"): ("num_local_experts",),
    (AudioConfig, "encoder_layers"): ("num_hidden_layers",),
    (AudioConfig, "encoder_attention_heads"): ("num_attention_heads",),
    (AudioConfig, "d_model"): ("hidden_size",),
    (VisionConfig, "num_heads"): ("num_attention_heads",),
    (VisionConfig, "depth"): ("num_hidden_layers",),
    (VisionConfig, "in_channels"): ("in_chans",),
}
"""Further names of fields, from the attribute maps of transformers 4.57 to 5.23 and from TensorRT-Edge-LLM
0.11. The first name that is present is used."""
SQUARES = ("patch_size", "temporal_patch_size")
"""Sizes that transformers 5 may write as a list with one number per axis."""
PLAIN_TYPES = ("int", "float", "bool", "str", "tuple[int, ...]", "tuple[str, ...]")
"""Types of the fields that are read from a file; fields of other types are built from sections."""


class ConfigReader:
    """Converts the JSON object of a checkpoint of `family` to dataclasses."""

    def __init__(self, raw: dict[str, Any], path: Path, stored: StoredParts, family: str) -> None:
        self.raw, self.path, self.stored, self.family = raw, path, stored, family
        self.left_out: list[str] = []

    def optional(self, part: str, *keys: str) -> bool:
        """Whether the checkpoint has `part` of the model, configured by section `keys`.

        It has not if the section is absent, null or empty, or if the weights have no tensor of the part. The
        reason is added to `left_out`. Raises AntiphonError if only the weights have the part.
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
        """Whether the weights have `part`. If not, the reason is added to `left_out`."""
        stored: bool = getattr(self.stored, part)
        if not stored:
            self.left_out.append(f"{part}: the weights hold no tensor of it")
        return stored

    def refuse_if_stored(self, part: str, section: str) -> None:
        """Raise AntiphonError if the weights have `part`, although the configuration lacks its `section`."""
        if self.stored.known and getattr(self.stored, part):
            raise AntiphonError(
                f"{self.path}: section {section} is missing, but the weights hold {part}; "
                "use the config.json that belongs to these weights."
            )

    def speaks(self, *sections: str) -> bool:
        """Whether the checkpoint has speech: sections, tensors and no `enable_audio_output: false`.

        If not, the reason is added to `left_out`. Raises AntiphonError if only some of `sections` exist, or
        only the tensors.
        """
        flag = self.raw.get("enable_audio_output")
        if flag is not None and not isinstance(flag, bool):
            raise AntiphonError(
                f"{self.path}: enable_audio_output is {short(flag)}, expected true or false; "
                "correct the file."
            )
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
                f"{self.path}: section {missing[0]} is missing beside {there}; use the complete config.json "
                "of the checkpoint, or set enable_audio_output to false for a bundle without speech."
            )
        return True

    def section(self, *keys: str) -> dict[str, Any]:
        node: Any = self.raw
        for depth, key in enumerate(keys):
            node = node.get(key) if isinstance(node, dict) else None
            if not isinstance(node, dict):
                raise AntiphonError(
                    f"{self.path}: section {'.'.join(keys[: depth + 1])} is missing; "
                    "use the complete config.json of the checkpoint."
                )
        return node

    def build(self, cls: type, keys: tuple[str, ...], **given: Any) -> Any:
        """An instance of dataclass `cls` with the fields of section `keys` and the caller's fields `given`.

        Raises AntiphonError if a field is missing, has a wrong type or exceeds its bound.
        """
        section = self.section(*keys) if keys else self.raw
        values = dict(given)
        for entry in dataclasses.fields(cls):
            if entry.name in values:
                continue
            value = self.value(cls, section, entry.name) if entry.type in PLAIN_TYPES else None
            if value is None:
                if entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING:
                    raise AntiphonError(
                        f"{self.path}: field {'.'.join((*keys, entry.name))} is missing; "
                        "use the complete config.json of the checkpoint."
                    )
                continue
            values[entry.name] = tuple(value) if isinstance(value, list) else value
        for entry in dataclasses.fields(cls):
            if entry.name in values:
                expected = _violated(cls, entry, values[entry.name])
                if expected:
                    name, found = ".".join((*keys, entry.name)), short(values[entry.name])
                    raise AntiphonError(
                        f"{self.path}: field {name} is {found}, expected {expected}; correct the file."
                    )
        return cls(**values)

    def value(self, cls: type, section: dict[str, Any], name: str) -> Any:
        """The value of field `name` in `section`, under any of its names; None if it is absent."""
        value = next(
            (
                section[alias]
                for alias in (name, *FIELD_ALIASES.get((cls, name), ()))
                if section.get(alias) is not None
            ),
            None,
        )
        if name in SQUARES and isinstance(value, list) and value and all(item == value[0] for item in value):
            return value[0]
        return value

    def rope(self, keys: tuple[str, ...]) -> RopeConfig:
        section = self.section(*keys)
        parameters = section.get("rope_parameters") or section.get("rope_scaling") or {}
        if not isinstance(parameters, dict):
            raise AntiphonError(
                f"{self.path}: {'.'.join(keys)}.rope_scaling is {short(parameters)}, expected an object; "
                "correct the file."
            )
        kind = parameters.get("rope_type", parameters.get("type", "default"))
        if kind not in ("default", "mrope"):
            raise AntiphonError(
                f"{self.path}: {'.'.join(keys)} asks for rope_type {short(kind)}; "
                "only default rotary embeddings are supported."
            )
        theta = parameters.get("rope_theta", section.get("rope_theta"))
        if theta is None:
            raise AntiphonError(
                f"{self.path}: field {'.'.join(keys)}.rope_theta is missing; "
                "use the complete config.json of the checkpoint."
            )
        sections = parameters.get("mrope_section") or []
        if isinstance(theta, bool) or not isinstance(theta, int | float) or not 0 < theta <= LARGEST_NUMBER:
            raise AntiphonError(
                f"{self.path}: {'.'.join(keys)}.rope_theta is {short(theta)}, "
                f"expected a number above 0 and up to {LARGEST_NUMBER:g}; correct the file."
            )
        if not isinstance(sections, list) or not all(is_count(count) for count in sections):
            raise AntiphonError(
                f"{self.path}: {'.'.join(keys)}.mrope_section is {short(sections)}, "
                "expected a list of counts; correct the file."
            )
        return RopeConfig(float(theta), tuple(sections))

    def vision(self, keys: tuple[str, ...]) -> VisionConfig:
        section = self.section(*keys)
        # Published files do not state the base; files written by transformers 5.23 do.
        parameters = section.get("rope_parameters")
        stated = {**section, **(parameters if isinstance(parameters, dict) else {})}.get("rope_theta")
        given = {} if stated is None else {"rope_theta": stated}
        vision: VisionConfig = self.build(VisionConfig, keys, **given)
        return vision

    def decoder(self, keys: tuple[str, ...]) -> DecoderConfig:
        section = self.section(*keys)
        heads, hidden = section.get("num_attention_heads"), section.get("hidden_size")
        if not isinstance(heads, int) or not isinstance(hidden, int) or heads <= 0:
            raise AntiphonError(
                f"{self.path}: {'.'.join(keys)} needs hidden_size and num_attention_heads as positive "
                "integers; correct the file."
            )
        if section.get("hidden_act") not in (None, "silu"):
            raise AntiphonError(
                f"{self.path}: {'.'.join(keys)}.hidden_act is {short(section['hidden_act'])}, "
                "expected 'silu'; use a model of this family."
            )
        tied = bool(section.get("tie_word_embeddings", False)) or bool(
            self.section(*keys[:-1]).get("tie_word_embeddings", False)
        )
        return self.build(
            DecoderConfig,
            keys,
            head_dim=section.get("head_dim") or hidden // heads,
            rope=self.rope(keys),
            intermediate_size=section.get("intermediate_size") or 0,
            tie_word_embeddings=tied,
        )

    def check_names(self, field: str, names: Any) -> None:
        """Raise AntiphonError if one of `names` is not a string of printable characters or is too long."""
        found = unusable_name(names)
        if found is not None:
            raise AntiphonError(
                f"{self.path}: {field} holds the name {found}, expected 1 to {LONGEST_NAME} printable "
                "letters; correct the file."
            )


def defaults(cls: type, *names: str) -> dict[str, Any]:
    """The defaults of the fields `names` of dataclass `cls`; without `names`, all defaults of `cls`."""
    found: dict[str, Any] = {}
    for entry in dataclasses.fields(cls):
        if entry.default is not dataclasses.MISSING:
            found[entry.name] = entry.default
        elif entry.default_factory is not dataclasses.MISSING:
            found[entry.name] = entry.default_factory()
    return {name: found[name] for name in names} if names else found


def _violated(cls: type, entry: dataclasses.Field[Any], value: Any) -> str:
    """The expected value of a plain field of `cls`, in words, if `value` is wrong; otherwise "".

    Sizes must be positive. Ids and optional counts may be 0.
    """
    if entry.type == "int":
        lowest = (
            0
            if "_id" in entry.name
            or entry.default == 0
            or entry.name in ("accept_hidden_layer", "intermediate_size")
            else 1
        )
        return (
            excess(cls, entry.name, value)
            if is_count(value) and value >= lowest
            else f"an integer of at least {lowest}"
        )
    if entry.type == "tuple[int, ...]":
        counts = isinstance(value, tuple) and all(is_count(item) for item in value)
        return excess(cls, entry.name, value) if counts else "a list of integers of at least 0"
    if entry.type == "tuple[str, ...]":
        names = isinstance(value, tuple) and unusable_name(value) is None
        return excess(cls, entry.name, value) if names else "a list of names"
    if entry.type == "float":
        plain = isinstance(value, int | float) and not isinstance(value, bool)
        return (
            ""
            if plain and (0 < value <= LARGEST_NUMBER or value == entry.default)
            else f"a number above 0 and up to {LARGEST_NUMBER:g}"
        )
    kinds = {"bool": bool, "str": str}
    return (
        excess(cls, entry.name, value)
        if isinstance(value, kinds.get(str(entry.type), object))
        else f"a value of type {entry.type}"
    )


def is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
