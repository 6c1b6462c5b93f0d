"""Compares interleaves of text and speech, for slow, bursty and stalling Thinkers and on a trained Talker.

    python -m antiphon.scripts.studies.aria_study [--items 200] [--seed 0] [--frame-ms 25]
        [--json] [--plot aria.svg]
    python -m antiphon.scripts.studies.aria_study --bundle BUNDLE [--dual-track OTHER_BUNDLE]
        [--interleave NAME]... [--prompts 60] [--work FOLDER] ...

The first form draws answers and simulates them (aria_simulation). R is the 5 % quantile of frames per token
of items drawn with another seed. A second table shows how often the published bound, with an item's own
totals, fails as R grows; it never fails if R is at most the item's own ratio. The second form lets the Talker
of a bundle speak held-out texts (aria_speech) and transcribes them. It then simulates with the spoken lengths
and the measured time of a frame.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, astuple
from pathlib import Path
from typing import TYPE_CHECKING

from ...runtime.bundle.errors import AntiphonError
from ...runtime.stages.aria import LEAD, Policy
from ..console import print_json, print_table, progress_bar, seconds
from .aria_simulation import TRACES, Outcome, draw_items, low_ratio, policies, study, study_bound

if TYPE_CHECKING:
    from .aria_speech import Voiced

QUANTILES = (0.01, 0.05, 0.25, 0.5)
COLUMNS = (
    "Thinker",
    "policy",
    "first audio",
    "underruns",
    "items with any",
    "pause",
    "longest lead",
    "items over bound",
    "prefixes over",
)
BOUND_COLUMNS = (
    "items with a ratio below R",
    "items over bound",
    "prefixes over",
    "over bound of the other items",
)
FRAME_MS = 25.0
SPOKEN = (
    "policy",
    "word errors",
    "by pocketsphinx",
    "ratio 3 and above",
    "ratio below 3",
    "duration",
    "its spread",
    "pause",
    "time in pauses",
    "items over bound",
    "without an end",
)


def main() -> None:
    """Run the study and print it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--items", type=int, default=200, help="answers that are drawn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--frame-ms",
        type=float,
        help=(
            "Talker, code predictor and Code2Wav for one frame; "
            f"{FRAME_MS:g}, or measured where a bundle speaks"
        ),
    )
    parser.add_argument(
        "--lead",
        type=int,
        default=LEAD,
        help="text rows before the first frame of the adaptive policies that are simulated",
    )
    parser.add_argument(
        "--bundle", type=Path, help="let the Talker of this bundle speak; needs antiphon[quality]"
    )
    parser.add_argument(
        "--dual-track",
        type=Path,
        metavar="BUNDLE",
        help="beside it a bundle with a Talker that was trained for the dual track",
    )
    parser.add_argument(
        "--interleave",
        action="append",
        default=[],
        metavar="NAME",
        help="only these policies speak, as chunked:4,4 or adaptive:2.5,4",
    )
    parser.add_argument("--prompts", type=int, default=60, help="held-out texts that are spoken")
    parser.add_argument(
        "--work",
        type=Path,
        metavar="FOLDER",
        help="where synthesised speech and transcripts are kept for the next run",
    )
    parser.add_argument(
        "--wavs", type=Path, metavar="FOLDER", help="write two texts by every policy as WAV files"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg")
    arguments = parser.parse_args()
    frame_ms = FRAME_MS if arguments.frame_ms is None else arguments.frame_ms
    if arguments.items < 1 or arguments.seed < 0 or not 0 < frame_ms < float("inf") or arguments.lead < 1:
        parser.error(
            "--items and --lead are counts of at least 1, --seed is at least 0, and --frame-ms is above 0, "
            "as in --items 200 --frame-ms 25"
        )
    for path in (arguments.plot, arguments.wavs):
        if path is not None and not path.parent.is_dir():
            parser.error(
                f"{path.parent} is no folder; "
                f"make it before, the study takes long and would have no place for {path.name}"
            )
    if arguments.bundle is None:
        for name in ("dual_track", "wavs", "work", "interleave"):
            if getattr(arguments, name):
                parser.error(f"--{name.replace('_', '-')} is for speech: name a bundle with --bundle")
        _simulate(arguments, frame_ms)
        return
    try:
        _speak(arguments)
    except AntiphonError as error:
        parser.exit(2, f"aria_study: {error}\n")


def _simulate(arguments: argparse.Namespace, frame_ms: float) -> None:
    """Study drawn items."""
    items, known = draw_items(arguments.items, arguments.seed), draw_items(2000, arguments.seed + 1)
    ratio = low_ratio(known)
    outcomes = study(items, policies(ratio, arguments.lead), frame_ms / 1000, arguments.seed)
    bounds = [
        study_bound(items, quantile, low_ratio(known, quantile), arguments.lead) for quantile in QUANTILES
    ]
    if arguments.plot is not None:
        from .aria_plot import plot

        arguments.plot.write_text(plot(outcomes), encoding="utf-8")
    if arguments.json:
        given = {
            name: value
            for name, value in vars(arguments).items()
            if name in ("items", "seed", "lead", "plot")
        } | {"frame_ms": frame_ms}
        print_json(
            {
                **given,
                "ratio": ratio,
                "rows": [asdict(row) for row in outcomes],
                "bounds": [asdict(row) for row in bounds],
            }
        )
        return
    title = (
        f"{arguments.items} items, seed {arguments.seed}, {frame_ms:g} ms a frame, "
        f"R {ratio:g} (5 % quantile), lead {arguments.lead}"
    )
    print_table(title, COLUMNS, [_cells(row) for row in outcomes])
    shown = [
        [f"{row.quantile:.0%}", row.ratio] + [f"{share:.1%}" for share in astuple(row)[2:]] for row in bounds
    ]
    print_table("adaptive: the published bound as R grows", ("R is the quantile", "R", *BOUND_COLUMNS), shown)


def _cells(row: Outcome) -> tuple[str, ...]:
    shares = (f"{row.items_over_bound:.1%}", f"{row.prefixes_over_bound:.1%}")
    underruns = (f"{row.underruns:.2f}", f"{row.items_with_underruns:.0%}", seconds(row.pause))
    return (row.trace, row.policy, seconds(row.first_audio), *underruns, f"{row.lead:.1f}", *shares)


def _speak(arguments: argparse.Namespace) -> None:
    """Study a trained Talker. Raises AntiphonError."""
    from ...runtime.omni import load
    from ..quality.listening import Listener
    from ..quality.prompts import read_prompts
    from ..quality.work import Work
    from .aria_speech import Study, Subject, texts

    prompts = read_prompts(arguments.prompts)
    named: dict[str, Policy] = {}
    with ExitStack() as stack:
        work = Work(
            arguments.work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="antiphon-aria-")))
        )
        report = stack.enter_context(progress_bar())

        def tick(what: str, done: int, total: int) -> None:
            report(what, done, total, None)

        subject = Subject(stack.enter_context(load(arguments.bundle)), arguments.bundle)
        other = (
            None
            if arguments.dual_track is None
            else Subject(stack.enter_context(load(arguments.dual_track)), arguments.dual_track)
        )
        spoken = Study(texts(subject.omni, prompts, work, tick), Listener(work), tick, arguments.seed)
        said = [spoken.synthesiser()]
        # The dual track comes first, so that a bundle without it is refused at once.
        beside = [] if other is None else [spoken.dual_track(other, arguments.wavs)]
        for policy, voiced in [*spoken.interleaved(subject, arguments.wavs, arguments.interleave), *beside]:
            named[voiced.policy] = policy
            said.append(voiced)
    measured = [voiced.frame_seconds for voiced in said if voiced.frame_seconds is not None]
    frame_seconds = (
        sorted(measured)[len(measured) // 2]
        if arguments.frame_ms is None and measured
        else (arguments.frame_ms or FRAME_MS) / 1000
    )
    outcomes = study({voiced.policy: voiced.items for voiced in said}, named, frame_seconds, arguments.seed)
    if arguments.json:
        given = {
            "bundle": arguments.bundle,
            "dual_track": arguments.dual_track,
            "prompts": len(prompts),
            "seed": arguments.seed,
            "frame_seconds": frame_seconds,
        }
        print_json(
            {
                **given,
                "spoken": [asdict(voiced) for voiced in said],
                "rows": [asdict(row) for row in outcomes],
            }
        )
    else:
        _print_speech(
            f"{arguments.bundle}: {len(prompts)} held-out texts, seed {arguments.seed}",
            said,
            outcomes,
            frame_seconds,
        )
    if arguments.plot is not None:
        from .aria_plot import plot_speech

        arguments.plot.write_text(plot_speech(said, outcomes), encoding="utf-8")


def _print_speech(
    title: str, said: Sequence[Voiced], outcomes: Sequence[Outcome], frame_seconds: float
) -> None:
    print_table(title, SPOKEN, [_spoken_cells(voiced) for voiced in said])
    found = {(row.policy, row.trace): row for row in outcomes}
    names = list(dict.fromkeys(row.policy for row in outcomes))
    print_table(
        f"first audio, and answers with an underrun, by the Thinker's pace; {seconds(frame_seconds)} a frame",
        ("policy", *TRACES),
        [
            [
                name,
                *(
                    (
                        f"{seconds(found[name, trace].first_audio)}, "
                        f"{found[name, trace].items_with_underruns:.0%}"
                    )
                    for trace in TRACES
                ),
            ]
            for name in names
        ],
    )


def _spoken_cells(voiced: Voiced) -> Sequence[str]:
    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.1%}"

    errors = (voiced.word_errors, voiced.second_errors, voiced.slow_errors, voiced.fast_errors)
    return (
        voiced.policy,
        *map(share, errors),
        f"{voiced.length:.2f}",
        f"{voiced.rate_spread:.2f}",
        seconds(voiced.pause),
        share(voiced.paused),
        share(voiced.over_bound),
        str(voiced.endless),
    )


if __name__ == "__main__":
    main()
