"""The study of interleaves on real speech.

A trained Talker speaks held-out texts under every policy, and recognisers transcribe them. The speech depends
on text and seed alone (docs/aria.md), so every text is spoken once per policy; Thinkers of several speeds
then change only the timing. The text reaches the Talker as the Thinker's answer would (Omni.speak).
Every policy is compared with the synthesiser's speech of the same texts, on which recognisers err too. Texts
with fewer than three natural frames per token are reported separately: a fixed 1:3 cannot keep the published
bound on them.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...runtime.bundle.errors import AntiphonError
from ...runtime.omni import Omni
from ...runtime.options import find_policy
from ...runtime.stages.aria import Policy, adaptive, bound_violations, chunked, dual_track
from ..quality.listening import Listener, Tick
from ..quality.normaliser import Errors, word_errors
from ..quality.prompts import Prompt
from ..quality.sound import pauses
from ..quality.synthesisers import RATE, synthesise
from ..quality.work import Work
from .aria_simulation import Item

LEADS = range(1, 9)
FIXED_RATIO = 3
"""Frames per text row of the fixed schedule."""
FRAMES_BEYOND = 3
"""A text has no end if it takes this many times the synthesiser's frames, plus 25."""
SYNTHESISER = "synthesiser"


@dataclass(frozen=True)
class Text:
    """A text to speak, and the synthesiser's speech of it, float32 at quality.synthesisers.RATE."""

    prompt: Prompt
    tokens: int
    audio: np.ndarray
    frames: int
    """Frames of the synthesiser's speech."""

    @property
    def ratio(self) -> float:
        """Natural frames per token."""
        return self.frames / self.tokens


@dataclass(frozen=True)
class Voiced:
    """The speech of all texts under one policy; the synthesiser's `policy` is SYNTHESISER.

    Word error rates (0 to 1, or more) are by recogniser, and for the first recogniser also for the texts with
    a ratio of at least FIXED_RATIO and those below. `length`: median duration relative to the synthesiser's;
    `rate_spread`: standard deviation of that ratio's logarithm, the unevenness of the speaking rate. `pause`:
    median seconds; `paused`: share of the time. `over_bound`: share of the texts that break the published
    bound with their own totals. `endless`: texts without an end. `frame_seconds`: measured time of Talker,
    code predictor and Code2Wav.
    """

    policy: str
    word_errors: float
    second_errors: float
    slow_errors: float | None
    fast_errors: float | None
    length: float
    rate_spread: float
    pause: float | None
    paused: float
    over_bound: float
    endless: int
    frame_seconds: float | None
    items: list[Item] = field(repr=False)
    """Tokens and frames of every text as spoken."""


def policies(ratio: float) -> dict[str, Policy]:
    """The policies for an interleaving Talker, by name; `ratio` is the bundle's R."""
    leads = {f"adaptive R={ratio:g}, lead {lead}": adaptive(lead, ratio) for lead in LEADS}
    return {
        f"fixed 1:{FIXED_RATIO}": chunked(1, FIXED_RATIO),
        "chunked 4:4": chunked(4, 4),
        **leads,
        "adaptive R=1, lead 4": adaptive(4, 1),
    }


