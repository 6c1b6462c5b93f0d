"""Lower a portable graph for ONNX Runtime: the order of the passes."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from ....graphs.stage import Stage
from ....plugins.attention.lower_onnxruntime import lower as lower_attention
from ....plugins.causal_conv_state.lower_onnxruntime import lower as lower_causal_conv_state
from ....plugins.gated_delta_rule.lower_onnxruntime import lower as lower_gated_delta_rule
from ....plugins.moe.lower_onnxruntime import lower as lower_moe
from ....plugins.sample_token.lower_onnxruntime import lower as lower_sample_token
from ....runtime.bundle.specs import StateSpec, TensorSpec
from .passes.flash_attention import flash_attention
from .passes.fuse_head_norms import fuse_head_norms
from .passes.fuse_skip_norm import fuse_skip_norm
from .passes.replace_ops import replace_ops
from .passes.share_sizes import share_sizes
from .passes.unroll_frame import frame_interface, unroll_frame

LOWERINGS = {
    "Attention": lower_attention, "CausalConvState": lower_causal_conv_state, "GatedDeltaRule": lower_gated_delta_rule, "MoE": lower_moe,
}  # fmt: skip

Interface = tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...], tuple[StateSpec, ...]]


def lower_onnxruntime(stage: Stage, model: ir.Model) -> tuple[ir.Model, Interface]:
    """Lower `model`, the portable graph of `stage` with its weights attached, in place; returns the engine graph and its interface."""
    replace_ops(model, LOWERINGS)
    fuse_skip_norm(model)
    fuse_head_norms(model)
    flash_attention(model)
    interface: Interface = (stage.inputs, stage.outputs, stage.states)
    if stage.name == "predictor":
        sizes = (stage.size("hidden_size"), stage.size("codebook_size"), stage.size("code_groups"))
        model = unroll_frame(model, *sizes)
        interface = (*frame_interface(*sizes), ())
    share_sizes(model)
    # After the unrolling, which copies nodes but no branches, and knows what a frame never forbids.
    replace_ops(model, {"SampleToken": lower_sample_token})
    common.InlinePass()(model)
    common.LiftConstantsToInitializersPass()(model)
    common.CommonSubexpressionEliminationPass()(model)
    common.RemoveUnusedNodesPass()(model)
    return model, interface
