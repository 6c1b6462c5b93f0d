"""Checks that the sections of a configuration agree with each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...runtime.bundle.errors import AntiphonError
from ..config import MEDIA_IDS, NO_ID, TEXT_IDS, DecoderConfig, OmniConfig, TalkerConfig


def check_config(config: OmniConfig, path: Path) -> None:
    """Raise AntiphonError for the first contradiction between the sections of `config`, read from `path`."""

    def expect(name: str, found: object, expected: object) -> None:
        if found != expected:
            raise AntiphonError(
                f"{path} is at odds with itself: {name} is {found}, expected {expected}; correct the file."
            )

    thinker = config.thinker
    needed = list(TEXT_IDS[:5])
    if thinker.audio is not None:
        needed += ["audio_token_id", "audio_start_token_id"]
        expect("thinker_config.audio_config.output_dim", thinker.audio.output_dim, thinker.text.hidden_size)
    if thinker.vision is not None:
        needed += ["image_token_id", "video_token_id", "vision_start_token_id"]
        expect(
            "thinker_config.vision_config.out_hidden_size",
            thinker.vision.out_hidden_size,
            thinker.text.hidden_size,
        )
        for layer in thinker.vision.deepstack_visual_indexes:
            expect(
                f"whether deepstack layer {layer} is one of the {thinker.vision.depth} of the vision encoder",
                layer < thinker.vision.depth,
                True,
            )
        expect(
            "whether deepstack layers are at most the layers of the Thinker",
            thinker.deepstack_layers <= thinker.text.num_hidden_layers,
            True,
        )
    if config.talker is not None:
        needed += TEXT_IDS[5:]
    if (thinker.audio or thinker.vision) and not thinker.position_id_per_seconds:
        raise _missing(path, "thinker_config.position_id_per_seconds")
    _check_decoder(thinker.text, "thinker_config.text_config", expect)
    for prefix, section, names in (("", config, TEXT_IDS), ("thinker_config.", thinker, MEDIA_IDS)):
        for name in names:
            value = getattr(section, name)
            if value == NO_ID and name in needed:
                raise _missing(path, prefix + name)
            expect(
                f"whether {name} ({value}) lies inside the vocabulary of {thinker.text.vocab_size}",
                value < thinker.text.vocab_size,
                True,
            )
    if config.talker is None or config.code2wav is None:
        return
    talker, predictor = config.talker, config.talker.predictor
    _check_decoder(talker.text, "talker_config.text_config", expect)
    _check_decoder(predictor, "talker_config.code_predictor_config", expect)
    expect("talker_config.thinker_hidden_size", talker.thinker_hidden_size, thinker.text.hidden_size)
    expect("code2wav_config.num_quantizers", config.code2wav.num_quantizers, talker.num_code_groups)
    expect("code2wav_config.codebook_size", config.code2wav.codebook_size, predictor.vocab_size)
    expect(
        "whether accept_hidden_layer lies in 0 .. num_hidden_layers",
        0 <= talker.accept_hidden_layer <= thinker.text.num_hidden_layers,
        True,
    )
    for name in ("eos_token_id", "nothink_id", "think_bos_id", "think_eos_id", "pad_id", "bos_id"):
        value = getattr(talker, f"codec_{name}")
        expect(
            f"whether codec_{name} ({value}) lies inside the Talker vocabulary of {talker.text.vocab_size}",
            0 <= value < talker.text.vocab_size,
            True,
        )
    if not talker.speaker_id:
        raise AntiphonError(
            f"{path}: talker_config.speaker_id is missing or empty; the Talker needs at least one voice."
        )
    if talker.contract.embeds_text:
        _check_own_text(config, talker, expect)
    if not talker.predictor_projection:
        expect("code_predictor_config.hidden_size", predictor.hidden_size, talker.text.hidden_size)
    if talker.contract.voice == "codec_id":
        for name, row in talker.speaker_id.items():
            expect(
                f"whether the id {row} of speaker {name} lies inside the Talker vocabulary",
                0 <= row < talker.text.vocab_size,
                True,
            )


def _missing(path: Path, name: str) -> AntiphonError:
    return AntiphonError(f"{path}: field {name} is missing; use the complete config.json of the checkpoint.")


def _check_own_text(config: OmniConfig, talker: TalkerConfig, expect: Any) -> None:
    """Check the fields of a Talker that has its own text embedding."""
    expect("talker_config.text_vocab_size", talker.text_vocab_size, config.thinker.text.vocab_size)
    expect(
        "whether talker_text_in_chunk_n and talker_codec_output_chunk_m are positive",
        talker.text_rows > 0 and talker.frame_rows > 0,
        True,
    )
    think = talker.codec_think_id
    expect(
        f"whether codec_think_id ({think}) lies inside the Talker vocabulary of {talker.text.vocab_size}",
        0 <= think < talker.text.vocab_size,
        True,
    )
    for name, row in talker.language_id.items():
        expect(
            f"whether the codec id {row} of language {name} lies inside the Talker vocabulary",
            row < talker.text.vocab_size,
            True,
        )
    for prompts in (talker.speaker_prompt_id, talker.style_prompt_id):
        for name, ids in prompts.items():
            expect(
                f"whether the prompt of {name} lies inside the text vocabulary",
                all(0 <= item < talker.text_vocab_size for item in ids),
                True,
            )
    if config.codec_encoder is not None and config.code2wav is not None:
        expect(
            "codec_encoder_config.num_quantizers", config.codec_encoder.num_quantizers, talker.num_code_groups
        )
        expect(
            "codec_encoder_config.codebook_size",
            config.codec_encoder.codebook_size,
            config.code2wav.codebook_size,
        )


def _check_decoder(text: DecoderConfig, name: str, expect: Any) -> None:
    expect(
        f"{name}.num_attention_heads modulo num_key_value_heads",
        text.num_attention_heads % text.num_key_value_heads,
        0,
    )
    rotary = text.rope.dim(text.head_dim)
    expect(
        f"whether the {rotary} rotary dimensions of {name} are an even number in 2 .. head_dim",
        rotary % 2 == 0 and 2 <= rotary <= text.head_dim,
        True,
    )
    if text.rope.mrope_section:
        expect(f"the sum of {name}.mrope_section", sum(text.rope.mrope_section), rotary // 2)
    if text.layer_types:
        expect(f"the number of {name}.layer_types", len(text.layer_types), text.num_hidden_layers)
        known = {"full_attention"} if text.linear is None else {"full_attention", "linear_attention"}
        expect(
            f"whether {name}.layer_types are all {' or '.join(sorted(known))}",
            set(text.layer_types) <= known,
            True,
        )
    if text.linear is not None:
        heads = text.linear.linear_num_value_heads, text.linear.linear_num_key_heads
        expect(f"{name}.linear_num_value_heads modulo linear_num_key_heads", heads[0] % heads[1], 0)
        expect(
            f"whether {name}.linear_conv_kernel_dim is at least 2",
            text.linear.linear_conv_kernel_dim >= 2,
            True,
        )
    if text.num_experts:
        expect(
            f"whether {name}.num_experts_per_tok lies in 1 .. num_experts",
            1 <= text.num_experts_per_tok <= text.num_experts,
            True,
        )
        expect(f"whether {name}.moe_intermediate_size is positive", text.moe_intermediate_size > 0, True)
    elif text.layer_types:
        expect(f"whether {name}.intermediate_size is positive", text.intermediate_size > 0, True)
