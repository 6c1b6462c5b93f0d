"""MoE on ONNX Runtime: the contrib kernel, which reads only the chosen experts."""

from __future__ import annotations

import onnx_ir as ir


def lower(node: ir.Node) -> tuple[list[ir.Node], list[ir.Value]]:
    """`com.microsoft.MoE` with fused SwiGLU (alpha 1, beta 0: Qwen's). Its weight layout is that of the op, so no weight is copied.

    Of exactly equal router logits the kernel takes the higher expert, the reference the lower; PyTorch promises neither.
    """
    x, router_logits, gate_up, down = node.inputs
    attributes: dict[str, int | float | str] = {
        "k": node.attributes["top_k"].as_int(), "normalize_routing_weights": node.attributes["normalize"].as_int(),
        "activation_type": "swiglu", "swiglu_fusion": 1, "activation_alpha": 1.0, "activation_beta": 0.0,
    }  # fmt: skip
    moe = ir.node("MoE", [x, router_logits, gate_up, None, down], attributes, domain="com.microsoft")
    return [moe], list(moe.outputs)
