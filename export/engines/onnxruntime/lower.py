"""Lower a portable graph for ONNX Runtime: the order of the passes."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

import onnx_ir as ir
from onnx_ir.passes import common

from ....graphs.stage import Stage
from ....plugins.registry import DOMAIN, FOLDERS
from ..base import Lowered, PassRecord
from .passes.flash_attention import flash_attention
from .passes.fuse_head_norms import fuse_head_norms
from .passes.fuse_skip_norm import fuse_skip_norm
from .passes.replace_ops import Lowering, replace_ops
from .passes.share_sizes import share_sizes
from .passes.unroll_loop import unroll_loop

RULE_NAME = "pkg.onnxscript.rewriter.rule_name"
"""What onnxscript's rewriter notes at nodes; a file keeps the path of their module alone."""
LAST = ("SampleToken",)
"""Ops that become branches, which no later pass copies: they are lowered after the loop is unrolled."""


def has_lowering(op: str) -> bool:
    """Whether the folder of `op` lowers it for ONNX Runtime."""
    return op in FOLDERS and find_spec(f"antiphon.plugins.{FOLDERS[op]}.lower_onnxruntime") is not None


def lowering(op: str) -> Lowering:
    """How `op` is lowered; see has_lowering."""
    found: Lowering = import_module(f"antiphon.plugins.{FOLDERS[op]}.lower_onnxruntime").lower
    return found


def lower(stage: Stage, model: ir.Model) -> Lowered:
    """Lower `model`, the portable graph of `stage` with its weights attached, in place."""
    used = dict.fromkeys(node.op_type for node in model.graph if node.domain == DOMAIN)
    early = {op: lowering(op) for op in used if op not in LAST and has_lowering(op)}
    late = {op: lowering(op) for op in used if op in LAST}
    records: list[PassRecord] = []

    def run(action: Callable[[ir.Model], int]) -> None:
        records.append(PassRecord(action.__name__, action(model)))

    records.append(PassRecord("replace_ops", replace_ops(model, early)))
    run(fuse_skip_norm)
    run(fuse_head_norms)
    run(flash_attention)
    if stage.loop is not None:
        model = unroll_loop(model, stage.loop)
        records.append(PassRecord("unroll_loop", stage.loop.steps))
    run(share_sizes)
    records.append(PassRecord("replace_ops of sampling", replace_ops(model, late)))
    common.InlinePass()(model)
    common.LiftConstantsToInitializersPass()(model)
    common.CommonSubexpressionEliminationPass()(model)
    common.RemoveUnusedNodesPass()(model)
    for node in model.graph.all_nodes():
        node.metadata_props.pop(RULE_NAME, None)
    return Lowered(model, stage.interface, tuple(records))
