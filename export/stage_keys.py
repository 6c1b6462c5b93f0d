"""What decides a stage, in two levels:
its portable graph, and the engine made from that graph and the weights.

Both are dictionaries of named parts, of which the cache makes keys and its reasons for a miss.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module

import torch

from ..graphs.checkpoints.checkpoint import Checkpoint
from ..graphs.stage import Stage, WeightSource
from ..plugins.op_form import OpForm
from ..plugins.registry import DOMAIN, DOMAIN_VERSION, FOLDERS, OPS
from ..runtime.bundle.specs import Precision
from ..runtime.bundle.version import VERSION
from .cache import stage_key
from .engines.base import EngineBuilder
from .op_forms import op_forms
from .sources import imported_sources, sources_digest

EXPORT_TOOLS = ("torch", "onnx", "onnxscript", "onnx_ir")
EXPORTER = ("antiphon.export.portable", "antiphon.export.weights")
READING = tuple(
    f"antiphon.graphs.checkpoints.{name}"
    for name in ("checkpoint", "safetensors_folder", "stored_tensor", "torch_archive")
)
"""From stored bytes to the values of a parameter: these decide an engine's weights beside the bytes."""
OPS_ROOM, RUNTIME, SPECS = "antiphon.plugins", "antiphon.runtime", "antiphon.runtime.bundle.specs"
NOT_OF_KINDS = ("antiphon.graphs", "antiphon.export.portable", "antiphon.export.op_forms")
"""What the portable graph's own key covers."""
STOP = (OPS_ROOM, RUNTIME)
"""Rooms that the walk over imports does not enter: the ops of a stage are added one by one,
and of the runtime only the descriptions of tensors decide a graph. The layouts that encoders take their
example inputs from decide sizes of a trace, which the graph does not keep.
"""


@dataclass(frozen=True)
class StageFacts:
    """What is known of a stage before any weight is read."""

    stage: Stage
    forms: tuple[OpForm, ...]
    """Every use of an op of ai.antiphon."""
    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    """Name and shape of every parameter."""

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(torch.Size(shape).numel() for _, shape in self.shapes)


def stage_facts(stage: Stage) -> StageFacts:
    """Found on the meta device: no weight is allocated."""
    with torch.device("meta"):
        shapes = tuple(
            (name, tuple(parameter.shape)) for name, parameter in stage.make_module().named_parameters()
        )
    forms = op_forms(stage)
    for op in dict.fromkeys(form.op for form in forms):
        # Imported now: an edit during the build does not change what this build runs.
        import_module(f"{OPS_ROOM}.{FOLDERS[op]}.function")
    return StageFacts(stage, forms, shapes)


def portable_parts(facts: StageFacts) -> dict[str, str]:
    """What decides the portable graph: configuration and interface, the sources of the module,
    its ops and the exporter, the tools.
    """
    stage = facts.stage
    described = (
        facts.shapes,
        stage.inputs,
        stage.outputs,
        stage.states,
        stage.constants,
        stage.configuration,
    )
    ops = dict.fromkeys(form.op for form in facts.forms)
    op_files = [f"{OPS_ROOM}.{FOLDERS[op]}.{part}" for op in ops for part in ("torch_op", "function")]
    files = imported_sources([_module_of(stage), *EXPORTER, SPECS], stop=STOP)
    files += imported_sources([*op_files, f"{OPS_ROOM}.onnx_domain"], stop=[f"{OPS_ROOM}.registry", RUNTIME])
    return {
        "configuration": _hash(repr(described)),
        "graph code": sources_digest(set(files)),
        "op signatures": _hash(repr((DOMAIN, DOMAIN_VERSION, VERSION, [OPS[op] for op in ops]))),
        **{f"version of {name}": importlib.metadata.version(name) for name in EXPORT_TOOLS},
    }


def engine_parts(
    facts: StageFacts,
    portable: Mapping[str, str],
    weights: str,
    builder: EngineBuilder,
    kind: str,
    target: str,
    precision: Precision,
) -> dict[str, str]:
    """What decides the engine: the portable graph's key, the weights' digest,
    and the kind's own sources and tools.

    The parts of the portable graph stay beside its key, so that a miss names what changed.
    """
    files = imported_sources([*builder.sources(facts.forms), SPECS], stop=[RUNTIME, *NOT_OF_KINDS])
    files += imported_sources(READING, stop=["antiphon.graphs", RUNTIME])
    return {
        **portable,
        "portable graph": stage_key(dict(portable)),
        "weights": weights,
        "engine": kind,
        "engine code": sources_digest(set(files)),
        "loop": _hash(repr(facts.stage.loop)),
        "target": target,
        "precision": repr(precision),
        **{f"version of {name}": found for name, found in builder.tools().items()},
    }


def weights_digest(checkpoint: Checkpoint, sources: Mapping[str, WeightSource]) -> str:
    """SHA-256 (hex) of the stored tensors that each parameter is made of."""
    digest = hashlib.sha256()
    for name in sorted(sources):
        for tensor in sources[name].tensors:
            digest.update(f"{name} {tensor} {checkpoint.digest(tensor)}\n".encode())
    return digest.hexdigest()


def _module_of(stage: Stage) -> str:
    """The dotted name of the module that defines the stage."""
    module = inspect.getmodule(stage.make_module)
    assert module is not None
    return module.__name__


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
