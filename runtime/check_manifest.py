"""Whether what a manifest says fits together:
its ids, constants, voices and sampling to the sizes of its stages, and its front end to its ids.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from .bundle.errors import BrokenBundle
from .bundle.interfaces import shared_sizes
from .bundle.manifest import Manifest
from .bundle.names import SPEECH
from .bundle.said import short
from .bundle.talker_contract import PROMPTS, TalkerContract
from .frontend.constants import NO_ID
from .stages.aria import parse_policy, usable_policies
from .stages.voices import NO_TABLE, check_voice, find_voice

TEXT_IDS = ("im_start", "im_end", "system", "user", "assistant", "newline")
SPEECH_IDS = (
    "tts_pad",
    "tts_bos",
    "tts_eos",
    "codec_eos",
    "codec_nothink",
    "codec_think_bos",
    "codec_think_eos",
    "codec_pad",
    "codec_bos",
)
FRONT_END_IDS = ("im_start", "im_end", "system", "user", "assistant", "audio", "image", "video")
LONGEST_CONTEXT = 2**31 - 1
SOUND_CONSTANTS = {
    "code2wav": ("sample_rate", "samples_per_frame", "lead_samples"),
    "codec_encoder": ("sample_rate", "samples_per_frame"),
}
"""Constants of the stages that give or take sound."""
SAMPLE_RATES = (1000, 768_000)
LARGEST_FRAME = 2**20
"""Samples."""


def check_manifest(manifest: Manifest, voice_table: np.ndarray | None = None) -> None:
    """Raise AntiphonError unless a conversation can run on what `manifest` says; `voice_table`:
    of voices.read_voice_table.
    """
    if "thinker" not in manifest.stages:
        raise BrokenBundle("The bundle has no stage thinker; build it again.")
    if (there := [name for name in SPEECH if name in manifest.stages]) and not manifest.speaks:
        raise BrokenBundle(
            f"The bundle has only {', '.join(there)} of the stages of speech ({', '.join(SPEECH)}); "
            "build it again."
        )
    sizes = shared_sizes(manifest.stages)
    contract = manifest.talker
    if (contract is None) == manifest.speaks:
        found = (
            "no talker, what its Talker is fed" if manifest.speaks else "a talker, but no stages of speech"
        )
        raise BrokenBundle(f"The manifest of this {manifest.family:.40} bundle has {found}; build it again.")
    _check_ids(manifest, sizes)
    _check_context(manifest, "thinker")
    _check_sampling(manifest)
    if contract is not None:
        _check_context(manifest, "talker")
        _check_contract(manifest, contract)
        _check_speech(manifest, sizes)
        _check_sound(manifest)
        _check_voices(manifest, contract, sizes, voice_table)


def check_front_end(front_end: Any, manifest: Manifest) -> None:
    """Raise AntiphonError where `front_end`, a FrontEnd, marks turns or media by other ids than the manifest,
    or makes other features than encoders take.
    """
    for name in FRONT_END_IDS:
        found, expected = manifest.ids.get(name, NO_ID), getattr(front_end, name)
        _expect(manifest, f"ids.{name}", found, found == expected, "the id that frontend.json has")
    sizes = shared_sizes(manifest.stages)
    for name, made in front_end.feature_sizes.items():
        if sizes.get(name, made) != made:
            raise BrokenBundle(
                f"The front end makes features of {made} values, "
                f"an encoder of the bundle takes {sizes[name]}; build the bundle again."
            )


def _check_ids(manifest: Manifest, sizes: dict[str, int]) -> None:
    needed = (
        TEXT_IDS
        + SPEECH_IDS * manifest.speaks
        + ("codec_think",) * (manifest.talker is not None and manifest.talker.takes_language)
    )
    for name in needed:
        manifest.id(name)
    for name, value in manifest.ids.items():
        limit = sizes.get("CODEC") if name.startswith("codec_") else sizes["TEXT"]
        _expect(
            manifest,
            f"ids.{name:.60}",
            value,
            isinstance(value, int) or name == "eos" and len(value) > 0,
            "one id",
        )
        _check_below(manifest, f"ids.{name:.60}", [value] if isinstance(value, int) else value, limit)
    speech_prompts = manifest.speech_prompts
    for kind, table in (("styles", speech_prompts.styles), ("voice_prompts", speech_prompts.voice_prompts)):
        for name, ids in table.items():
            _check_below(manifest, f"speech_prompts.{kind}.{name:.60}", ids, sizes["TEXT"])
    _check_below(manifest, "speech_prompts.languages", speech_prompts.languages.values(), sizes.get("CODEC"))


def _check_context(manifest: Manifest, stage: str) -> None:
    most = manifest.stages[stage].interface.constants.get("context", LONGEST_CONTEXT)
    name, most = f"{stage}_context", most if isinstance(most, int) else LONGEST_CONTEXT
    value = getattr(manifest.constants, name)
    _expect(
        manifest,
        f"constants.{name}",
        value,
        isinstance(value, int) and 1 <= value <= most,
        f"rows, an integer from 1 to {most}",
    )


def _check_sampling(manifest: Manifest) -> None:
    for stage in ("thinker", *(("talker", "predictor") if manifest.speaks else ())):
        if stage not in manifest.sampling:
            raise BrokenBundle(f"The manifest has no sampling of the stage {stage}; build the bundle again.")
    largest = float(np.finfo(np.float32).max)
    for stage, values in manifest.sampling.items():
        for name in ("temperature", "repetition_penalty"):
            value = getattr(values, name)
            fits = value <= largest and (name == "temperature" or value >= float(np.finfo(np.float32).tiny))
            _expect(manifest, f"sampling.{stage:.60}.{name}", value, fits, "a number that a float32 holds")


def _check_contract(manifest: Manifest, contract: TalkerContract) -> None:
    """What the Talker is fed, against the prompt of its kind of voice, the inputs and constants of its stage,
    the speech_prompts and the interleave.
    """

    def expect(name: str, holds: bool, expected: str) -> None:
        _expect(manifest, f"talker.{name}", getattr(contract, name), holds, expected)

    for name, value in PROMPTS[contract.voice].items():
        expect(
            name,
            getattr(contract, name) == value,
            f"{value}, as a Talker is fed whose voices are of the kind {contract.voice}",
        )
    stage = manifest.stages["talker"]
    frames = {spec.name for spec in stage.inputs} & {"frame_rows", "frame_codes"}
    expect(
        "frame_input",
        frames == {contract.frame_input},
        f"{' or '.join(sorted(frames)) or 'none'}, the stage's input for frames",
    )
    expect("hidden_rows", contract.hidden_rows >= 0, "an integer of at least 0")
    expect(
        "embeds_text",
        contract.embeds_text == ("text_vocab_size" in stage.interface.constants),
        "what the constant text_vocab_size of the stage says",
    )
    for name, table in (
        ("takes_style", manifest.speech_prompts.styles),
        ("takes_language", manifest.speech_prompts.languages),
    ):
        expect(
            name,
            getattr(contract, name) or not table,
            f"true where speech_prompts has {name.partition('_')[2]}s",
        )
    expect(
        "takes_language",
        not contract.takes_language or bool(manifest.speech_prompts.languages),
        "false where speech_prompts has no languages",
    )
    _expect(manifest, "interleave", manifest.interleave, manifest.interleave is not None, "the name of one")
    policy = parse_policy(manifest.interleave or "", manifest.constants.frames_per_text)
    _expect(
        manifest,
        "interleave",
        manifest.interleave,
        policy.layout == contract.layout,
        f"{usable_policies(contract.layout)}, which this Talker can follow",
    )


def _check_speech(manifest: Manifest, sizes: dict[str, int]) -> None:
    constants = manifest.constants
    book = constants.codebook_size
    vocoder = manifest.stages["code2wav"].interface.constants.get("codebook_size", sizes["CODES"])
    fits = book == sizes["CODES"] == vocoder and book <= sizes["CODEC"]
    _expect(manifest, "constants.codebook_size", book, fits, f"{sizes['CODES']}, the size of the codebooks")
    _expect(
        manifest,
        "the predictor's codebooks",
        sizes["RESIDUALS"],
        sizes["RESIDUALS"] == sizes["GROUPS"] - 1,
        f"{sizes['GROUPS'] - 1}",
    )
    for name in ("frames_per_text", "frames_per_token"):
        pace = getattr(constants, name)
        pace = 1.0 if pace is None else pace
        _expect(
            manifest,
            f"constants.{name}",
            pace,
            0 < pace < math.inf,
            "frames of speech a text token, a number above 0",
        )


def _check_sound(manifest: Manifest) -> None:
    for stage in SOUND_CONSTANTS.keys() & manifest.stages.keys():
        found = manifest.stages[stage].interface.constants
        frame = found.get("samples_per_frame", 1)
        # A lead is shorter than a frame, so that the first frame gives sound.
        limits = {
            "sample_rate": SAMPLE_RATES,
            "samples_per_frame": (1, LARGEST_FRAME),
            "lead_samples": (0, frame - 1),
        }
        for name in SOUND_CONSTANTS[stage]:
            value, (least, most) = found.get(name), limits[name]
            is_fitting = isinstance(value, int) and least <= value <= most
            _expect(
                manifest,
                f"stages.{stage}.interface.constants.{name}",
                value,
                is_fitting,
                f"an integer from {least} to {most}",
            )


def _check_voices(
    manifest: Manifest, contract: TalkerContract, sizes: dict[str, int], voice_table: np.ndarray | None
) -> None:
    default = manifest.default_voice
    _expect(
        manifest, "default_voice", default, default is None or default in manifest.voices, "one of the voices"
    )
    if contract.voice == "codec_id":
        _check_below(manifest, "voices", manifest.voices.values(), sizes["CODEC"])
    elif voice_table is None:
        raise BrokenBundle(NO_TABLE)
    for name in manifest.voices:
        check_voice(
            find_voice(manifest, name, voice_table),
            contract.voice,
            sizes["GROUPS"],
            manifest.constants.codebook_size,
        )


def _check_below(manifest: Manifest, place: str, ids: Iterable[int], limit: int | None) -> None:
    """Ids from 0 to below `limit`; None: of a stage that the bundle does not have."""
    for index in ids:
        _expect(
            manifest,
            place,
            index,
            index >= 0 and (limit is None or index < limit),
            "an id from 0" + ("" if limit is None else f" to {limit - 1}"),
        )


def _expect(manifest: Manifest, place: str, found: object, holds: bool, expected: str) -> None:
    if not holds:
        raise BrokenBundle(
            f"The manifest of this {manifest.family:.40} bundle says that {place} is {short(found)}, "
            f"expected {expected}; build it again."
        )
