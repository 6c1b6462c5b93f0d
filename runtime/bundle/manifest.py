"""The bundle's schema: what `manifest.json` says, read and checked against the files beside it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .beside import set_aside
from .errors import BrokenBundle, as_broken_bundle
from .files import MANIFEST_FILE, FileHash, check_file, check_files
from .json_file import read_json_object
from .names import SPEECH
from .said import short, short_path
from .sampling import SamplingParameters
from .specs import StageEntry
from .talker_contract import TalkerContract
from .typed_json import typed

SCHEMA_VERSION = 3
"""2 had one file an engine and its tensors beside it; 1 had no seal. Neither is read."""
SEAL = "sha256"
"""The field of manifest.json that holds `seal` of all others."""
REPAIR = "copy the bundle again, or build it again"


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
class ModelConstants:
    """Numbers of the whole model; those of speech are 0 or None in a bundle without it."""

    thinker_context: int
    """Most rows of the Thinker's context."""
    talker_context: int = 0
    """Most rows of the Talker's context."""
    codebook_size: int = 0
    """Codes of one codebook."""
    frames_per_text: float = 1.0
    """The ratio R of the interleave `adaptive`: a lower bound of frames of speech per text token.
    1.0, which the shipped chunks of 4 and 4 keep, where no calibration tells better."""
    frames_per_token: float | None = None
    """Median frames of speech per text token, by which the text cursor is refined; None: not known."""


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` holds."""

    family: str
    antiphon_version: str
    target: str
    """Where the bundle runs: cpu, sm80, sm90 ..."""
    precision: str
    """A name of bundle.names.PRECISIONS."""
    stages: dict[str, StageEntry]
    ids: dict[str, int | list[int]]
    """Special ids: see antiphon.runtime.stages.thinker and
    antiphon.runtime.stages.talker for the keys used.
    """
    constants: ModelConstants
    sampling: dict[str, SamplingParameters]
    """Defaults of thinker, talker and predictor."""
    voices: dict[str, int] = field(default_factory=dict)
    """Voice name to codec id, or to its row in frontend/voices.npy where the bundle has that file;
    empty in a bundle without speech.
    """
    default_voice: str | None = None
    tool_versions: dict[str, str] = field(default_factory=dict)
    build: dict[str, Any] = field(default_factory=dict)
    """Timings and calibration summary of the build; the runtime reads none of it."""
    hashes: dict[str, FileHash] = field(default_factory=dict)
    """Every file but the manifest, by its path relative to the bundle with forward slashes."""
    schema_version: int = SCHEMA_VERSION
    interleave: str | None = None
    """How text and speech take turns unless a reply asks for another way (aria.parse_policy),
    in the layout of `talker`; None without speech.
    """
    speech_prompts: SpeechPrompts = field(default_factory=SpeechPrompts)
    talker: TalkerContract | None = None
    """What the Talker is fed; None in a bundle without speech."""

    @property
    def speaks(self) -> bool:
        """Whether the bundle holds the stages of speech."""
        return set(SPEECH) <= self.stages.keys()

    def id(self, name: str) -> int:
        """The special id `name`. Raises AntiphonError where the manifest lacks it."""
        value = self.ids.get(name)
        if not isinstance(value, int):
            raise BrokenBundle(
                f"The manifest has no single id {short(name)} (found {short(value)}); build the bundle again."
            )
        return value


def read_entry(stored: Any, where: str) -> StageEntry:
    """The stage entry that `dataclasses.asdict` and JSON made `stored` from.

    Raises AntiphonError that names the place in `where`.
    """
    entry: StageEntry = typed(StageEntry, stored, where)
    return entry


def write_manifest(folder: str | Path, manifest: Manifest) -> None:
    """Write `manifest.json` into `folder`, readable by people: one short list a line."""
    content = dataclasses.asdict(manifest)
    text = json.dumps(content | {SEAL: seal(content)}, indent=2, ensure_ascii=False)
    text = re.sub(
        r"\[\n\s*([^\[\]{}]*?)\n\s*\]", lambda found: "[" + re.sub(r"\s*\n\s*", " ", found[1]) + "]", text
    )
    (Path(folder) / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: str | Path) -> Manifest:
    """Read the manifest of the bundle at `folder` and check that its files are there in their full size,
    and the small ones unchanged.

    Raises AntiphonError in one sentence: no bundle, unreadable, another schema version, changed since it was
    built, a field missing or of a wrong kind, or a file that `files.check_files` refuses.
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
            f"{short_path(path)} has schema version {short(found)}, this Antiphon reads version "
            f"{SCHEMA_VERSION}; make it anew with antiphon build CHECKPOINT {short_path(root)}."
        )
    if raw.get(SEAL) != seal(raw):
        raise BrokenBundle(
            f"{short_path(path)} was changed after the build, or is damaged; copy the bundle again, "
            f"or make it anew with antiphon build CHECKPOINT {short_path(root)}."
        )
    manifest: Manifest = typed(Manifest, raw, short_path(path))
    check_files(
        root, manifest.hashes, [name for entry in manifest.stages.values() for name in entry.artifacts]
    )
    return manifest


def _no_bundle(folder: Path) -> BrokenBundle:
    older = set_aside(folder)
    if older is not None and not os.path.lexists(folder):
        return BrokenBundle(
            f"No bundle at {short_path(folder)}: a build that was to replace it was killed; "
            f"build again, or give {short_path(older)} the name {folder.name}."
        )
    return BrokenBundle(
        f"No bundle at {short_path(folder)}: expected a folder with {MANIFEST_FILE}; "
        "make one with antiphon build."
    )


def check_hashes(folder: str | Path) -> None:
    """Read every file of the bundle and compare its SHA-256.

    Raises AntiphonError that names the first damaged file.
    """
    for name, expected in read_manifest(folder).hashes.items():
        check_file(Path(folder), name, expected)


def seal(content: dict[str, Any]) -> str:
    """SHA-256 (hex) of all that a manifest says but this digest itself:
    JSON with sorted keys and without spaces.
    """
    said = {name: value for name, value in content.items() if name != SEAL}
    return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
