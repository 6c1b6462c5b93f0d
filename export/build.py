"""`antiphon build`: compiles a checkpoint to a bundle, stage by stage, completely or not at all."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from ..graphs.checkpoints.checkpoint import Checkpoint
from ..graphs.config import OmniConfig
from ..graphs.families.registry import stages
from ..graphs.stage import WeightSource
from ..runtime.bundle.beside import OCCUPIED, folder_beside, put_in_place
from ..runtime.bundle.errors import AntiphonError
from ..runtime.bundle.files import MANIFEST_FILE, hash_folder
from ..runtime.bundle.json_file import read_json_object
from ..runtime.bundle.manifest import Manifest, read_entry, read_manifest, write_manifest
from ..runtime.bundle.specs import StageEntry
from .cache import StageCache, default_cache, stage_key
from .choice import EngineChoice, choose_engines
from .engines.registry import DEFAULT
from .frontend import write_frontend
from .manifest import compose_manifest
from .portable import export_portable, load_portable, save_portable
from .stage_keys import StageFacts, engine_parts, portable_parts, stage_facts, weights_digest
from .voices import write_voices
from .weights import write_weights

DECODER_LAYERS = re.compile(r"(thinker|talker|talker\.code_predictor)\.model\.layers\.")
PORTABLE = ".portable"
"""Suffix of the cache name of a stage's portable graph."""
VERSION_OF = "version of "
RECOMPUTED = "rotary_emb.inv_freq"
"""A buffer that older checkpoints contain in addition to the weights."""


@dataclass(frozen=True)
class Progress:
    """Progress of a build: `done` of `total` bytes of all weights; `elapsed` and `remaining` in seconds."""

    stage: str
    step: str
    done: int
    total: int
    elapsed: float
    remaining: float | None


OnProgress = Callable[[Progress], None]


def build(
    checkpoint: str | Path,
    bundle_path: str | Path,
    target: str = "cpu",
    engine: str | Mapping[str, str] = DEFAULT,
    precision: str = "fp32",
    on_progress: OnProgress | None = None,
    cache: bool | str | Path = True,
) -> Manifest:
    """Compile the Hugging Face folder `checkpoint` to the bundle folder `bundle_path`. Returns its manifest.

    `engine`: the kind of all engines, or a mapping of stage to kind. Its key `*` stands for all other stages,
    whose default is onnxruntime.
    `cache`: a folder for built stages, True for the default one (`ANTIPHON_CACHE` or the user's cache
    folder), False for none.

    The bundle is written beside `bundle_path` and renamed at the end, so an interrupted build leaves the old
    bundle or none. Temporary folders of a killed build are removed first, and an old bundle that it moved
    away is restored. Raises AntiphonError if the checkpoint cannot be built or the folder cannot be written.
    """
    choice = choose_engines(engine, target, precision)
    source = Checkpoint(checkpoint)
    destination = Path(os.path.realpath(bundle_path))  # a link stays; the bundle replaces its target
    folder = None if cache is False else default_cache() if cache is True else Path(cache)
    try:
        _check_destination(destination)
        destination.parent.mkdir(parents=True, exist_ok=True)
        with folder_beside(destination) as beside:
            manifest = _Build(source, beside, StageCache(folder), choice, on_progress).run()
            # Checked again: a build can take hours, and new files must not be removed.
            _check_destination(destination)
            put_in_place(beside, destination)
    except OSError as error:
        raise _write_error(error, destination) from None
    return manifest


