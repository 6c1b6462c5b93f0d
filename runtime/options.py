"""The options of one reply, checked before any work."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .bundle.errors import InvalidInput
from .bundle.manifest import Manifest
from .bundle.numeric import LARGEST_COUNT, number, whole
from .bundle.said import article, short
from .bundle.sampling import PENALTY, TEMPERATURE, TOP_P, SamplingParameters
from .frontend.media.media_options import check_frame_rate
from .frontend.prompt.tools import check_unicode
from .stages.aria import Policy, dual_track, parse_policy, usable_policies
from .stages.noise import check_seed
from .stages.vocoder import DEFAULT_SCHEDULE, check_schedule

MODALITIES = ("text", "audio")
DEFAULT_MAX_TEXT_TOKENS = 1024
"""Where neither caller nor bundle says otherwise; HF's thinker_max_new_tokens."""

TEXT_OPTIONS = (
    "max_text_tokens",
    "min_text_tokens",
    "modalities",
    "temperature",
    "top_k",
    "top_p",
    "repetition_penalty",
)
"""Options of the text that the Thinker writes. Omni.speak, whose text is given, takes all others."""


@dataclass(frozen=True)
class ReplyOptions:
    """Options of generate, stream, astream and Conversation.reply,
    and (but for TEXT_OPTIONS) of speak and stream_speech. None: the bundle's default.

    greedy: the most probable token and code at every step. seed: an integer of 64 bits; equal seeds give
    equal answers. max_text_tokens and max_frames limit text and speech; min_text_tokens and min_frames keep
    them from ending earlier. modalities: ("text",) switches speech off. voice: a name of the bundle's voices,
    upper or lower case, a recording (path or bytes), or a Voice; style: a style of the bundle or a
    description in words; language: a language of the bundle that the answer is spoken in; interleave: how
    text and speech take turns (aria.parse_policy). temperature, top_k, top_p and repetition_penalty are the
    Thinker's; talker_... the Talker's; predictor_... the code predictor's. packet_schedule: frames of the
    first packets, the last repeats. use_audio_in_video and video_fps: how videos are read. NumPy scalars
    count as numbers. Raises AntiphonError when a switch is no bool, a name no text or video_fps no rate;
    `choose` checks the rest.
    """

    greedy: bool = False
    seed: int = 0
    max_text_tokens: int | None = None
    min_text_tokens: int | None = None
    max_frames: int | None = None
    min_frames: int | None = None
    modalities: Sequence[str] | None = None
    voice: Any = None
    style: str | None = None
    language: str | None = None
    interleave: str | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    talker_temperature: float | None = None
    talker_top_k: int | None = None
    talker_top_p: float | None = None
    talker_repetition_penalty: float | None = None
    predictor_temperature: float | None = None
    predictor_top_k: int | None = None
    predictor_top_p: float | None = None
    packet_schedule: Sequence[int] = DEFAULT_SCHEDULE
    use_audio_in_video: bool = False
    video_fps: float = 2.0

    def __post_init__(self) -> None:
        for name in ("greedy", "use_audio_in_video"):
            value = getattr(self, name)
            if not isinstance(value, bool | np.bool_):
                raise InvalidInput(f"{name} is {short(value)}, expected True or False.")
            object.__setattr__(self, name, bool(value))
        for name, example in (("style", "whisper"), ("language", "german"), ("interleave", "chunked:4,4")):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise InvalidInput(
                    f"{name} is {short(value)}, expected text such as {short(example)}, "
                    "or None for the default."
                )
        object.__setattr__(self, "video_fps", check_frame_rate(self.video_fps, "video_fps"))


@dataclass(frozen=True)
class ResolvedOptions:
    """The options with the bundle's defaults filled in.

    `speaks` False: an answer without speech. `voice`, `style`: None for the bundle's default.
    """

    thinker: SamplingParameters
    talker: SamplingParameters
    predictor: SamplingParameters
    seed: int
    speaks: bool
    voice: Any
    style: str | None
    language: int | None
    policy: Policy
    max_frames: int | None
    schedule: tuple[int, ...]


def read_options(given: Mapping[str, Any]) -> ReplyOptions:
    """Keyword arguments as ReplyOptions. Raises AntiphonError for an unknown name."""
    known = [entry.name for entry in dataclasses.fields(ReplyOptions)]
    for name in given:
        if name not in known:
            raise InvalidInput(f"There is no option {short(name)}; the options are {', '.join(known)}.")
    return ReplyOptions(**given)


def read_speech_options(given: Mapping[str, Any], manifest: Manifest) -> ReplyOptions:
    """The options of a given text's speech.

    Raises AntiphonError as `read_options`, for an option of the text, and where the
    bundle has no speech stages.
    """
    if not manifest.speaks:
        raise InvalidInput(
            "The bundle holds no speech stages, so it speaks no text; "
            "build it from a checkpoint with a Talker."
        )
    options = read_options(given)
    for name in TEXT_OPTIONS:
        if getattr(options, name) is not None:
            raise InvalidInput(
                f"{name} is an option of an answer's text, and speak is given the text; leave it out."
            )
    return options


def check_words(text: Any) -> str:
    """`text` to be spoken.

    Raises AntiphonError for what is no text, no Unicode, or holds nothing but white space.
    """
    if not isinstance(text, str):
        raise InvalidInput(f"The text to speak is {article(type(text).__name__)}, expected text.")
    if not text.strip():
        raise InvalidInput("The text to speak is empty; give at least one word.")
    return check_unicode(text, "The text to speak")


