"""Reads the configuration of Qwen3.5-Omni.

Its decoders have Gated DeltaNet layers, its Talker has its own text embedding, and its codec can have its own
folder. transformers 5.23 has no class for this family. Section and field names are those that NVIDIA's
TensorRT-Edge-LLM 0.11 reads for `qwen3_omni_next` checkpoints. Decoder fields are those of HF
`Qwen3_5MoeTextConfig`, codec encoder fields those of `MimiConfig`. Antiphon defines four names for
unpublished values: `thinker_config.timestamp_format`, `thinker_config.audio_timestamp_seconds`,
`codec_encoder_config`, and `code2wav_config` for a codec without its own folder.
"""

from __future__ import annotations

import dataclasses
import re
import string
from typing import Any

from ....runtime.bundle.errors import AntiphonError
from ....runtime.bundle.json_file import read_json_object
from ....runtime.bundle.talker_contract import TalkerContract
from ...checkpoints.config_bounds import LARGEST_COUNT, LONGEST_NAME, unusable_name
from ...checkpoints.config_reader import ConfigReader
from ...config import (
    AudioConfig,
    Code2WavConfig,
    CodecEncoderConfig,
    DecoderConfig,
    LinearAttentionConfig,
    OmniConfig,
    RopeConfig,
    TalkerConfig,
    ThinkerConfig,
)
from .codec_folder import CONFIG_NAME, FOLDERS, find_codec_folder, read_code2wav_config

FULL_ATTENTION_INTERVAL = 4
PARTIAL_ROTARY = 0.25
MROPE_SECTION = (11, 11, 10)
"""Defaults of HF Qwen3_5MoeTextConfig. MROPE_SECTION is for 64 rotary dimensions."""
TIMESTAMP_FORMAT = "<{seconds:.1f} seconds>"
"""The format of HF Qwen3VLProcessor, the processor of Qwen3.5. That of Qwen3.5-Omni is unpublished."""
POSITIONS_PER_SECOND = 7
"""Tokens of the audio encoder per second. Positions do not depend on it if the prompt has timestamps."""
HIDDEN_ROWS = 16
"""Default of `max_thinker_to_talker_mm_tokens` (TensorRT-Edge-LLM)."""
VOICE_MAP = "voice_map.json"
LARGEST_VOICE_MAP = 2**20
"""Bytes of voice_map.json."""
LONGEST_INTERVAL = 86_400
"""Seconds between two timestamps in audio: at most a day."""
SECONDS_FORMAT = re.compile(r"0?[0-9]{0,2}(\.[0-9])?[fg]?")
"""The allowed format after the colon of {seconds:...}. Other formats can produce text of any length."""
THINKER, TALKER = ("thinker_config",), ("talker_config",)
FROM_EITHER = ("tts_pad_token_id", "tts_bos_token_id", "tts_eos_token_id")
"""Ids at the root that some checkpoints state in talker_config."""
CODEC_IDS = tuple(
    f"codec_{name}"
    for name in ("eos_token_id", "think_id", "nothink_id", "think_bos_id", "think_eos_id", "pad_id", "bos_id")
)
"""Ids of the Talker that some checkpoints state at the root."""


