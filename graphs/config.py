"""The part of `config.json` that decides what an omni model computes, read once and checked.

Field names are those of the published Hugging Face configuration (`Qwen3OmniMoeConfig`, transformers 5.23),
so that a reader of the one knows the other. Every id and size comes from the file; nothing is assumed
that changes the result.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..runtime.errors import AntiphonError

FAMILIES = ("qwen3_omni_moe",)
_ROLES = ("im_start", "im_end", "system", "user", "assistant", "tts_pad", "tts_bos", "tts_eos")
TEXT_IDS = tuple(f"{name}_token_id" for name in _ROLES)
MEDIA_IDS = tuple(f"{name}_token_id" for name in ("audio", "image", "video", "audio_start", "vision_start"))


@dataclass(frozen=True)
class RopeConfig:
    """Rotary embedding: base `theta`; `mrope_section` are the (time, height, width) frequency counts, or () for plain."""

    theta: float
    mrope_section: tuple[int, ...] = ()


@dataclass(frozen=True)
class DecoderConfig:
    """A decoder stack: Thinker text model, Talker text model or code predictor."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    rope: RopeConfig
    max_position_embeddings: int
    attention_bias: bool = False
    num_experts: int = 0
    num_experts_per_tok: int = 0
    moe_intermediate_size: int = 0
    shared_expert_intermediate_size: int = 0
    norm_topk_prob: bool = True
    mlp_only_layers: tuple[int, ...] = ()
    decoder_sparse_step: int = 1
    tie_word_embeddings: bool = False

    def is_sparse(self, layer: int) -> bool:
        """Whether layer `layer` holds experts (else one dense feed-forward network)."""
        return self.num_experts > 0 and layer not in self.mlp_only_layers and (layer + 1) % self.decoder_sparse_step == 0


@dataclass(frozen=True)
class AudioConfig:
    """Audio encoder (AuT): log-mel chunks of `2 * n_window` frames, attention over `n_window_infer` frames."""

    num_mel_bins: int
    encoder_layers: int
    encoder_attention_heads: int
    encoder_ffn_dim: int
    d_model: int
    downsample_hidden_size: int
    output_dim: int
    n_window: int
    n_window_infer: int
    max_source_positions: int
    activation_function: str = "gelu"


@dataclass(frozen=True)
class VisionConfig:
    """Vision encoder: a ViT with interpolated learned positions, 2D rotary attention and deepstack mergers."""

    depth: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    in_channels: int
    patch_size: int
    temporal_patch_size: int
    spatial_merge_size: int
    num_position_embeddings: int
    out_hidden_size: int
    deepstack_visual_indexes: tuple[int, ...] = ()
    hidden_act: str = "gelu_pytorch_tanh"
    rope_theta: float = 10000.0


@dataclass(frozen=True)
class Code2WavConfig:
    """Vocoder: codes to waveform."""

    codebook_size: int
    num_quantizers: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    sliding_window: int
    rms_norm_eps: float
    rope: RopeConfig
    upsample_rates: tuple[int, ...]
    upsampling_ratios: tuple[int, ...]
    decoder_dim: int
    attention_bias: bool = False

    @property
    def samples_per_frame(self) -> int:
        """Waveform samples per codec frame: the product of all upsampling rates (1,920 in the published models)."""
        product = 1
        for rate in (*self.upsampling_ratios, *self.upsample_rates):
            product *= rate
        return product


@dataclass(frozen=True)
class TalkerConfig:
    """Talker: its decoder, the code predictor and the codec ids."""

    text: DecoderConfig
    predictor: DecoderConfig
    num_code_groups: int
    thinker_hidden_size: int
    accept_hidden_layer: int
    codec_eos_token_id: int
    codec_nothink_id: int
    codec_think_bos_id: int
    codec_think_eos_id: int
    codec_pad_id: int
    codec_bos_id: int
    speaker_id: dict[str, int]
    position_id_per_seconds: int
    spatial_merge_size: int


@dataclass(frozen=True)
class ThinkerConfig:
    """Thinker: its decoder, the two encoders and the multimodal ids."""

    text: DecoderConfig
    audio: AudioConfig
    vision: VisionConfig
    audio_token_id: int
    image_token_id: int
    video_token_id: int
    audio_start_token_id: int
    vision_start_token_id: int
    position_id_per_seconds: int


