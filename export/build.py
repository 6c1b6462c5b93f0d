"""`antiphon build`: from a checkpoint to a bundle, stage by stage, whole or not at all."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import importlib.metadata
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch

from ..graphs.checkpoints.checkpoint import Checkpoint
from ..graphs.config import OmniConfig
from ..graphs.families.registry import stages
from ..graphs.stage import Stage, WeightSource
from ..runtime.bundle.beside import OCCUPIED, folder_beside, put_in_place
from ..runtime.bundle.errors import AntiphonError, UnsupportedTarget
from ..runtime.bundle.files import MANIFEST_FILE, hash_folder
from ..runtime.bundle.json_file import read_json_object
from ..runtime.bundle.manifest import Manifest, read_entry, read_manifest, write_manifest
from ..runtime.bundle.names import PRECISIONS, TARGETS
from ..runtime.bundle.specs import StageEntry, StageInterface
from ..runtime.engines.onnxruntime.capabilities import capabilities
from .cache import StageCache, default_cache, stage_key
from .engines.onnxruntime.lower import lower_onnxruntime
from .frontend import write_frontend
from .manifest import compose_manifest
from .portable import export_portable
from .voices import write_voices
from .weights import write_weights

ENGINES = ("onnxruntime",)
DECODER_LAYERS = re.compile(r"(thinker|talker|talker\.code_predictor)\.model\.layers\.")
RECOMPUTED = "rotary_emb.inv_freq"
"""A buffer that older files hold beside the weights."""
TOOLS = ("torch", "onnx", "onnxscript", "onnx_ir", "onnxruntime", "numpy")


@dataclass(frozen=True)
class Progress:
    """Where a build is. `done` and `total` are bytes of weights over all stages; `elapsed` and `remaining` seconds."""

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
    engine: str = "onnxruntime",
    precision: str = "fp32",
    on_progress: OnProgress | None = None,
    cache: bool | str | Path = True,
) -> Manifest:
    """Compile the Hugging Face folder `checkpoint` into the bundle folder `bundle_path`; returns its manifest.

    `cache` is a folder for built stages, True for the default one (`ANTIPHON_CACHE` or the user's cache folder), False for none.
    The bundle is written beside `bundle_path` and renamed at the end, so that an interruption leaves the old bundle or none; what a killed build left
    there goes first, and an older bundle that it had set aside comes back.
    Raises AntiphonError in one sentence for a checkpoint that cannot be built or a folder that cannot be written.
    """
    for name, value, known in (("target", target, TARGETS), ("engine", engine, ENGINES), ("precision", precision, PRECISIONS)):
        if value not in known:
            raise UnsupportedTarget(f"Unknown {name} {value!r}; expected one of {', '.join(known)}.")
    source = Checkpoint(checkpoint)
    destination = Path(os.path.realpath(bundle_path))  # the bundle takes the place of what a link points to, not of the link
    folder = None if cache is False else default_cache() if cache is True else Path(cache)
    try:
        _check_destination(destination)
        destination.parent.mkdir(parents=True, exist_ok=True)
        with folder_beside(destination) as beside:
            manifest = _Build(source, beside, StageCache(folder), target, engine, precision, on_progress).run()
            _check_destination(destination)  # a build can take hours: what came there meanwhile is not removed
            put_in_place(beside, destination)
    except OSError as error:
        raise _write_error(error, destination) from None
    return manifest


class _Build:
    """One build: its folder, its clock and its progress."""

    def __init__(
        self, checkpoint: Checkpoint, folder: Path, cache: StageCache, target: str, engine: str, precision: str, on_progress: OnProgress | None
    ) -> None:
        self.checkpoint, self.folder, self.cache = checkpoint, folder, cache
        self.config: OmniConfig = checkpoint.config
        self.target, self.engine, self.precision = target, engine, precision
        self.on_progress = on_progress
        self.started = time.monotonic()
        self.done = self.total = 0
        self.tools = {name: importlib.metadata.version(name) for name in TOOLS}

    def run(self) -> Manifest:
        made = stages(self.config)
        sources = {stage.name: stage.weights(self.checkpoint) for stage in made}
        used = {tensor for source in sources.values() for weight in source.values() for tensor in weight.tensors}
        for tensor in sorted(used):
            self.checkpoint.shape(tensor)  # a missing one is said now, not after the stages before its own
        _check_layers(self.checkpoint, used)
        sizes = {stage.name: _module_bytes(stage) for stage in made}
        self.total = sum(sizes.values())
        entries: dict[str, StageEntry] = {}
        timings: dict[str, Any] = {}
        self._report("frontend", "writing")
        write_frontend(self.checkpoint.path, self.config, self.folder / "frontend")  # first: what is wrong with it is said at once
        if self.config.talker is not None and self.config.talker.contract.voice == "frames":
            write_voices(self.checkpoint, self.config.talker, self.folder / "frontend")
        for stage in made:
            started, before = time.monotonic(), self.done
            home = self.folder / "stages" / stage.name
            home.mkdir(parents=True)
            entries[stage.name], reason, hit = self._stage(stage, sources[stage.name], home)
            timings[stage.name] = {"seconds": round(time.monotonic() - started, 3), "cached": hit, "reason": reason}
            self.done = before + sizes[stage.name]
        self._report("bundle", "hashing")
        hashes = hash_folder(self.folder)
        build_record = {"seconds": round(time.monotonic() - self.started, 3), "stages": timings, "left_out": list(self.config.left_out)}
        manifest = compose_manifest(
            self.config, self.folder / "frontend", entries, target=self.target, precision=self.precision, tool_versions=self.tools,
            build=build_record, hashes=hashes,
        )  # fmt: skip
        write_manifest(self.folder, manifest)
        read_manifest(self.folder)
        return manifest

    def _stage(self, stage: Stage, sources: dict[str, WeightSource], home: Path) -> tuple[StageEntry, str, bool]:
        self._report(stage.name, "reading weights")
        parts = self._key_parts(stage, sources)
        found = self.cache.fetch(stage.name, parts, home)
        if found.hit:
            return read_entry(found.entry, f"the cached stage {stage.name}"), found.reason, True
        self._report(stage.name, "exporting")
        model = export_portable(stage)
        self._report(stage.name, "writing weights")
        write_weights(model, sources, self.checkpoint, home / "weights.bin", lambda written: self._wrote(stage.name, written))
        ir.save(model, home / "portable.onnx")
        self._report(stage.name, "lowering")
        lowered, (inputs, outputs, states) = lower_onnxruntime(stage, model)
        interface = StageInterface(inputs, outputs, states, dict(stage.constants))
        ir.save(lowered, home / "engine.onnx")
        entry = StageEntry(
            stage.name, self.engine, self.target, (f"stages/{stage.name}/engine.onnx",),
            interface, capabilities(interface),
            precision=PRECISIONS[self.precision], parameters=_module_bytes(stage) // 4,
            bytes=sum(file.stat().st_size for file in home.iterdir()), key=stage_key(parts),
        )  # fmt: skip
        self.cache.store(stage.name, parts, home, dataclasses.asdict(entry))
        return entry, found.reason, False

    def _key_parts(self, stage: Stage, sources: dict[str, WeightSource]) -> dict[str, str]:
        digest = hashlib.sha256()
        for name in sorted(sources):
            for tensor in sources[name].tensors:
                digest.update(f"{name} {tensor} {self.checkpoint.digest(tensor)}\n".encode())
        with torch.device("meta"):
            shapes = [(name, tuple(parameter.shape)) for name, parameter in stage.make_module().named_parameters()]
        description = repr((shapes, stage.inputs, stage.outputs, stage.states, stage.constants, _configuration(self.config, stage.name)))
        return {
            "weights": digest.hexdigest(), "configuration": hashlib.sha256(description.encode()).hexdigest(), "antiphon code": CODE_HASH,
            "target": self.target, "engine": self.engine, "precision": self.precision, **{f"version of {name}": found for name, found in self.tools.items()},
        }  # fmt: skip

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
    """Refuse a tensor of a decoder's layer that no stage reads, such as a bias or a layer that config.json does not state: without it the model is another."""
    stacks = {stack.group() for name in used if (stack := DECODER_LAYERS.match(name))}
    for name in checkpoint.names():
        stack = DECODER_LAYERS.match(name)
        if stack and stack.group() in stacks and name not in used and not name.endswith(RECOMPUTED):
            raise AntiphonError(f"{checkpoint.path}: tensor {name} found, which config.json does not ask for; use the config.json of these weights.")


def _configuration(config: OmniConfig, stage: str) -> object:
    """The part of the configuration a stage's graph depends on; ids and voices live in the manifest alone."""
    thinker, talker = config.thinker, config.talker
    parts: dict[str, object] = {
        "audio_encoder": thinker.audio, "vision_encoder": thinker.vision, "code2wav": config.code2wav, "codec_encoder": config.codec_encoder,
        "thinker": (thinker.text, thinker.deepstack_layers, talker.accept_hidden_layer if talker else None), "mtp": thinker.text,
        "talker": (thinker.text, talker.text, talker.predictor, talker.num_code_groups) if talker else None,
        "predictor": (talker.text.hidden_size, talker.predictor) if talker else None,
    }  # fmt: skip
    return parts[stage]


def _code_hash() -> str:
    """Hash of the source files that decide a stage: graphs, plugins, export and what the engine kind can do."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    contracts = ("runtime/bundle/manifest.py", "runtime/bundle/talker_contract.py", "runtime/engines/onnxruntime/capabilities.py")
    for part in ("export", "graphs", "plugins", *contracts):
        files = [root / part] if part.endswith(".py") else sorted((root / part).rglob("*.py"))
        for file in files:
            digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


CODE_HASH = _code_hash()
"""Taken when the code is loaded: a file that is edited during a build does not change what that build runs."""


def _module_bytes(stage: Stage) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() * 4 for parameter in stage.make_module().parameters())


def _check_destination(destination: Path) -> None:
    for above in destination.parents:
        if above.is_file():
            raise AntiphonError(f"{above} is a file, so {destination} cannot be made below it; give another path.")
    if destination.is_file():
        raise AntiphonError(f"{destination} is a file, expected a folder for the bundle; give another path.")
    if destination.is_dir() and any(destination.iterdir()) and not _is_bundle(destination):
        raise AntiphonError(f"{destination} holds files but is no bundle; give a new folder or an older bundle to replace.")


def _is_bundle(folder: Path) -> bool:
    """Whether `folder` holds a bundle, of whatever version, and nothing else: it will be removed."""
    try:
        manifest = read_json_object(folder / MANIFEST_FILE)
    except AntiphonError:
        return False
    return {"schema_version", "family", "stages"} <= manifest.keys() and {path.name for path in folder.iterdir()} <= {MANIFEST_FILE, "stages", "frontend"}


def _write_error(error: OSError, destination: Path) -> AntiphonError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return AntiphonError(f"No space left on the disk of {destination} while building; free some (antiphon build --plan says how much) and try again.")
    if error.errno in OCCUPIED:
        return AntiphonError(f"Cannot replace {destination}: other builds are writing this bundle; give another path, or run it again.")
    if error.errno == errno.EFBIG:
        return AntiphonError(f"A file of {destination} grew beyond what the disk or ulimit -f allows; raise the limit or give another disk (see --plan).")
    return AntiphonError(f"Cannot write the bundle {destination} ({error.strerror or error}); give a folder that can be written.")