def choose(
    options: ReplyOptions, manifest: Manifest, default_voice: Any = None, default_style: str | None = None
) -> ResolvedOptions:
    """Check `options` against the bundle.

    `default_voice` and `default_style` go before the bundle's own. Raises
    AntiphonError for what does not fit.
    """
    seed = check_seed(options.seed)
    max_text_tokens = _count("max_text_tokens", options.max_text_tokens)
    min_text_tokens = _count(
        "min_text_tokens", options.min_text_tokens, manifest.constants.thinker_context, least=0
    )
    max_frames = _count("max_frames", options.max_frames)
    min_frames = _count("min_frames", options.min_frames, manifest.constants.talker_context or None)
    thinker = _sampling(
        manifest, options, "thinker", "", max_tokens=max_text_tokens, min_tokens=min_text_tokens
    )
    talker = _sampling(manifest, options, "talker", "talker_", min_tokens=min_frames)
    predictor = _sampling(manifest, options, "predictor", "predictor_")
    if thinker.max_tokens is None:
        thinker = dataclasses.replace(thinker, max_tokens=DEFAULT_MAX_TEXT_TOKENS)
    _check_order("text_tokens", min_text_tokens, thinker.max_tokens)
    _check_order("frames", min_frames, max_frames)
    if options.greedy:
        thinker, talker = thinker.greedy(), talker.greedy()
    if talker.temperature == 0:  # the predictor follows the Talker, as in HF
        predictor = predictor.greedy()
    style = default_style if options.style is None else options.style
    spoken = speaks(options, manifest)
    if style is not None and spoken and not (manifest.talker and manifest.talker.takes_style):
        raise InvalidInput(f"The bundle's Talker takes no style (found {short(style)}); leave it out.")
    return ResolvedOptions(
        thinker,
        talker,
        predictor,
        seed,
        spoken,
        default_voice if options.voice is None else options.voice,
        style,
        find_language(manifest, options.language),
        find_policy(manifest, options.interleave),
        max_frames,
        check_schedule(options.packet_schedule),
    )


def speaks(options: ReplyOptions, manifest: Manifest) -> bool:
    """Whether the answer is spoken.

    Raises AntiphonError for unknown modalities, or speech from a bundle without it.
    """
    if options.modalities is None:
        return manifest.speaks
    given = options.modalities
    modalities = tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else ()
    if "text" not in modalities or not all(
        isinstance(name, str) and name in MODALITIES for name in modalities
    ):
        raise InvalidInput(f'modalities is {_listed(given)}, expected ("text",) or ("text", "audio").')
    if "audio" in modalities and not manifest.speaks:
        raise InvalidInput(
            "The bundle holds no speech stages; "
            'ask for modalities=("text",) or build it from a checkpoint with a Talker.'
        )
    return "audio" in modalities


def find_language(manifest: Manifest, name: str | None) -> int | None:
    """The codec id of the language `name`.

    None lets the model decide. Raises AntiphonError that lists the languages.
    """
    if name is None:
        return None
    known = manifest.speech_prompts.languages
    if manifest.talker is None or not manifest.talker.takes_language:
        raise InvalidInput(f"The bundle's Talker takes no language (found {short(name)}); leave it out.")
    row = known.get(name.lower()) if isinstance(name, str) else None
    if row is None:
        raise InvalidInput(
            f"There is no language {short(name)}; the bundle's languages are {', '.join(sorted(known))}."
        )
    return row


def find_policy(manifest: Manifest, name: str | None) -> Policy:
    """The interleave called `name`, or the bundle's own.

    Raises AntiphonError for one that the bundle's Talker cannot follow.
    """
    ratio = manifest.constants.frames_per_text
    if manifest.talker is None or manifest.interleave is None:
        if name is not None:
            raise InvalidInput(
                f"The bundle holds no speech stages, so that nothing is interleaved (found {short(name)}); "
                "leave it out."
            )
        return dual_track()
    policy = parse_policy(manifest.interleave if name is None else name, ratio)
    if policy.layout != manifest.talker.layout:
        usable = usable_policies(manifest.talker.layout)
        raise InvalidInput(f"The bundle's Talker cannot follow the interleave {short(name)}; use {usable}.")
    return policy


def _sampling(
    manifest: Manifest, options: ReplyOptions, stage: str, prefix: str, **limits: int | None
) -> SamplingParameters:
    """The bundle's parameters of `stage`, replaced by the options whose names begin with `prefix`."""
    checks = {
        "temperature": lambda value, name: number(value, name, *TEMPERATURE, or_zero=True),
        "top_k": lambda value, name: whole(value, name, 0),
        "top_p": lambda value, name: number(value, name, *TOP_P),
        "repetition_penalty": lambda value, name: number(value, name, *PENALTY),
    }
    given: dict[str, Any] = {name: value for name, value in limits.items() if value is not None}
    for name, check in checks.items():
        value = getattr(options, prefix + name, None)  # the predictor has no penalty
        if value is not None:
            given[name] = check(value, prefix + name)
    return dataclasses.replace(manifest.sampling.get(stage, SamplingParameters()), **given)


def _count(name: str, value: Any, most: float | None = None, least: int = 1) -> int | None:
    """`value` as an int from `least` to `most` (a constant of the bundle). None stays None."""
    return None if value is None else whole(value, name, least, LARGEST_COUNT if most is None else int(most))


def _listed(given: Any) -> str:
    """A few names as they were given, anything else shortened."""
    names = (
        isinstance(given, list | tuple)
        and 0 < len(given) <= 3
        and all(isinstance(name, str) and len(name) <= 20 for name in given)
    )
    return f"({', '.join(short(name) for name in given)})" if names else short(given)


def _check_order(name: str, least: int | None, most: int | None) -> None:
    """Raise AntiphonError where an option's minimum exceeds the maximum.

    The bundle's own minimum yields to a smaller maximum.
    """
    if least is not None and most is not None and least > most:
        raise InvalidInput(f"min_{name} is {least}, expected at most max_{name}, which is {most}.")