@dataclass(frozen=True)
class OmniConfig:
    """One checkpoint's configuration. `enable_audio_output` False means a checkpoint without Talker and Code2Wav."""

    family: str
    thinker: ThinkerConfig
    talker: TalkerConfig | None
    code2wav: Code2WavConfig | None
    im_start_token_id: int
    im_end_token_id: int
    system_token_id: int
    user_token_id: int
    assistant_token_id: int
    tts_pad_token_id: int
    tts_bos_token_id: int
    tts_eos_token_id: int
    raw: dict[str, Any] = field(repr=False, compare=False)


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
    family = raw.get("model_type")
    if family not in FAMILIES:
        raise AntiphonError(f"{path}: unknown model family {family!r}; expected model_type to be one of {', '.join(FAMILIES)}.")
    config = _Reader(raw, path).omni(family)
    _check(config, path)
    return config


class _Reader:
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
                if entry.default is dataclasses.MISSING:
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
        vision: VisionConfig = self.build(VisionConfig, keys, **({} if stated is None else {"rope_theta": stated}))
        return vision

    def decoder(self, keys: tuple[str, ...]) -> DecoderConfig:
        section = self.section(*keys)
        heads, hidden = section.get("num_attention_heads"), section.get("hidden_size")
        if not isinstance(heads, int) or not isinstance(hidden, int) or heads <= 0:
            raise AntiphonError(f"{self.path}: {'.'.join(keys)} needs hidden_size and num_attention_heads as positive integers; correct the file.")
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
        return "" if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else "a number above 0"
    kinds = {"bool": bool, "str": str}
    return "" if isinstance(value, kinds.get(str(entry.type), object)) else f"a value of type {entry.type}"


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _check(config: OmniConfig, path: Path) -> None:
    """Hold the sections against each other; each contradiction is one sentence."""

    def expect(name: str, found: object, expected: object) -> None:
        if found != expected:
            raise AntiphonError(f"{path} is at odds with itself: {name} is {found}, expected {expected}; correct the file.")

    thinker = config.thinker
    expect("thinker_config.audio_config.output_dim", thinker.audio.output_dim, thinker.text.hidden_size)
    expect("thinker_config.vision_config.out_hidden_size", thinker.vision.out_hidden_size, thinker.text.hidden_size)
    for layer in thinker.vision.deepstack_visual_indexes:
        expect(f"whether deepstack layer {layer} is one of the {thinker.vision.depth} of the vision encoder", layer < thinker.vision.depth, True)
    _check_decoder(thinker.text, "thinker_config.text_config", expect)
    for section, names in ((config, TEXT_IDS), (thinker, MEDIA_IDS)):
        for name in names:
            value = getattr(section, name)
            expect(f"whether {name} ({value}) lies inside the vocabulary of {thinker.text.vocab_size}", value < thinker.text.vocab_size, True)
    if config.talker is None or config.code2wav is None:
        return
    talker, predictor = config.talker, config.talker.predictor
    _check_decoder(talker.text, "talker_config.text_config", expect)
    _check_decoder(predictor, "talker_config.code_predictor_config", expect)
    expect("talker_config.thinker_hidden_size", talker.thinker_hidden_size, thinker.text.hidden_size)
    expect("code_predictor_config.hidden_size", predictor.hidden_size, talker.text.hidden_size)
    expect("code2wav_config.num_quantizers", config.code2wav.num_quantizers, talker.num_code_groups)
    expect("code2wav_config.codebook_size", config.code2wav.codebook_size, predictor.vocab_size)
    expect("whether accept_hidden_layer lies in 0 .. num_hidden_layers", 0 <= talker.accept_hidden_layer <= thinker.text.num_hidden_layers, True)
    for name in ("eos_token_id", "nothink_id", "think_bos_id", "think_eos_id", "pad_id", "bos_id"):
        value = getattr(talker, f"codec_{name}")
        expect(f"whether codec_{name} ({value}) lies inside the Talker vocabulary of {talker.text.vocab_size}", 0 <= value < talker.text.vocab_size, True)
    if not talker.speaker_id:
        raise AntiphonError(f"{path}: talker_config.speaker_id is missing or empty; the Talker needs at least one voice.")
    for name, row in talker.speaker_id.items():
        expect(f"whether the id {row} of speaker {name} lies inside the Talker vocabulary", 0 <= row < talker.text.vocab_size, True)


def _check_decoder(text: DecoderConfig, name: str, expect: Any) -> None:
    expect(f"{name}.num_attention_heads modulo num_key_value_heads", text.num_attention_heads % text.num_key_value_heads, 0)
    if text.rope.mrope_section:
        expect(f"the sum of {name}.mrope_section", sum(text.rope.mrope_section), text.head_dim // 2)
    if text.num_experts:
        expect(f"whether {name}.num_experts_per_tok lies in 1 .. num_experts", 1 <= text.num_experts_per_tok <= text.num_experts, True)
        expect(f"whether {name}.moe_intermediate_size is positive", text.moe_intermediate_size > 0, True)