class _Build:
    """One build: its folder, start time and progress."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        folder: Path,
        cache: StageCache,
        choice: EngineChoice,
        on_progress: OnProgress | None,
    ) -> None:
        self.checkpoint, self.folder, self.cache = checkpoint, folder, cache
        self.config: OmniConfig = checkpoint.config
        self.choice = choice
        self.on_progress = on_progress
        self.started = time.monotonic()
        self.done = self.total = 0
        self.tools: dict[str, str] = {}

    def run(self) -> Manifest:
        model_stages = stages(self.config)
        sources = {stage.name: stage.weights(self.checkpoint) for stage in model_stages}
        used = {
            tensor for source in sources.values() for weight in source.values() for tensor in weight.tensors
        }
        for tensor in sorted(used):
            self.checkpoint.shape(tensor)  # reports a missing tensor before any stage is built
        _check_layers(self.checkpoint, used)
        facts = [stage_facts(stage) for stage in model_stages]
        self.choice.check(facts)
        sizes = {found.stage.name: found.parameters * self.choice.weight_bytes for found in facts}
        self.total = sum(sizes.values())
        entries: dict[str, StageEntry] = {}
        timings: dict[str, Any] = {}
        self._report("frontend", "writing")
        # First, so that its errors come early.
        write_frontend(self.checkpoint.path, self.config, self.folder / "frontend")
        if self.config.talker is not None and self.config.talker.contract.voice == "frames":
            write_voices(self.checkpoint, self.config.talker, self.folder / "frontend")
        for found in facts:
            name, started, before = found.stage.name, time.monotonic(), self.done
            home = self.folder / "stages" / name
            home.mkdir(parents=True)
            entries[name], record = self._stage(found, sources[name], home)
            timings[name] = {"seconds": round(time.monotonic() - started, 3), **record}
            self.done = before + sizes[name]
        self._report("bundle", "hashing")
        hashes = hash_folder(self.folder)
        build_record = {
            "seconds": round(time.monotonic() - self.started, 3),
            "stages": timings,
            "left_out": list(self.config.left_out),
        }
        manifest = compose_manifest(
            self.config,
            self.folder / "frontend",
            entries,
            target=self.choice.target,
            precision=self.choice.precision,
            tool_versions=self.tools,
            build=build_record,
            hashes=hashes,
        )
        write_manifest(self.folder, manifest)
        read_manifest(self.folder)
        return manifest

    def _stage(
        self, facts: StageFacts, sources: dict[str, WeightSource], home: Path
    ) -> tuple[StageEntry, dict[str, Any]]:
        """Build a stage or copy it from the cache. Returns its manifest entry and a record of the build.

        The record has `cached` and `reason`; for a stage that was built also `portable_cached` and `passes`,
        the number of changes of each lowering pass.
        """
        stage, choice = facts.stage, self.choice
        kind, builder = choice.kind(stage.name), choice.builder(stage.name)
        self._report(stage.name, "reading weights")
        graph = portable_parts(facts)
        weights = weights_digest(self.checkpoint, sources)
        parts = engine_parts(facts, graph, weights, builder, kind, choice.target, choice.formats)
        self.tools |= {
            name.removeprefix(VERSION_OF): version
            for name, version in parts.items()
            if name.startswith(VERSION_OF)
        }
        found = self.cache.fetch(stage.name, parts, home)
        if found.hit:
            return read_entry(found.entry, f"the cached stage {stage.name}"), {
                "cached": True,
                "reason": found.reason,
            }
        model, is_cached = self._portable(facts, graph)
        self._report(stage.name, "writing weights")
        write_weights(
            model,
            sources,
            self.checkpoint,
            home / "weights.bin",
            lambda written: self._wrote(stage.name, written),
        )
        ir.save(model, home / "portable.onnx")
        self._report(stage.name, "lowering")
        lowered = builder.lower(stage, model, choice.target)
        self._report(stage.name, "compiling")
        built = builder.compile(lowered, home, choice.target, lambda step: self._report(stage.name, step))
        entry = StageEntry(
            stage.name,
            kind,
            choice.target,
            tuple(f"stages/{stage.name}/{name}" for name in built.artifacts),
            built.interface,
            built.capabilities,
            choice.formats,
            facts.parameters,
            sum(file.stat().st_size for file in home.iterdir()),
            stage_key(parts),
        )
        self.cache.store(stage.name, parts, home, dataclasses.asdict(entry))
        passes = {record.name: record.sites for record in lowered.passes}
        return entry, {
            "cached": False,
            "reason": found.reason,
            "portable_cached": is_cached,
            "passes": passes,
        }

    def _portable(self, facts: StageFacts, parts: dict[str, str]) -> tuple[ir.Model, bool]:
        """The portable graph without weights, and whether it is from the cache."""
        name = facts.stage.name + PORTABLE
        with tempfile.TemporaryDirectory(dir=self.folder) as work:
            file = Path(work) / "portable.onnx"
            if self.cache.fetch(name, parts, file.parent).hit:
                return load_portable(file), True
            self._report(facts.stage.name, "exporting")
            model = export_portable(facts.stage)
            save_portable(model, file)
            self.cache.store(name, parts, file.parent, {})
            return load_portable(file), False  # as from the cache: equal keys give equal files

    def _wrote(self, stage: str, written: int) -> None:
        self.done += written
        self._report(stage, "writing weights")

    def _report(self, stage: str, step: str) -> None:
        if self.on_progress is None:
            return
        elapsed = time.monotonic() - self.started
        remaining = elapsed * (self.total - self.done) / self.done if self.done else None
        self.on_progress(Progress(stage, step, min(self.done, self.total), self.total, elapsed, remaining))


def _check_layers(checkpoint: Checkpoint, used: set[str]) -> None:
    """Raise AntiphonError for a tensor of a decoder layer that no stage reads.

    An example is a bias that config.json does not state. Without it the bundle would compute another model.
    """
    stacks = {stack.group() for name in used if (stack := DECODER_LAYERS.match(name))}
    for name in checkpoint.names():
        stack = DECODER_LAYERS.match(name)
        if stack and stack.group() in stacks and name not in used and not name.endswith(RECOMPUTED):
            raise AntiphonError(
                f"{checkpoint.path}: tensor {name} found, which config.json does not ask for; "
                "use the config.json of these weights."
            )


def _check_destination(destination: Path) -> None:
    for above in destination.parents:
        if above.is_file():
            raise AntiphonError(
                f"{above} is a file, so {destination} cannot be made below it; give another path."
            )
    if destination.is_file():
        raise AntiphonError(f"{destination} is a file, expected a folder for the bundle; give another path.")
    if destination.is_dir() and any(destination.iterdir()) and not _is_bundle(destination):
        raise AntiphonError(
            f"{destination} holds files but is no bundle; give a new folder or an older bundle to replace."
        )


def _is_bundle(folder: Path) -> bool:
    """Whether `folder` contains a bundle of any version and nothing else, so that it may be removed."""
    try:
        manifest = read_json_object(folder / MANIFEST_FILE)
    except AntiphonError:
        return False
    return {"schema_version", "family", "stages"} <= manifest.keys() and {
        path.name for path in folder.iterdir()
    } <= {MANIFEST_FILE, "stages", "frontend"}


def _write_error(error: OSError, destination: Path) -> AntiphonError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return AntiphonError(
            f"No space left on the disk of {destination} while building; "
            "free some (antiphon build --plan says how much) and try again."
        )
    if error.errno in OCCUPIED:
        return AntiphonError(
            f"Cannot replace {destination}: other builds are writing this bundle; "
            "give another path, or run it again."
        )
    if error.errno == errno.EFBIG:
        return AntiphonError(
            f"A file of {destination} grew beyond what the disk or ulimit -f allows; "
            "raise the limit or give another disk (see --plan)."
        )
    return AntiphonError(
        f"Cannot write the bundle {destination} ({error.strerror or error}); "
        "give a folder that can be written."
    )
