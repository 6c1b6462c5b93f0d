"""antiphon inspect: show the contents of a bundle."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import interrupts
from .console import count, print_json, print_table, seconds, size

if TYPE_CHECKING:
    from ..runtime.bundle.manifest import Manifest
    from ..runtime.bundle.specs import Precision, StageEntry, StateSpec
    from ..runtime.bundle.talker_contract import TalkerContract


def inspect(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder made by antiphon build.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")] = False,
    hashes: Annotated[
        bool, typer.Option("--hashes", help="Read every file and compare its SHA-256 with the manifest.")
    ] = False,
) -> None:
    """Show a bundle's stages, precisions, sizes, states per stream, voices, ids,
    versions and build timings.
    """
    with interrupts.ending_at_once():
        from ..runtime.bundle.manifest import check_hashes, read_manifest
    manifest = read_manifest(bundle)
    if hashes:
        check_hashes(bundle)
    if json:
        described = dataclasses.asdict(manifest)
        for name, stage in manifest.stages.items():
            described["stages"][name]["state_bytes"], described["stages"][name]["state_bytes_per_row"] = (
                state_bytes(stage)
            )
        print_json({**described, "hashes_checked": hashes})
        return
    _print_stages(manifest)
    _print_facts(manifest)
    if hashes:
        print(f"{len(manifest.hashes)} files match their SHA-256.")


def state_bytes(stage: StageEntry) -> tuple[int, int]:
    """Bytes of one stream's states: the fixed part, and the bytes per further cache row."""
    # Two of each fixed state, one read and one written, which swap roles.
    fixed = sum(2 * _bytes(state, 1) for state in stage.states if "capacity" not in state.shape)
    growing = sum(_bytes(state, 1) for state in stage.states if "capacity" in state.shape)
    return fixed, growing


def _bytes(state: StateSpec, capacity: int) -> int:
    import numpy as np

    axes = [
        axis if isinstance(axis, int) else {"batch": 1, "capacity": capacity}[axis] for axis in state.shape
    ]
    return int(np.prod(axes)) * np.dtype(state.dtype).itemsize


def _print_stages(manifest: Manifest) -> None:
    rows: list[list[object]] = []
    timings = manifest.build.get("stages", {})
    for name, stage in manifest.stages.items():
        fixed, growing = state_bytes(stage)
        built = timings.get(name, {}).get("seconds")
        rows.append(
            [
                name,
                stage.kind,
                _precision(stage.precision),
                count(stage.parameters),
                size(stage.bytes),
                size(fixed),
                size(growing),
                seconds(built),
            ]
        )
    stages = manifest.stages.values()
    parameters, total = sum(stage.parameters for stage in stages), sum(stage.bytes for stage in stages)
    states = [state_bytes(stage) for stage in stages]
    rows.append(
        [
            "total",
            "",
            "",
            count(parameters),
            size(total),
            size(sum(s[0] for s in states)),
            size(sum(s[1] for s in states)),
            "",
        ]
    )
    title = f"{manifest.family} for {manifest.target}, {manifest.precision}"
    columns = (
        "stage",
        "engine",
        "precision",
        "parameters",
        "files",
        "state per stream",
        "state per row",
        "build",
    )
    print_table(title, columns, rows, last_is_total=True)


def _print_facts(manifest: Manifest) -> None:
    voices = ", ".join(
        f"{name}{' (default)' if name == manifest.default_voice else ''}" for name in manifest.voices
    )
    facts: list[tuple[str, str]] = [
        ("voices", voices or "none: this bundle does not speak"),
        *(
            (name, ", ".join(values))
            for name, values in (
                ("languages", manifest.speech_prompts.languages),
                ("styles", manifest.speech_prompts.styles),
            )
            if values
        ),
        *(
            [("talker", _contract(manifest.talker)), ("interleave", str(manifest.interleave))]
            if manifest.talker
            else []
        ),
        ("states of a stream", _kinds(manifest)),
        ("ids", _pairs(manifest.ids)),
        ("constants", _pairs(dataclasses.asdict(manifest.constants))),
        *(
            (f"sampling of the {name}", _pairs(dataclasses.asdict(values)))
            for name, values in manifest.sampling.items()
        ),
        ("versions", _pairs({"antiphon": manifest.antiphon_version, **manifest.tool_versions})),
        ("schema", str(manifest.schema_version)),
        ("files", f"{len(manifest.hashes)}, {size(sum(entry.bytes for entry in manifest.hashes.values()))}"),
    ]
    for name, value in facts:
        print(f"{name}: {value}")


def _contract(contract: TalkerContract) -> str:
    """The rows that the Talker is fed, in one line."""
    own = "its own" if contract.embeds_text else "the Thinker's"
    most = f", at most {contract.hidden_rows} a turn" if contract.hidden_rows else ""
    takes = [
        name
        for name, there in (("a style", contract.takes_style), ("a language", contract.takes_language))
        if there
    ]
    return (
        f"{contract.layout} rows, {own} text embedding, frames as {contract.frame_input}, "
        f"Thinker rows of {contract.hidden_taps}{most}, voices by {contract.voice}, "
        f"takes {' and '.join(takes) or 'no style, no language'}"
    )


def _kinds(manifest: Manifest) -> str:
    """The memory of a stream by kind of state, in one line."""
    fixed: dict[str, int] = {}
    growing: dict[str, int] = {}
    for stage in manifest.stages.values():
        for state in stage.states:
            one = state_bytes(
                dataclasses.replace(stage, interface=dataclasses.replace(stage.interface, states=(state,)))
            )
            for sums, amount in zip((fixed, growing), one, strict=True):
                sums[state.kind] = sums.get(state.kind, 0) + amount
    parts = [f"{kind} {size(amount)}" for kind, amount in fixed.items() if amount]
    return ", ".join(parts + [f"{kind} {size(amount)} per row" for kind, amount in growing.items() if amount])


def _precision(precision: Precision) -> str:
    """The formats of weights, activations and cache; only one if all are equal."""
    return "/".join(dict.fromkeys(dataclasses.astuple(precision)))


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)
