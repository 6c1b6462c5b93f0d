"""The quality table of a bundle: whether answers are right, are understood, and sound like speech.

    python -m antiphon.scripts.evaluate BUNDLE [--prompts 200] [--only text,speech] [--against BUNDLE]
        [--work FOLDER] [--json]

Every number is shown next to that of a synthesiser that speaks the right answers, because recognisers make
errors on good speech too. docs/quality.md explains the rows. `--work` keeps synthesised audio and
transcripts, so a second run is much faster.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from ..runtime.bundle.errors import AntiphonError
from ..runtime.omni import load
from .console import print_json, print_table, progress_bar
from .quality.listening import Listener
from .quality.parts import PARTS, Evaluation, Subject, chosen_parts
from .quality.prompts import FILE, read_prompts
from .quality.recognisers import Whisper
from .quality.values import COLUMNS, OWN, SPOKEN, SYNTHESISER, TYPED, WER, Found, Value
from .quality.work import Work


def main() -> None:
    """Measure one or two bundles and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--prompts", type=int, default=200, help="held-out prompts to ask")
    parser.add_argument("--sampled", type=int, help="sampled runs; as many as prompts where nothing is said")
    parser.add_argument(
        "--only", default="", metavar="PARTS", help=f"some of {', '.join(PARTS)}, with commas between"
    )
    parser.add_argument(
        "--against", type=Path, metavar="BUNDLE", help="measure this bundle, too, and show the differences"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the first sampled run; further ones count up")
    parser.add_argument("--threads", type=int, default=1, help="of recognisers and engines")
    parser.add_argument("--mos", type=int, default=40, help="utterances of a column that DNSMOS hears")
    parser.add_argument(
        "--work",
        type=Path,
        metavar="FOLDER",
        help="where synthesised speech and transcripts are kept for the next run",
    )
    parser.add_argument(
        "--prompt-file",
        type=Path,
        default=FILE,
        help="other prompts: a JSON list of objects with kind, typed, spoken and answer",
    )
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    try:
        evaluate(arguments)
    except AntiphonError as error:
        parser.exit(2, f"evaluate: {error}\n")


def evaluate(arguments: argparse.Namespace) -> None:
    """Run the measurements that the arguments ask for. Raises AntiphonError."""
    for name, least in (("sampled", 1), ("threads", 1), ("mos", 0), ("seed", 0)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise AntiphonError(f"--{name} is {value}, expected at least {least}.")
    parts, prompts = chosen_parts(arguments.only), read_prompts(arguments.prompts, arguments.prompt_file)
    bundles = [arguments.bundle, *([arguments.against] if arguments.against else [])]
    results, missing = [], {}
    with ExitStack() as stack:
        work = Work(
            arguments.work
            or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="antiphon-evaluate-")))
        )
        report = stack.enter_context(progress_bar())
        listener = Listener(work, arguments.threads, arguments.mos)
        for bundle in bundles:
            with load(bundle, threads=arguments.threads) as omni:
                subject = Subject(omni, bundle, prompts, arguments.sampled or len(prompts), arguments.seed)
                evaluation = Evaluation(
                    subject, work, listener, lambda what, done, total: report(what, done, total, None)
                )
                missing[str(bundle)] = {
                    part: stage for part, stage in evaluation.missing.items() if part in parts
                }
                results.append(evaluation.run(parts))
    if arguments.json:
        print_json(
            {
                "bundles": [str(bundle) for bundle in bundles],
                "prompts": len(prompts),
                "seed": arguments.seed,
                "parts": parts,
                "not_measured": missing,
                "values": [[asdict(value) for value in found.values] for found in results],
                "gates": [[asdict(gate) for gate in found.gates(Whisper.name)] for found in results],
            }
        )
        return
    _print_quality(f"{arguments.bundle}: {len(prompts)} held-out prompts, seed {arguments.seed}", results[0])
    for bundle, lacking in missing.items():
        for part, stage in lacking.items():
            print(f"{bundle} has no stage {stage}: {part} was not measured.")
    if arguments.against:
        _print_difference(bundles, results)


def _print_quality(title: str, found: Found) -> None:
    """Print the tables of one bundle."""
    columns = [column for column in COLUMNS if any(value.column == column for value in found.values)]
    whole = [value for value in found.values if not value.kind]
    print_table(
        title,
        ("measure", *columns),
        [_row(found, measure, columns) for measure in dict.fromkeys(value.measure for value in whole)],
    )
    kinds = sorted({value.kind for value in found.values if value.kind})
    of_kinds = [(WER.format(Whisper.name), column) for column in COLUMNS] + [(TYPED, OWN), (SPOKEN, OWN)]
    shown = [
        (measure, column)
        for measure, column in of_kinds
        if any(value.kind and (value.measure, value.column) == (measure, column) for value in found.values)
    ]
    if shown:
        heads = [
            measure if column == OWN and measure in (TYPED, SPOKEN) else f"errors, {column}"
            for measure, column in shown
        ]
        print_table(
            f"by kind; errors of words, {Whisper.name}",
            ("kind", *heads),
            [_kind_row(found, kind, shown) for kind in kinds],
        )
    gates = [gate for gate in found.gates(Whisper.name) if gate.met is not None]
    if gates:
        rows = [
            [
                gate.name,
                gate.wanted,
                Value("", "", gate.found, gate.unit).shown,
                "met" if gate.met else "missed",
            ]
            for gate in gates
        ]
        print_table("gates of the shipped model", ("gate", "wanted", "found", ""), rows)


def _row(found: Found, measure: str, columns: Sequence[str]) -> list[str]:
    return [measure, *(_cell(found, measure, column) for column in columns)]


def _kind_row(found: Found, kind: str, shown: Sequence[tuple[str, str]]) -> list[str]:
    return [kind, *(_cell(found, measure, column, kind) for measure, column in shown)]


def _cell(found: Found, measure: str, column: str, kind: str = "") -> str:
    return next(
        (
            value.shown
            for value in found.values
            if (value.measure, value.column, value.kind) == (measure, column, kind)
        ),
        "",
    )


def _print_difference(bundles: Sequence[Path], results: Sequence[Found]) -> None:
    """Print the second bundle's values minus the first's; the synthesiser is the same for both."""
    rows = []
    for value in results[0].values:
        other = results[1].get(value.measure, value.column)
        if value.kind or value.column == SYNTHESISER or value.value is None or other is None:
            continue
        more = other - value.value
        shown = f"{100 * more:+.1f} points" if value.unit == "%" else f"{more:+.2f} {value.unit}".strip()
        rows.append([value.measure, value.column, value.shown, Value("", "", other, value.unit).shown, shown])
    heads = (
        [bundle.name for bundle in bundles]
        if bundles[0].name != bundles[1].name
        else [str(bundle) for bundle in bundles]
    )
    print_table("", ("measure", "column", *heads, "difference"), rows)


if __name__ == "__main__":
    main()
