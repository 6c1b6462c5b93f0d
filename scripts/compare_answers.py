"""Compare the answers of bundles with recorded ones: ids, codes and samples of fixed questions, bit by bit.

    python -m antiphon.scripts.compare_answers record FILE BUNDLE... [--threads 1] [--examples docs/examples]
    python -m antiphon.scripts.compare_answers compare FILE BUNDLE...

`record` asks each bundle every question of `questions` (typed, with audio, with an image; greedy and sampled
with a seed; a voice from a recording, each style, a language) and writes the answers to FILE. Questions that
the bundle refuses are not recorded. `compare` asks the questions of FILE, with the bundles in the same order.
It prints "equal" or the first difference, with exit code 1. Answers are reproducible on one machine, with one
version of the engine library and one number of threads.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime.bundle.errors import AntiphonError
from ..runtime.bundle.manifest import Manifest
from ..runtime.bundle.said import reason, short_path
from ..runtime.omni import load

EXAMPLES = Path(__file__).resolve().parents[1] / "docs" / "examples"
SOUND, PICTURE = "question.wav", "picture.png"
LIMITS = {"max_text_tokens": 24, "max_frames": 24}
DRAWN = {"seed": 7, "temperature": 0.8, "top_k": 20, "top_p": 0.9}
PARTS = ("ids", "codes", "samples")
KEY = re.compile(r"[0-9]{1,6}/.+/(ids|codes|samples)")

Messages = list[dict[str, Any]]
Question = tuple[Messages, dict[str, Any]]
Answers = dict[str, np.ndarray]
"""One array per "NUMBER/QUESTION/PART": the bundle's number from 0, the question's name, one of PARTS."""


def main() -> None:
    """Record or compare; exit code 1 if an answer differs, 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=("record", "compare"))
    parser.add_argument("file", type=Path, help="the recorded answers, an .npz file")
    parser.add_argument("bundles", type=Path, nargs="+", metavar="bundle")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--examples", type=Path, default=EXAMPLES, help=f"folder with {SOUND} and {PICTURE}")
    arguments = parser.parse_args()
    try:
        if arguments.command == "record":
            _write(arguments.file, record(arguments.bundles, arguments.examples, arguments.threads))
            return
        difference = compare(_read(arguments.file), arguments.bundles, arguments.examples, arguments.threads)
    except AntiphonError as error:
        parser.exit(2, f"{error}\n")
    print(difference or "equal")
    parser.exit(1 if difference else 0)


