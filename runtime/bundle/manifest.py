"""The bundle's schema: what `manifest.json` says about the engines beside it.

The runtime allocates, binds, snapshots and rewinds by these descriptions alone; it knows no model.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .beside import set_aside
from .errors import BrokenBundle, UnsupportedTarget, as_broken_bundle
from .files import MANIFEST_FILE, FileHash, check_file, check_files
from .json_file import read_json_object
from .said import short, short_path
from .sampling import SamplingParameters
from .talker_contract import TalkerContract
from .typed_json import typed

SCHEMA_VERSION = 2
SEAL = "sha256"
"""The field of manifest.json that holds `seal` of all others."""
REPAIR = "copy the bundle again, or build it again"

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
class SpeechPrompts:
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
    """Special ids: see antiphon.runtime.stages.thinker and antiphon.runtime.stages.talker for the keys used."""
    constants: dict[str, int | float]
    """thinker_context and talker_context (rows), codebook_size; for Qwen3.5-Omni frames_per_text, the ratio R of the interleave `adaptive`: a lower
    bound of frames per text token."""
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
    interleave: str | None = None
    """How text and speech take turns unless a reply asks for another way (aria.parse_policy), in the layout of `talker`; None without speech."""
    speech_prompts: SpeechPrompts = field(default_factory=SpeechPrompts)
    talker: TalkerContract | None = None
    """What the Talker is fed; None in a bundle without speech."""

    @property
    def speaks(self) -> bool:
        """Whether the bundle holds the stages of speech."""
        return {"talker", "predictor", "code2wav"} <= self.stages.keys()

    def id(self, name: str) -> int:
        """The special id `name`. Raises AntiphonError where the manifest lacks it."""
        value = self.ids.get(name)
        if not isinstance(value, int):
            raise BrokenBundle(f"The manifest has no single id {short(name)} (found {short(value)}); build the bundle again.")
        return value


def read_entry(stored: Any, where: str) -> StageEntry:
    """The stage entry that `dataclasses.asdict` and JSON made `stored` from. Raises AntiphonError that names the place in `where`."""
    entry: StageEntry = typed(StageEntry, stored, where)
    return entry


def write_manifest(folder: str | Path, manifest: Manifest) -> None:
    """Write `manifest.json` into `folder`, readable by people: one short list a line."""
    content = dataclasses.asdict(manifest)
    text = json.dumps(content | {SEAL: seal(content)}, indent=2, ensure_ascii=False)
    text = re.sub(r"\[\n\s*([^\[\]{}]*?)\n\s*\]", lambda found: "[" + re.sub(r"\s*\n\s*", " ", found[1]) + "]", text)
    (Path(folder) / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: str | Path, target: str | None = None) -> Manifest:
    """Read the manifest of the bundle at `folder` and check that its files are there in their full size, and the small ones unchanged.

    Raises AntiphonError in one sentence: no bundle, unreadable, another schema version, changed since it was built, a field missing or of a wrong kind,
    another target than `target` (when given), or a file that `bundle_files.check_files` refuses.
    """
    root = Path(folder)
    path = root / MANIFEST_FILE
    if not os.path.isfile(path):
        raise _no_bundle(root)
    with as_broken_bundle():
        raw = read_json_object(path, REPAIR)
    found = raw.get("schema_version")
    if found != SCHEMA_VERSION:
        raise BrokenBundle(
            f"{short_path(path)} has schema version {short(found)}, this Antiphon reads version {SCHEMA_VERSION}; "
            f"make it anew with antiphon build CHECKPOINT {short_path(root)}."
        )
    if raw.get(SEAL) != seal(raw):
        raise BrokenBundle(
            f"{short_path(path)} was changed after the build, or is damaged; copy the bundle again, "
            f"or make it anew with antiphon build CHECKPOINT {short_path(root)}."
        )
    manifest: Manifest = typed(Manifest, raw, short_path(path))
    if target is not None and manifest.target != target:
        raise UnsupportedTarget(
            f"The bundle {short_path(folder)} was built for {manifest.target:.60}, not for {target}; build it again with --target {target}."
        )
    check_files(root, manifest.hashes, [entry.file for entry in manifest.stages.values()])
    return manifest


def _no_bundle(folder: Path) -> BrokenBundle:
    older = set_aside(folder)
    if older is not None and not os.path.lexists(folder):
        return BrokenBundle(
            f"No bundle at {short_path(folder)}: a build that was to replace it was killed; build again, or give {short_path(older)} the name {folder.name}."
        )
    return BrokenBundle(f"No bundle at {short_path(folder)}: expected a folder with {MANIFEST_FILE}; make one with antiphon build.")


def check_hashes(folder: str | Path) -> None:
    """Read every file of the bundle and compare its SHA-256. Raises AntiphonError that names the first damaged file."""
    for name, expected in read_manifest(folder).hashes.items():
        check_file(Path(folder), name, expected)


def seal(content: dict[str, Any]) -> str:
    """SHA-256 (hex) of all that a manifest says but this digest itself: JSON with sorted keys and without spaces."""
    said = {name: value for name, value in content.items() if name != SEAL}
    return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
