"""The bundle's schema: what `manifest.json` says about the engines beside it.

The runtime allocates, binds, snapshots and rewinds by these descriptions alone; it knows no model.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .errors import AntiphonError
from .said import reason, short, short_path
from .sampling import SamplingParameters

SCHEMA_VERSION = 1
MANIFEST_FILE = "manifest.json"

StateKind = Literal["kv", "conv", "recurrent", "window", "overlap", "counter"]
Axis = int | str


@dataclass(frozen=True)
class TensorSpec:
    """A graph input or output. `dtype` is a NumPy name; `shape` mixes sizes and symbols (batch, tokens, capacity ...)."""

    name: str
    dtype: str
    shape: tuple[Axis, ...]


@dataclass(frozen=True)
class StateSpec:
    """A state: the graph reads `past.NAME` and writes `present.NAME`, both of `shape` and `dtype`.

    kind: kv (grows along the axis `capacity`, written in place at past_length), conv (left context of a convolution), window (the
    last rows of a sliding window), overlap (unfinished output of a transposed convolution), recurrent, counter. All start as zeros.
    """

    name: str
    kind: StateKind
    dtype: str
    shape: tuple[Axis, ...]
    batch_axis: int = 0


@dataclass(frozen=True)
class StageEntry:
    """One stage as it was built."""

    name: str
    """thinker, mtp, talker, predictor, code2wav, codec_encoder, audio_encoder, vision_encoder."""
    engine: str
    """Engine kind: onnxruntime ..."""
    file: str
    """The engine file, relative to the bundle."""
    precision: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    states: tuple[StateSpec, ...] = ()
    constants: dict[str, int | float | list[int]] = field(default_factory=dict)
    """Numbers the runtime needs beside the graph: code2wav has samples_per_frame, lead_samples and sample_rate."""
    parameters: int = 0
    """Number of weights."""
    bytes: int = 0
    """Size of all files of the stage."""
    key: str = ""
    """Hash of everything that decided the engine: graph, weights, precision, target, tool versions."""


@dataclass(frozen=True)
class FileHash:
    """Size in bytes and SHA-256 (hex) of one file of the bundle."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manners:
    """How a Talker of Qwen3.5-Omni can be told to speak; all empty for other families."""

    languages: dict[str, int] = field(default_factory=dict)
    """Language name to codec id."""
    styles: dict[str, list[int]] = field(default_factory=dict)
    """Style name to the text ids that the assistant part begins with."""
    voice_prompts: dict[str, list[int]] = field(default_factory=dict)
    """Voice name to the text ids that go before its frames in the system part."""


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` holds."""

    family: str
    antiphon_version: str
    target: str
    """Where the bundle runs: cpu, sm80, sm90 ..."""
    engine: str
    precision: str
    stages: dict[str, StageEntry]
    ids: dict[str, int | list[int]]
    """Special ids: see antiphon.runtime.thinker and antiphon.runtime.talker for the keys used."""
    constants: dict[str, int | float]
    """thinker_context and talker_context (rows), codebook_size; for Qwen3.5-Omni hidden_rows (see tapped_rows) and frames_per_text, the ratio R of
    the interleave `adaptive`: a lower bound of frames per text token."""
    sampling: dict[str, SamplingParameters]
    """Defaults of thinker, talker and predictor."""
    voices: dict[str, int] = field(default_factory=dict)
    """Voice name to codec id, or to its row in frontend/voices.npy where the bundle has that file; empty in a bundle without speech."""
    default_voice: str | None = None
    tool_versions: dict[str, str] = field(default_factory=dict)
    build: dict[str, Any] = field(default_factory=dict)
    """Timings and calibration summary of the build; the runtime reads none of it."""
    hashes: dict[str, FileHash] = field(default_factory=dict)
    """Every file but the manifest, by its path relative to the bundle with forward slashes."""
    schema_version: int = SCHEMA_VERSION
    interleave: str = "dual_track"
    """How text and speech take turns unless a reply asks for another way; see aria.parse_policy."""
    manners: Manners = field(default_factory=Manners)

    @property
    def speaks(self) -> bool:
        """Whether the bundle holds the stages of speech."""
        return {"talker", "predictor", "code2wav"} <= self.stages.keys()

    def id(self, name: str) -> int:
        """The special id `name`. Raises AntiphonError where the manifest lacks it."""
        value = self.ids.get(name)
        if not isinstance(value, int):
            raise AntiphonError(f"The manifest has no single id {short(name)} (found {short(value)}); build the bundle again.")
        return value


def read_entry(stored: Any, where: str) -> StageEntry:
    """The stage entry that `dataclasses.asdict` and JSON made `stored` from. Raises AntiphonError that names the place in `where`."""
    entry: StageEntry = _parse(StageEntry, stored, where)
    return entry


def write_manifest(folder: str | Path, manifest: Manifest) -> None:
    """Write `manifest.json` into `folder`, readable by people: one short list a line."""
    text = json.dumps(dataclasses.asdict(manifest), indent=2, ensure_ascii=False)
    text = re.sub(r"\[\n\s*([^\[\]{}]*?)\n\s*\]", lambda found: "[" + re.sub(r"\s*\n\s*", " ", found[1]) + "]", text)
    (Path(folder) / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: str | Path, target: str | None = None) -> Manifest:
    """Read the manifest of the bundle at `folder` and check that its files are there in their full size.

    Raises AntiphonError in one sentence: no bundle, unreadable, another schema version, a field missing or of a wrong kind, another
    target than `target` (when given), a file missing or of another size.
    """
    path = Path(folder) / MANIFEST_FILE
    if not path.is_file():
        raise AntiphonError(f"No bundle at {short_path(folder)}: expected a folder with {MANIFEST_FILE}; make one with antiphon build.")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AntiphonError(f"{short_path(path)} is not valid JSON ({reason(error)}); build the bundle again.") from None
    found = raw.get("schema_version") if isinstance(raw, dict) else None
    if found != SCHEMA_VERSION:
        raise AntiphonError(f"{short_path(path)} has schema version {short(found)}, this Antiphon reads version {SCHEMA_VERSION}; build the bundle again.")
    manifest: Manifest = _parse(Manifest, raw, str(path))
    if target is not None and manifest.target != target:
        raise AntiphonError(f"The bundle {short_path(folder)} was built for {manifest.target}, not for {target}; build it again with --target {target}.")
    for name, expected in manifest.hashes.items():
        file = Path(folder) / name
        if not file.is_file():
            raise AntiphonError(f"The bundle {short_path(folder)} lacks the file {name}; copy the whole folder or build the bundle again.")
        if file.stat().st_size != expected.bytes:
            raise AntiphonError(f"{file} has {file.stat().st_size} bytes, expected {expected.bytes}; copy the bundle again.")
    return manifest


def check_hashes(folder: str | Path) -> None:
    """Read every file of the bundle and compare its SHA-256. Raises AntiphonError that names the first damaged file."""
    for name, expected in read_manifest(folder).hashes.items():
        if hash_file(Path(folder) / name) != expected:
            raise AntiphonError(f"{Path(folder) / name} is damaged: its SHA-256 is not the one in the manifest; copy the bundle again.")


def hash_file(path: Path) -> FileHash:
    """Size and SHA-256 of one file, read in pieces."""
    with path.open("rb") as file:
        return FileHash(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def hash_folder(folder: str | Path) -> dict[str, FileHash]:
    """The `hashes` of a manifest: every file under `folder` but the manifest, by relative path."""
    root = Path(folder)
    files: Iterable[Path] = sorted(path for path in root.rglob("*") if path.is_file() and path != root / MANIFEST_FILE)
    return {path.relative_to(root).as_posix(): hash_file(path) for path in files}


def _parse(kind: Any, value: Any, where: str) -> Any:
    """Turn JSON into the type `kind`; an error names the place in the file."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        _expect(isinstance(value, dict), where, "an object", value)
        hints = typing.get_type_hints(kind)
        given = {}
        for entry in dataclasses.fields(kind):
            if entry.name in value:
                given[entry.name] = _parse(hints[entry.name], value[entry.name], f"{where}: {entry.name}")
            elif entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING:
                raise AntiphonError(f"{where} lacks the field {entry.name}; build the bundle again.")
        return kind(**given)
    if origin is dict:
        _expect(isinstance(value, dict), where, "an object", value)
        return {key: _parse(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if origin in (tuple, list):
        _expect(isinstance(value, list), where, "a list", value)
        return origin(_parse(arguments[0], item, f"{where}[{place}]") for place, item in enumerate(value))
    if origin is Literal:
        _expect(value in arguments, where, f"one of {', '.join(arguments)}", value)
        return value
    if origin in (typing.Union, types.UnionType):
        for option in arguments:
            try:
                return _parse(option, value, where)
            except AntiphonError:
                continue
        raise AntiphonError(f"{where} is {short(value)}, expected {kind}; build the bundle again.")
    accepted = isinstance(value, int | float if kind is float else kind) and (kind is bool or not isinstance(value, bool))
    _expect(accepted, where, f"a value of type {kind.__name__}", value)
    return value


def _expect(holds: bool, where: str, expected: str, found: object) -> None:
    if not holds:
        raise AntiphonError(f"{where} is {short(found)}, expected {expected}; build the bundle again.")
