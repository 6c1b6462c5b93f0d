"""What ONNX Runtime on a CPU can do with a stage, from the stage's interface alone."""

from __future__ import annotations

from ...bundle.specs import Capabilities, StageInterface


def capabilities(interface: StageInterface) -> Capabilities:
    """The capabilities of the stage with `interface`.

    GroupQueryAttention, which has the kv states, takes several rows only for single-token steps or empty
    caches. A stage without an axis `batch` (an encoder) has one row. No result is exact across batches or
    chunks: MoE and Conv were measured to differ in the last bits (docs/bundle.md), and the interface does not
    tell which operators a stage has.
    """
    rows = any("batch" in spec.shape for spec in interface.inputs) and all(
        state.batch_axis == 0 for state in interface.states
    )
    return Capabilities(
        max_rows=None if rows else 1,
        ragged_decode=True,
        chunked_batch=all(state.kind != "kv" for state in interface.states),
        contiguous_slots=True,
        rows_exact=False,
        chunks_exact=False,
        states_on="host",
        samples="graph",
        device="cpu",
    )