def questions(manifest: Manifest, examples: Path) -> dict[str, Question]:
    """Messages and options by name; `examples` holds the audio file and the image."""
    for name in (SOUND, PICTURE):
        if not (examples / name).is_file():
            raise AntiphonError(
                f"There is no {name} in {short_path(examples)}; "
                "name the folder docs/examples of the repository with --examples."
            )
    typed: Messages = [{"role": "user", "content": "What is twelve plus thirty?"}]
    sound: Messages = [
        {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": str(examples / SOUND)}}]}
    ]
    seen: Messages = [
        {"type": "image_url", "image_url": {"url": str(examples / PICTURE)}},
        {"type": "text", "text": "What is this?"},
    ]
    turns: Messages = [*sound, {"role": "assistant", "content": "Yes."}, {"role": "user", "content": seen}]
    asked: dict[str, Question] = {}
    ways: dict[str, dict[str, Any]] = {"greedy": {"greedy": True}, "drawn": DRAWN}
    for way, options in ways.items():
        for name, messages in (
            ("typed", typed),
            ("sound", sound),
            ("picture", [{"role": "user", "content": seen}]),
            ("turns", turns),
        ):
            asked[f"{name}, {way}"] = messages, options
    asked["text only"] = typed, {"greedy": True, "modalities": ("text",)}
    asked["voice of a recording"] = typed, {"voice": str(examples / SOUND)}
    asked |= {f"voice {name}": (typed, {"voice": name}) for name in sorted(manifest.voices)}
    asked |= {
        f"style {name}": (typed, {"style": name})
        for name in (*sorted(manifest.speech_prompts.styles), "slow and calm")
    }
    asked |= {
        f"language {name}": (typed, {"language": name})
        for name in sorted(manifest.speech_prompts.languages)[:2]
    }
    asked |= {
        f"interleave {name}": (sound, {"interleave": name})
        for name in ("dual_track", "chunked:4,4", "chunked:2,3", "adaptive", "adaptive:2,3")
    }
    return asked


def record(bundles: Sequence[Path], examples: Path = EXAMPLES, threads: int = 1) -> Answers:
    """The answers of each bundle to every question that it accepts; refusals are printed on standard error.

    Raises AntiphonError if a bundle accepts none.
    """
    answers: Answers = {}
    for number, bundle in enumerate(bundles):
        with load(bundle, threads=threads) as omni:
            before = len(answers)
            for name, (messages, options) in questions(omni.manifest, examples).items():
                try:
                    reply = omni.generate(messages, **(LIMITS | options))
                except AntiphonError as error:
                    print(f"{bundle}, {name}: not recorded ({error})", file=sys.stderr)
                    continue
                answers |= {
                    f"{number}/{name}/{part}": value
                    for part, value in zip(
                        PARTS, (np.array(reply.token_ids), reply.codes, reply.audio), strict=True
                    )
                }
            if len(answers) == before:
                raise AntiphonError(
                    f"The bundle {short_path(bundle)} answered no question; "
                    "name a bundle that antiphon run answers with."
                )
    return answers


def compare(
    recorded: Answers, bundles: Sequence[Path], examples: Path = EXAMPLES, threads: int = 1
) -> str | None:
    """The first difference between `recorded` and the bundles' answers now, in one sentence; None if all are
    equal.

    Raises AntiphonError if the number of bundles is not the recorded one.
    """
    known: dict[int, list[str]] = {}
    for key in recorded:
        place, _, rest = key.partition("/")
        known.setdefault(int(place), []).append(rest.rpartition("/")[0])
    if len(known) != len(bundles):
        raise AntiphonError(
            f"The file holds the answers of {len(known)} bundles, {len(bundles)} were given; "
            "name those bundles in the same order."
        )
    for number, bundle in enumerate(bundles):
        with load(bundle, threads=threads) as omni:
            asked = questions(omni.manifest, examples)
            for name in dict.fromkeys(known[number]):
                where = f"{bundle}, {name}"
                if name not in asked:
                    return f"{where}: the bundle no longer has what this question asks for."
                messages, options = asked[name]
                try:
                    reply = omni.generate(messages, **(LIMITS | options))
                except AntiphonError as error:
                    return f"{where}: refused ({error})"
                for part, value in zip(
                    PARTS, (np.array(reply.token_ids), reply.codes, reply.audio), strict=True
                ):
                    if difference := first_difference(recorded[f"{number}/{name}/{part}"], value):
                        return f"{where}: {part} {difference}."
    return None


def first_difference(before: np.ndarray, now: np.ndarray) -> str | None:
    """The first difference of two arrays, in words; None if type, shape and every bit are equal."""
    if before.dtype != now.dtype or before.shape != now.shape:
        return f"were {before.dtype} {list(before.shape)} and are {now.dtype} {list(now.shape)}"
    wrong = np.flatnonzero(
        np.ascontiguousarray(before).view(f"u{before.itemsize}")
        != np.ascontiguousarray(now).view(f"u{now.itemsize}")
    )
    if not len(wrong):
        return None
    place = tuple(int(index) for index in np.unravel_index(wrong[0], before.shape))
    return (
        f"at {list(place)} were {before[place]!s} and are {now[place]!s} "
        f"({len(wrong)} of {before.size} differ)"
    )


def _write(path: Path, answers: Answers) -> None:
    try:
        with path.open("wb") as file:
            np.savez_compressed(file, **answers)  # type: ignore[arg-type]
    except OSError as error:
        raise AntiphonError(
            f"{short_path(path)} cannot be written ({reason(error)}); name a file in a folder that can."
        ) from None
    print(f"{len(answers) // len(PARTS)} answers in {path}")


def _read(path: Path) -> Answers:
    try:
        with np.load(path, allow_pickle=False) as file:
            answers = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, AttributeError) as error:
        raise AntiphonError(
            f"{short_path(path)} cannot be read as recorded answers ({reason(error)}); make it with record."
        ) from None
    if not all(KEY.fullmatch(name) for name in answers):
        raise AntiphonError(
            f"{short_path(path)} holds other arrays than recorded answers; make it with record."
        )
    return answers


if __name__ == "__main__":
    main()