def texts(omni: Omni, prompts: Sequence[Prompt], work: Work, tick: Tick) -> list[Text]:
    """The right answers of `prompts`, spoken by the synthesiser."""
    made = []
    for done, prompt in enumerate(prompts):
        tick("synthesiser: speaking", done, len(prompts))
        audio = work.audio(f"joe 0 {prompt.answer}", lambda text=prompt.answer: synthesise(text, "joe"))  # type: ignore[misc]
        made.append(
            Text(
                prompt,
                len(omni.front_end.encode_text(prompt.answer)),
                audio,
                -(-round(len(audio) / RATE * omni.sample_rate) // _samples(omni)),
            )
        )
    return made


@dataclass(frozen=True)
class Subject:
    """A loaded bundle and its folder."""

    omni: Omni
    bundle: Path


class Study:
    """Speaks and transcribes. `work` caches the results of synthesisers and recognisers."""

    def __init__(self, asked: Sequence[Text], listener: Listener, tick: Tick, seed: int = 0) -> None:
        self.asked, self.listener, self.tick, self.seed = asked, listener, tick, seed

    def synthesiser(self) -> Voiced:
        """The same measures for the synthesiser's speech."""
        return self._voiced(
            SYNTHESISER,
            [one.audio for one in self.asked],
            RATE,
            [Item(one.tokens, one.frames) for one in self.asked],
            0,
            0.0,
            None,
        )

    def interleaved(
        self, subject: Subject, wavs: Path | None = None, chosen: Sequence[str] = ()
    ) -> Iterator[tuple[Policy, Voiced]]:
        """Every policy, or the `chosen` ones (names of aria.parse_policy), on an interleaving Talker.

        Raises AntiphonError for another Talker.
        """
        contract = subject.omni.manifest.talker
        if contract is None or contract.layout == "summed":
            raise AntiphonError(
                f"The Talker of {subject.bundle} cannot interleave text and speech; "
                "give a bundle of Qwen3.5-Omni with --bundle."
            )
        asked = {
            policy.name: policy for policy in (find_policy(subject.omni.manifest, name) for name in chosen)
        }
        for name, policy in (asked or policies(subject.omni.manifest.constants.frames_per_text)).items():
            yield policy, self._speak(subject, name, policy, wavs)

    def dual_track(self, subject: Subject, wavs: Path | None = None) -> tuple[Policy, Voiced]:
        """The dual track, on a Talker that was trained for it. Raises AntiphonError for another Talker."""
        contract = subject.omni.manifest.talker
        if contract is None or contract.layout != "summed":
            raise AntiphonError(
                f"The Talker of {subject.bundle} was trained for {subject.omni.manifest.interleave}; "
                "give a bundle of a dual-track Talker."
            )
        return dual_track(), self._speak(subject, "dual track", dual_track(), wavs)

    def _speak(self, subject: Subject, name: str, policy: Policy, wavs: Path | None) -> Voiced:
        made, items, over, endless, seconds = [], [], 0, 0, []
        for done, one in enumerate(self.asked):
            self.tick(f"{name}: speaking", done, len(self.asked))
            messages = [{"role": "user", "content": one.prompt.typed}]
            limit = FRAMES_BEYOND * one.frames + 25
            reply = subject.omni.speak(
                one.prompt.answer, messages, seed=self.seed + done, interleave=policy.name, max_frames=limit
            )
            frames = len(reply.codes)
            cursors = [min(one.tokens, policy.text_rows_before(frame)) for frame in range(1, frames + 1)]
            over += bound_violations(cursors, one.tokens, frames) > 0
            endless += reply.finish_reason != "stop"
            times = reply.timings
            if times.seconds_per_frame is not None and times.seconds_per_vocoder_frame is not None:
                seconds.append(times.seconds_per_frame + times.seconds_per_vocoder_frame)
            made.append(reply.audio)
            items.append(Item(one.tokens, frames))
        if wavs is not None:
            _write(wavs, name, made, subject.omni.sample_rate)
        frame_seconds = statistics.median(seconds) if seconds else None
        return self._voiced(
            name, made, subject.omni.sample_rate, items, endless, over / len(items), frame_seconds
        )

    def _voiced(
        self,
        name: str,
        made: Sequence[np.ndarray],
        rate: int,
        items: list[Item],
        endless: int,
        over_bound: float,
        frame_seconds: float | None,
    ) -> Voiced:
        first, second = self.listener.recognisers
        errors: dict[bool, Errors] = {True: Errors(), False: Errors()}
        more = Errors()
        for done, (one, audio) in enumerate(zip(self.asked, made, strict=True)):
            self.tick(f"{name}: listening", done, len(made))
            slow = one.ratio >= FIXED_RATIO
            errors[slow] += word_errors(one.prompt.answer, self.listener.heard(first, audio, rate))
            more += word_errors(one.prompt.answer, self.listener.heard(second, audio, rate))
        lasting = [pauses(audio, rate) for audio in made]
        ratios = [
            seconds / pauses(one.audio, RATE)[0]
            for one, (seconds, _) in zip(self.asked, lasting, strict=True)
            if seconds
        ]
        silent = [pause for _, found in lasting for pause in found]
        whole = sum(seconds for seconds, _ in lasting)
        return Voiced(
            name,
            (errors[True] + errors[False]).rate or 0.0,
            more.rate or 0.0,
            errors[True].rate,
            errors[False].rate,
            length=statistics.median(ratios) if ratios else 0.0,
            rate_spread=statistics.pstdev(np.log(ratios).tolist()) if ratios else 0.0,
            pause=statistics.median(silent) if silent else None,
            paused=sum(silent) / whole if whole else 0.0,
            over_bound=over_bound,
            endless=endless,
            frame_seconds=frame_seconds,
            items=items,
        )


def _samples(omni: Omni) -> int:
    return omni.engines["code2wav"].entry.constant("samples_per_frame")


def _write(folder: Path, policy: str, made: Sequence[np.ndarray], rate: int) -> None:
    """Write the first two texts as WAV files, named after the policy."""
    import soundfile

    folder.mkdir(parents=True, exist_ok=True)
    name = policy.replace(", ", "_").replace(" ", "_").replace(":", "-").replace("=", "")
    for number, audio in enumerate(made[:2]):
        soundfile.write(folder / f"{name}_{number}.wav", audio, rate, "PCM_16")
