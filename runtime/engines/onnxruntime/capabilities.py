"""What ONNX Runtime can do with a stage, by its interface."""

from __future__ import annotations

from ...bundle.specs import Capabilities, StageInterface


def capabilities(interface: StageInterface) -> Capabilities:
    """Of the stage with `interface` on the CPU."""
    return Capabilities(chunked_batch=not any(state.kind == "kv" for state in interface.states), contiguous_slots=True)
