"""Reads the configuration of Qwen3-Omni (HF `Qwen3OmniMoeConfig`)."""

from __future__ import annotations

import dataclasses

from ....runtime.bundle.errors import AntiphonError
from ....runtime.bundle.talker_contract import TalkerContract
from ...checkpoints.config_reader import ConfigReader, defaults, is_count, short
from ...config import AudioConfig, Code2WavConfig, DecoderConfig, OmniConfig, TalkerConfig, ThinkerConfig

THINKER = ("thinker_config",)
TALKER = TalkerContract(
    layout="summed",
    embeds_text=False,
    frame_input="frame_rows",
    hidden_taps="media",
    hidden_rows=0,
    takes_style=False,
    takes_language=False,
    voice="codec_id",
)
"""The inputs of every Talker of the family (HF Qwen3OmniMoeForConditionalGeneration)."""
DEFAULT_SPEAKER = "ethan"
"""Default of HF Qwen3OmniMoeForConditionalGeneration.generate; no file states a default speaker."""
SPLIT_FIELDS = (
    "codebook_dim",
    "quantizer_dim",
    "latent_dim",
    "pre_conv_kernel",
    "num_semantic_quantizers",
    "symmetric_trim",
    "sample_rate",
)
"""Fields of a SplitRVQ. Published Qwen3-Omni files contain some of them, and the reference ignores them."""


def read_qwen3_omni(reader: ConfigReader) -> OmniConfig:
    """The configuration of a Qwen3-Omni checkpoint. Fields that only Qwen3.5-Omni has are ignored.

    Raises AntiphonError with the file and the field.
    """
    thinker = reader.build(
        ThinkerConfig,
        THINKER,
        text=_experts(reader, THINKER, least=0),
        audio=reader.build(AudioConfig, (*THINKER, "audio_config"), convolutions=3)
        if reader.optional("audio", *THINKER, "audio_config")
        else None,
        vision=reader.vision((*THINKER, "vision_config"))
        if reader.optional("vision", *THINKER, "vision_config")
        else None,
        **defaults(
            ThinkerConfig,
            "timestamp_format",
            "audio_timestamp_seconds",
            "mtp_num_hidden_layers",
            "textual_time",
            "may_think",
            "states_video_size",
        ),
    )
    talker = code2wav = None
    if reader.speaks("talker_config", "code2wav_config"):
        predictor = _plain(reader, ("talker_config", "code_predictor_config"))
        # In the reference every Talker layer has experts: it ignores mlp_only_layers and decoder_sparse_step.
        text = dataclasses.replace(
            _experts(reader, ("talker_config",), least=1), mlp_only_layers=(), decoder_sparse_step=1
        )
        voices = reader.section("talker_config").get("speaker_id") or {}
        if not isinstance(voices, dict) or not all(is_count(row) for row in voices.values()):
            raise AntiphonError(
                f"{reader.path}: talker_config.speaker_id is {short(voices)}, "
                "expected voices with their codec ids; correct the file."
            )
        reader.check_names("talker_config.speaker_id", voices)
        speaker_id = {name.lower(): row for name, row in voices.items()}
        talker = reader.build(
            TalkerConfig,
            ("talker_config",),
            text=text,
            predictor=predictor,
            speaker_id=speaker_id,
            contract=TALKER,
            **defaults(TalkerConfig)
            | {"default_speaker": DEFAULT_SPEAKER if DEFAULT_SPEAKER in speaker_id else None},
        )
        code2wav = reader.build(
            Code2WavConfig,
            ("code2wav_config",),
            rope=reader.rope(("code2wav_config",)),
            **defaults(Code2WavConfig, *SPLIT_FIELDS),
        )
    omni: OmniConfig = reader.build(
        OmniConfig,
        (),
        family=reader.family,
        thinker=thinker,
        talker=talker,
        code2wav=code2wav,
        raw=reader.raw,
        codec_encoder=None,
    )
    return omni


def _plain(reader: ConfigReader, keys: tuple[str, ...]) -> DecoderConfig:
    """A decoder of section `keys`, with plain full attention in every layer."""
    section = reader.section(*keys)
    types, decoder = section.get("layer_types") or [], reader.decoder(keys)
    if not isinstance(types, list) or types and types != ["full_attention"] * decoder.num_hidden_layers:
        raise AntiphonError(
            f"{reader.path}: {'.'.join(keys)}.layer_types is {short(types)}, expected full_attention alone, "
            f"once for each of the {decoder.num_hidden_layers} layers; use a model of this family."
        )
    return dataclasses.replace(
        decoder, **defaults(DecoderConfig, "layer_types", "linear", "gated_attention", "zero_centred_norms")
    )


def _experts(reader: ConfigReader, keys: tuple[str, ...], least: int) -> DecoderConfig:
    """The text decoder of a Thinker (`least` 0: may be dense) or of a Talker.

    Fields that determine the experts have no default: they must be stated.
    """
    keys = (*keys, "text_config")
    section, wanted = reader.section(*keys), ["num_experts"]
    count = reader.value(DecoderConfig, section, "num_experts")
    if count != 0 or least:
        wanted += ["num_experts_per_tok", "moe_intermediate_size", "norm_topk_prob"] + [
            "shared_expert_intermediate_size"
        ] * least
    for name in wanted:
        if reader.value(DecoderConfig, section, name) is None:
            raise AntiphonError(
                f"{reader.path}: field {'.'.join((*keys, name))} is missing; "
                "use the complete config.json of the checkpoint."
            )
    if least and not count:
        raise AntiphonError(
            f"{reader.path}: {'.'.join(keys)}.num_experts is {short(count)}, expected at least {least}; "
            "correct the file."
        )
    text = _plain(reader, keys)
    # In the reference the Thinker has no shared expert.
    return text if least else dataclasses.replace(text, shared_expert_intermediate_size=0)
