"""MoE on ONNX Runtime: the contrib kernel, which reads the chosen experts only."""

from __future__ import annotations

import onnx_ir as ir


def lower(node: ir.Node) -> tuple[list[ir.Node], list[ir.Value]]:
    """Lower to `com.microsoft.MoE` with fused SwiGLU (alpha 1 and beta 0, as in Qwen).

    Its weight layout equals that of the op, so no weight is copied. Of equal router logits the kernel takes
    the higher expert and the reference the lower; PyTorch does not define the choice.
    """
    x, router_logits, gate_up, down = node.inputs
    attributes: dict[str, int | float | str] = {
        "k": node.attributes["top_k"].as_int(),
        "normalize_routing_weights": node.attributes["normalize"].as_int(),
        "activation_type": "swiglu",
        "swiglu_fusion": 1,
        "activation_alpha": 1.0,
        "activation_beta": 0.0,
    }
    moe = ir.node("MoE", [x, router_logits, gate_up, None, down], attributes, domain="com.microsoft")
    return [moe], list(moe.outputs)
