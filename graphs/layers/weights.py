"""Weight sources of experts in all published layouts, of tied heads and of joined Linear layers.

Per-expert layout (as published): `PREFIX.{e}.gate_proj.weight` and `up_proj` [I, H], `down_proj` [H, I].
Fused layout (transformers v5 in memory): `PREFIX.gate_up_proj` [E, 2I, H] with all gate rows before all up
rows, `PREFIX.down_proj` [E, H, I]. Some checkpoints store both transposed, [E, H, 2I] and [E, I, H].
E = experts, I = width of an expert, H = hidden size.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...runtime.bundle.errors import AntiphonError
from ..stage import TensorSource, WeightSource, plain

QUERY_KEY_VALUE = ("q_proj", "k_proj", "v_proj"), "qkv_proj"
"""The last two arguments of `layers_of_one_input` for attention."""


def experts_gate_up(checkpoint: TensorSource, prefix: str, count: int) -> WeightSource:
    """Gate and up projections of `count` experts as [E, 2I, H], with rows gate 0, up 0, gate 1, up 1 ...

    `prefix` ends in `.experts`. Raises AntiphonError for missing tensors and for shapes that contradict each
    other.
    """
    fused = f"{prefix}.gate_up_proj"
    if checkpoint.has(fused):
        swap = _is_transposed(checkpoint, prefix, count)

        def interleave_fused(stored: np.ndarray) -> np.ndarray:
            rows = np.swapaxes(stored, 1, 2) if swap else stored
            width = rows.shape[1] // 2
            joined = np.empty(rows.shape, dtype=stored.dtype)
            joined[:, 0::2], joined[:, 1::2] = rows[:, :width], rows[:, width:]
            return joined

        return WeightSource((fused,), interleave_fused)
    _check_experts(checkpoint, prefix, count)
    names = tuple(
        f"{prefix}.{expert}.{projection}.weight"
        for expert in range(count)
        for projection in ("gate_proj", "up_proj")
    )

    def interleave_experts(*stored: np.ndarray) -> np.ndarray:
        width, hidden = stored[0].shape
        joined = np.empty((count, 2 * width, hidden), dtype=stored[0].dtype)
        for expert in range(count):
            joined[expert, 0::2], joined[expert, 1::2] = stored[2 * expert], stored[2 * expert + 1]
        return joined

    return WeightSource(names, interleave_experts)


def experts_down(checkpoint: TensorSource, prefix: str, count: int) -> WeightSource:
    """Down projections of `count` experts as [E, H, I]. Arguments and errors: see `experts_gate_up`."""
    fused = f"{prefix}.down_proj"
    if checkpoint.has(fused):
        if _is_transposed(checkpoint, prefix, count):
            return WeightSource((fused,), lambda stored: np.ascontiguousarray(np.swapaxes(stored, 1, 2)))
        return plain(fused)
    _check_experts(checkpoint, prefix, count)
    return WeightSource(
        tuple(f"{prefix}.{expert}.down_proj.weight" for expert in range(count)),
        lambda *stored: np.stack(stored),
    )


def head(
    checkpoint: TensorSource,
    head_name: str,
    embedding_name: str,
    tied: bool,
    source: Callable[[str], WeightSource] = plain,
) -> WeightSource:
    """The output projection: its own tensor, or the embedding if the two are tied.

    `source` makes the layout of the parameter (`plain` or `transposed`). Raises AntiphonError if the tensor
    is missing.
    """
    # The flag decides even if both tensors are stored: transformers ties after loading.
    name = embedding_name if tied else head_name
    if not checkpoint.has(name):
        reason = (
            "with tie_word_embeddings true it is also the head"
            if tied
            else "with tie_word_embeddings false the head has its own tensor"
        )
        raise AntiphonError(
            f"{checkpoint.path}: tensor {name} is missing ({reason}); "
            "use the config.json that belongs to these weights."
        )
    return source(name)


def layers_of_one_input(
    checkpoint: TensorSource, prefix: str, parts: tuple[str, ...], fused: str
) -> tuple[str, ...]:
    """The names of Linear layers with the same input: `parts` below `prefix`, or `fused` if that is stored.

    `fused` holds the rows of all parts, as in TensorRT-Edge-LLM.
    """
    whole = f"{prefix}.{fused}"
    return (whole,) if checkpoint.has(f"{whole}.weight") else tuple(f"{prefix}.{part}" for part in parts)


def _is_transposed(checkpoint: TensorSource, prefix: str, count: int) -> bool:
    """Whether the fused tensors of `prefix` are stored transposed: [E, H, 2I] and [E, I, H].

    The two shapes together never match both layouts. Raises AntiphonError if they match neither.
    """
    gate_up, down = checkpoint.shape(f"{prefix}.gate_up_proj"), checkpoint.shape(f"{prefix}.down_proj")
    if len(gate_up) == len(down) == 3 and gate_up[0] == down[0] == count:
        if gate_up[1:] == (2 * down[2], down[1]):
            return False
        if gate_up[1:] == (down[2], 2 * down[1]):
            return True
    raise AntiphonError(
        f"{checkpoint.path}: the fused experts of {prefix} have shapes {list(gate_up)} and {list(down)}, "
        f"expected [E, 2I, H] and [E, H, I] with {count} experts; "
        "use the config.json that belongs to these weights."
    )


def _check_experts(checkpoint: TensorSource, prefix: str, count: int) -> None:
    """Raise AntiphonError if the experts differ in shape or the checkpoint has more than `count`."""
    width_hidden = checkpoint.shape(f"{prefix}.0.gate_proj.weight")
    for expert in range(count):
        checkpoint.expect_shape(f"{prefix}.{expert}.gate_proj.weight", width_hidden)
        checkpoint.expect_shape(f"{prefix}.{expert}.up_proj.weight", width_hidden)
        checkpoint.expect_shape(f"{prefix}.{expert}.down_proj.weight", width_hidden[::-1])
    if checkpoint.has(f"{prefix}.{count}.gate_proj.weight"):
        raise AntiphonError(
            f"{checkpoint.path}: {prefix} holds more experts than the {count} of config.json; "
            "use the config.json of these weights."
        )