def read_qwen3_5_omni(reader: ConfigReader) -> OmniConfig:
    """The configuration of the checkpoint of `reader`. Raises AntiphonError with the file and the field."""
    thinker = reader.section(*THINKER)
    stamps = {
        name: thinker[name]
        for name in ("timestamp_format", "audio_timestamp_seconds")
        if thinker.get(name) is not None
    }
    _check_timestamps(reader, stamps)
    config: dict[str, Any] = {
        "thinker": reader.build(
            ThinkerConfig,
            THINKER,
            text=_decoder(reader, (*THINKER, "text_config")),
            audio=reader.build(AudioConfig, (*THINKER, "audio_config"), convolutions=4)
            if reader.optional("audio", *THINKER, "audio_config")
            else None,
            vision=reader.vision((*THINKER, "vision_config"))
            if reader.optional("vision", *THINKER, "vision_config")
            else None,
            timestamp_format=stamps.get("timestamp_format", TIMESTAMP_FORMAT),
            audio_timestamp_seconds=float(stamps.get("audio_timestamp_seconds", 0.0)),
            position_id_per_seconds=thinker.get("position_id_per_seconds", POSITIONS_PER_SECOND),
            mtp_num_hidden_layers=_draft_layers(reader, thinker),
            textual_time=True,
            may_think=True,
            states_video_size=True,
        ),
        "talker": None,
        "code2wav": None,
    }
    if reader.speaks("talker_config"):
        config |= {"talker": _talker(reader), "code2wav": _code2wav(reader)}
    if config["talker"] is not None and isinstance(reader.raw.get("codec_encoder_config"), dict):
        config["codec_encoder"] = reader.build(CodecEncoderConfig, ("codec_encoder_config",))
    talker = reader.raw.get("talker_config")
    talker = talker if isinstance(talker, dict) else {}
    config |= {name: talker[name] for name in FROM_EITHER if reader.raw.get(name) is None and name in talker}
    omni: OmniConfig = reader.build(OmniConfig, (), family=reader.family, raw=reader.raw, **config)
    return omni


def _decoder(reader: ConfigReader, keys: tuple[str, ...], text: bool = True) -> DecoderConfig:
    """A decoder of section `keys`, with gated full attention.

    With `text` it is a text decoder: `layer_types`, or else the interval, states its Gated DeltaNet layers.
    Otherwise it is the code predictor, in which all layers are dense and have full attention.
    """
    section = reader.section(*keys)
    plain = reader.decoder(keys)
    layers = plain.num_hidden_layers
    interval = section.get("full_attention_interval") or FULL_ATTENTION_INTERVAL
    if isinstance(interval, bool) or not isinstance(interval, int) or interval < 1:
        raise AntiphonError(
            f"{reader.path}: {'.'.join(keys)}.full_attention_interval is {interval!r:.60}, "
            "expected a positive integer; correct the file."
        )
    pattern = [
        "full_attention" if (layer + 1) % interval == 0 else "linear_attention" for layer in range(layers)
    ]
    types = section.get("layers_block_type") or section.get("layer_types") or pattern
    if (
        not isinstance(types, list)
        or len(types) != layers
        or not all(kind in ("full_attention", "linear_attention") for kind in types)
    ):
        raise AntiphonError(
            f"{reader.path}: {'.'.join(keys)}.layer_types is {types!r:.80}, "
            f"expected {layers} times linear_attention or full_attention; correct the file."
        )
    _check_experts(reader, keys, plain.num_experts if text else None)
    if plain.num_experts and text and not plain.shared_expert_intermediate_size:
        # Every sparse layer of this family has a shared expert; without its width the graph would not contain
        # it.
        raise AntiphonError(
            f"{reader.path}: field {'.'.join(keys)}.shared_expert_intermediate_size is missing; "
            "use the complete config.json."
        )
    types = types if text else []
    linear = reader.build(LinearAttentionConfig, keys) if "linear_attention" in types else None
    rope = _rope(reader, keys, plain)
    if text and not rope.mrope_section:
        raise AntiphonError(
            f"{reader.path}: field {'.'.join(keys)}.rope_parameters.mrope_section is missing; "
            "use the complete config.json."
        )
    return dataclasses.replace(
        plain,
        rope=rope,
        layer_types=tuple(types),
        linear=linear,
        gated_attention=bool(section.get("attn_output_gate", True)),
        zero_centred_norms=True,
    )


