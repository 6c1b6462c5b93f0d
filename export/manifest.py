"""Composes the manifest of a bundle from the configuration, the front end and the built stages."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from ..graphs.config import NO_ID, OmniConfig
from ..graphs.families.registry import family
from ..runtime.bundle.errors import AntiphonError
from ..runtime.bundle.files import FileHash
from ..runtime.bundle.manifest import Manifest, ModelConstants, SpeechPrompts
from ..runtime.bundle.sampling import SamplingParameters
from ..runtime.bundle.specs import StageEntry
from ..runtime.bundle.talker_contract import TalkerContract
from ..runtime.bundle.version import VERSION
from ..runtime.stages.aria import dual_track, parse_policy


def compose_manifest(
    config: OmniConfig,
    frontend: Path,
    stages: dict[str, StageEntry],
    *,
    target: str,
    precision: str,
    tool_versions: dict[str, str],
    build: dict[str, Any],
    hashes: dict[str, FileHash],
) -> Manifest:
    """The manifest of a bundle. Some ids are read from the tokenizer in its front-end folder `frontend`."""
    constants = json.loads((frontend / "frontend.json").read_text(encoding="utf-8"))
    generation = constants["generation"]
    voices = dict(config.talker.speaker_id) if config.talker else {}
    contract, interleave = _speaking(config, generation)
    return Manifest(
        config.family,
        VERSION,
        target,
        precision,
        stages,
        _ids(config, frontend) | _thinking(constants["ids"]),
        _limits(config, generation),
        sampling_defaults(generation, family(config.family).predictor),
        voices,
        _default_voice(config, voices),
        tool_versions,
        build,
        hashes,
        interleave=interleave,
        speech_prompts=_manners(config),
        talker=contract,
    )


def sampling_defaults(
    generation: dict[str, Any], predictor: SamplingParameters
) -> dict[str, SamplingParameters]:
    """Default sampling parameters of the three sampling stages.

    `generation` is generation_config.json. Its keys without prefix belong to the Thinker, which samples
    greedily if do_sample is absent or false. Keys `talker_*` belong to the Talker, and keys `predictor_*`,
    which Antiphon defines, to the code predictor. `predictor` has the family's defaults of the code
    predictor.
    """

    def value(name: str, default: float) -> float:
        found = generation.get(name)
        return default if found is None else found

    sampled = bool(generation.get("do_sample", False))
    thinker = SamplingParameters(
        temperature=value("temperature", 1.0) if sampled else 0.0,
        top_k=int(value("top_k", 50)) if sampled else 0,
        top_p=value("top_p", 1.0) if sampled else 1.0,
        repetition_penalty=value("repetition_penalty", 1.0),
    )
    talker = SamplingParameters(
        temperature=value("talker_temperature", 0.9),
        top_k=int(value("talker_top_k", 50)),
        top_p=value("talker_top_p", 1.0),
        repetition_penalty=value("talker_repetition_penalty", 1.05),
    )
    predictor = dataclasses.replace(
        predictor,
        temperature=value("predictor_temperature", predictor.temperature),
        top_k=int(value("predictor_top_k", predictor.top_k)),
        top_p=value("predictor_top_p", predictor.top_p),
    )
    return {"thinker": thinker, "talker": talker, "predictor": predictor}


def _speaking(config: OmniConfig, generation: dict[str, Any]) -> tuple[TalkerContract | None, str | None]:
    """The Talker's contract and the name of its interleave policy.

    In a family with interleaved rows, the key `interleave` of generation_config.json states the policy that
    the Talker was trained with, including dual_track. Antiphon defines this key.
    """
    talker = config.talker
    if talker is None:
        return None, None
    if talker.contract.layout == "summed":
        return talker.contract, dual_track().name
    stated = generation.get("interleave", f"chunked:{talker.text_rows},{talker.frame_rows}")
    try:
        policy = parse_policy(stated)
    except (AntiphonError, AttributeError):
        raise AntiphonError(
            f"generation_config.json: interleave is {stated!r:.60}, expected dual_track, "
            "chunked:TEXT_ROWS,FRAMES or adaptive:R,LEAD."
        ) from None
    return dataclasses.replace(talker.contract, layout=policy.layout), str(stated)


def _manners(config: OmniConfig) -> SpeechPrompts:
    if config.talker is None:
        return SpeechPrompts()
    prompts = (
        {name: list(ids) for name, ids in table.items()}
        for table in (config.talker.style_prompt_id, config.talker.speaker_prompt_id)
    )
    return SpeechPrompts(dict(config.talker.language_id), *prompts)


def _thinking(ids: dict[str, int]) -> dict[str, int | list[int]]:
    """The ids of the tokens around thinking text, which is not spoken, if the tokenizer has them."""
    return {name: ids[name] for name in ("think_open", "think_close") if name in ids}


def _ids(config: OmniConfig, frontend: Path) -> dict[str, int | list[int]]:
    ids: dict[str, int | list[int]] = {
        "im_start": config.im_start_token_id,
        "im_end": config.im_end_token_id,
        "system": config.system_token_id,
        "user": config.user_token_id,
        "assistant": config.assistant_token_id,
        "newline": _newline(frontend),
        "tts_pad": config.tts_pad_token_id,
        "tts_bos": config.tts_bos_token_id,
        "tts_eos": config.tts_eos_token_id,
        "audio": config.thinker.audio_token_id,
        "image": config.thinker.image_token_id,
        "video": config.thinker.video_token_id,
        "eos": [config.im_end_token_id],
    }
    if config.talker is not None:
        for name in ("eos", "nothink", "think_bos", "think_eos", "pad", "bos"):
            suffix = "token_id" if name == "eos" else "id"
            ids[f"codec_{name}"] = getattr(config.talker, f"codec_{name}_{suffix}")
        if config.talker.contract.takes_language:
            ids["codec_think"] = config.talker.codec_think_id
    return {name: index for name, index in ids.items() if index != NO_ID}


def _newline(frontend: Path) -> int:
    """The id of the line break after a role, which is the third of the Talker's assistant rows."""
    ids = Tokenizer.from_file(str(frontend / "tokenizer.json")).encode("\n", add_special_tokens=False).ids
    if len(ids) != 1:
        raise AntiphonError(
            f"The tokenizer turns a line break into {len(ids)} tokens, expected 1; "
            "use the tokenizer that belongs to the checkpoint."
        )
    return ids[0]


def _limits(config: OmniConfig, generation: dict[str, Any]) -> ModelConstants:
    limits: dict[str, Any] = {"thinker_context": config.thinker.text.max_position_embeddings}
    if config.talker is not None and config.code2wav is not None:
        limits |= {
            "talker_context": config.talker.text.max_position_embeddings,
            "codebook_size": config.code2wav.codebook_size,
        }
        if config.talker.contract.layout == "interleaved":
            limits |= _paces(generation)
    return ModelConstants(**limits)


def _paces(generation: dict[str, Any]) -> dict[str, float]:
    """Frames of speech per text token, from generation_config.json.

    `frames_per_text` is a low quantile for the model's voices, `frames_per_token` the median.
    """
    paces: dict[str, float] = {
        name: generation[name] for name in ("frames_per_text", "frames_per_token") if name in generation
    }
    for name, value in paces.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise AntiphonError(
                f"generation_config.json: {name} is {value!r:.60}, "
                "expected frames of speech a text token, a number above 0."
            )
    return paces


def _default_voice(config: OmniConfig, voices: dict[str, int]) -> str | None:
    """The default speaker of the configuration, or else the first voice."""
    stated = config.talker.default_speaker if config.talker else None
    return stated if stated in voices else next(iter(voices), None)