def _check_experts(reader: ConfigReader, keys: tuple[str, ...], count: int | None) -> None:
    """Raise AntiphonError if a decoder's fields or `model_type` imply experts but their number is missing.

    `count`: the number of experts; None for a decoder whose experts are ignored.
    """
    section = reader.section(*keys)
    if count or count is None or reader.value(DecoderConfig, section, "num_experts") is not None:
        return
    sparse = any(
        section.get(name) for name in ("num_experts_per_tok", "moe_intermediate_size")
    ) or "moe" in str(section.get("model_type"))[:80].split("_")
    if sparse:
        raise AntiphonError(
            f"{reader.path}: field {'.'.join(keys)}.num_experts is missing; "
            "use the complete config.json of the checkpoint."
        )


def _rope(reader: ConfigReader, keys: tuple[str, ...], plain: DecoderConfig) -> RopeConfig:
    section = reader.section(*keys)
    parameters = section.get("rope_parameters") or section.get("rope_scaling") or {}
    partial = parameters.get("partial_rotary_factor", section.get("partial_rotary_factor", PARTIAL_ROTARY))
    if isinstance(partial, bool) or not isinstance(partial, int | float) or not 0 < partial <= 1:
        raise AntiphonError(
            f"{reader.path}: {'.'.join(keys)}.partial_rotary_factor is {partial!r:.60}, "
            "expected a number in 0 .. 1; correct the file."
        )
    rope = dataclasses.replace(plain.rope, partial_rotary_factor=float(partial))
    fits = rope.dim(plain.head_dim) == 2 * sum(MROPE_SECTION)
    return dataclasses.replace(rope, mrope_section=MROPE_SECTION) if not rope.mrope_section and fits else rope


def _talker(reader: ConfigReader) -> TalkerConfig:
    section = reader.section(*TALKER)
    text = _decoder(reader, (*TALKER, "text_config"))
    predictor_keys = (*TALKER, "code_predictor_config")
    predictor = dataclasses.replace(
        _decoder(reader, predictor_keys, text=False), num_experts=0, tie_word_embeddings=False
    )  # always dense with full attention, unlike the text decoders
    root = reader.raw
    thinker_text = reader.section(*THINKER, "text_config")

    def found(name: str, default: Any) -> Any:
        value = section.get(name, root.get(name))
        return default if value is None else value

    def count(name: str, default: int, least: int = 1) -> int:
        value = found(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise AntiphonError(
                f"{reader.path}: talker_config.{name} is {value!r:.60}, "
                f"expected an integer of at least {least}; correct the file."
            )
        return value

    speakers = {
        name.lower(): row
        for name, row in _mapping(
            reader, "speaker_id", found("speaker_id", None) or found("spk_id", {})
        ).items()
    }
    prompts = _prompts(reader, "speaker_system_prompt_id", found("speaker_system_prompt_id", {}))
    default = _default_speaker(reader, speakers, found("default_speaker_id", None))
    for alias, name in _aliases(reader, speakers).items():
        speakers[alias] = speakers[name]
        prompts |= {alias: prompts[name]} if name in prompts else {}
    languages = {
        name.lower(): row
        for name, row in _mapping(reader, "talker_language_id", found("talker_language_id", {})).items()
    }
    ids = {name: root[name] for name in CODEC_IDS if section.get(name) is None and name in root}
    if languages and section.get("codec_think_id") is None and "codec_think_id" not in ids:
        raise AntiphonError(
            f"{reader.path}: field talker_config.codec_think_id is missing, which a language needs; "
            "use the complete config.json."
        )
    talker: TalkerConfig = reader.build(
        TalkerConfig,
        TALKER,
        text=text,
        predictor=predictor,
        speaker_id=speakers,
        default_speaker=default,
        **ids,
        accept_hidden_layer=_tap(reader, found("accept_hidden_layer", None)),
        speaker_prompt_id=prompts,
        num_code_groups=found("num_code_groups", 16),
        thinker_hidden_size=found("thinker_hidden_size", thinker_text.get("hidden_size")),
        position_id_per_seconds=found("position_id_per_seconds", POSITIONS_PER_SECOND),
        spatial_merge_size=found("spatial_merge_size", 2),
        text_vocab_size=found("text_vocab_size", thinker_text.get("vocab_size")),
        language_id=languages,
        style_prompt_id=_prompts(
            reader, "talker_assistant_prompt_id_mapping", found("talker_assistant_prompt_id_mapping", {})
        ),
        text_rows=count("talker_text_in_chunk_n", 4),
        frame_rows=count("talker_codec_output_chunk_m", 4),
        predictor_projection=True,
        contract=talker_contract(
            count("max_thinker_to_talker_mm_tokens", HIDDEN_ROWS, least=0), bool(languages)
        ),
    )
    return talker


def talker_contract(hidden_rows: int, takes_language: bool) -> TalkerContract:
    """The inputs of a Talker of the family.

    `hidden_rows`: number of Thinker rows that it reads from a user turn. `takes_language`: it has language
    ids.
    """
    return TalkerContract(
        layout="interleaved",
        embeds_text=True,
        frame_input="frame_codes",
        hidden_taps="content",
        hidden_rows=hidden_rows,
        takes_style=True,
        takes_language=takes_language,
        voice="frames",
    )


def _tap(reader: ConfigReader, stated: Any) -> Any:
    """`accept_hidden_layer`, from the Thinker's text section or else `stated`.

    Without a valid layer it is the number of layers: the rows after the final norm.
    """
    text = reader.section(*THINKER, "text_config")
    beside, last = text.get("accept_hidden_layer"), text["num_hidden_layers"]
    tap = stated if beside is None else beside
    return last if tap is None or (isinstance(tap, int) and not 0 <= tap <= last) else tap


def _default_speaker(reader: ConfigReader, speakers: dict[str, int], stated: Any) -> str | None:
    """The name of the speaker whose row is `stated`; the first speaker if none is stated."""
    names = [name for name, row in speakers.items() if stated is None or row == stated]
    if speakers and not names:
        rows = ", ".join(map(str, sorted(set(speakers.values()))))
        raise AntiphonError(
            f"{reader.path}: talker_config.default_speaker_id is {stated!r:.60}, expected one of {rows:.60}; "
            "correct the file."
        )
    return names[0] if names else None


def _aliases(reader: ConfigReader, speakers: dict[str, int]) -> dict[str, str]:
    """Further names of speakers, from `voice_map.json` beside config.json if it exists.

    TensorRT-Edge-LLM 0.11 defines this file: friendly name -> speaker.
    """
    path = reader.path.parent / VOICE_MAP
    if not path.is_file():
        return {}
    stated = read_json_object(path, largest=LARGEST_VOICE_MAP)
    unusable = unusable_name((*stated, *stated.values()))
    if unusable is not None:
        raise AntiphonError(
            f"{path} holds {unusable}, expected names with their speakers, "
            f"each of 1 to {LONGEST_NAME} printable letters; download the file again."
        )
    aliases = {name.lower(): speaker.lower() for name, speaker in stated.items()}
    unknown = sorted(set(aliases.values()) - set(speakers))
    if unknown:
        raise AntiphonError(
            f"{path} names the speaker {unknown[0]!r:.60}, which talker_config.speaker_id lacks; "
            "use the files of one checkpoint."
        )
    return {alias: speaker for alias, speaker in aliases.items() if alias not in speakers}


def _code2wav(reader: ConfigReader) -> Code2WavConfig:
    """The configuration of Code2Wav, from the codec's own folder if there is one, else from config.json."""
    folder = find_codec_folder(reader.path.parent)
    if folder is not None:
        return read_code2wav_config(folder)
    if reader.raw.get("code2wav_config") is None:
        raise AntiphonError(
            f"{reader.path.parent} has no codec: expected {FOLDERS[0]}/{CONFIG_NAME} with its weights, "
            "or code2wav_config in config.json; download the complete checkpoint."
        )
    rope = reader.rope(("code2wav_config",))
    config: Code2WavConfig = reader.build(
        Code2WavConfig, ("code2wav_config",), rope=rope, symmetric_trim=False
    )
    return config


def _draft_layers(reader: ConfigReader, thinker: dict[str, Any]) -> int:
    sections = thinker, thinker.get("text_config") or {}, reader.raw
    if any(section.get("mtp_use_dedicated_embeddings") for section in sections):
        raise AntiphonError(
            f"{reader.path}: mtp_use_dedicated_embeddings is true, expected false: "
            "the draft head reads the Thinker's; correct the file."
        )
    for section in sections:
        for name in ("mtp_num_hidden_layers", "num_nextn_predict_layers"):
            if section.get(name) is not None:
                layers = section[name]
                if layers not in (0, 1):
                    raise AntiphonError(
                        f"{reader.path}: {name} is {layers!r:.60}, expected 0 or 1: "
                        "a draft head of one layer is supported; correct the file."
                    )
                return int(layers) if not layers or reader.holds("draft") else 0
    return 0


def _mapping(reader: ConfigReader, name: str, value: Any) -> dict[str, int]:
    value = value or {}
    if not isinstance(value, dict) or any(
        isinstance(row, bool) or not isinstance(row, int) or not 0 <= row <= LARGEST_COUNT
        for row in value.values()
    ):
        raise AntiphonError(
            f"{reader.path}: {name} is {value!r:.60}, expected names with their ids; correct the file."
        )
    reader.check_names(name, value)
    return value


def _prompts(reader: ConfigReader, name: str, value: Any) -> dict[str, tuple[int, ...]]:
    """Name -> text ids of a prompt. Some files write the ids as strings."""
    reader.check_names(name, value if isinstance(value, dict) else ())
    try:
        return {key.lower(): tuple(map(_id, _list(items))) for key, items in (value or {}).items()}
    except (AttributeError, TypeError, ValueError):
        raise AntiphonError(
            f"{reader.path}: {name} is {value!r:.60}, expected names with lists of text ids; "
            "correct the file."
        ) from None


def _list(items: Any) -> list[Any]:
    """Return `items` if it is a list. A string is refused: its digits would be read as ids."""
    if not isinstance(items, list):
        raise TypeError
    return items


def _id(item: Any) -> int:
    if isinstance(item, bool) or not isinstance(item, int | str):
        raise TypeError
    return int(item)


def _check_timestamps(reader: ConfigReader, stamps: dict[str, Any]) -> None:
    pattern, interval = stamps.get("timestamp_format", ""), stamps.get("audio_timestamp_seconds", 0)
    if not _is_timestamp(pattern):
        raise AntiphonError(
            f"{reader.path}: thinker_config.timestamp_format is {pattern!r:.60}, "
            f"expected a format of seconds such as {TIMESTAMP_FORMAT!r}; correct the file."
        )
    if (
        isinstance(interval, bool)
        or not isinstance(interval, int | float)
        or not 0 <= interval <= LONGEST_INTERVAL
    ):
        raise AntiphonError(
            f"{reader.path}: thinker_config.audio_timestamp_seconds is {interval!r:.60}, "
            "expected seconds of at least 0; correct the file."
        )


def _is_timestamp(pattern: Any) -> bool:
    """Whether `pattern` is a short format string with {seconds} as its only field."""
    if not isinstance(pattern, str) or len(pattern) > LONGEST_NAME:
        return False
    try:
        fields = [
            (name, spec, conversion)
            for _, name, spec, conversion in string.Formatter().parse(pattern)
            if name is not None
        ]
    except ValueError:
        return False
    return all(
        name == "seconds" and conversion is None and SECONDS_FORMAT.fullmatch(spec or "")
        for name, spec, conversion in fields
    )
