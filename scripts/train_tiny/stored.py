"""Converts trained parameters of stage modules back to checkpoint tensors: the inverse of `Stage.weights`.

Most parameters are a rearrangement of stored values plus a constant. To find it, the numbers of the elements
are assembled instead of their values; a few parameters have a formula. Every inversion is verified by
assembling its result again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial

import numpy as np
from torch import Tensor, nn

from ...graphs.checkpoints.checkpoint import Checkpoint
from ...graphs.config import Code2WavConfig
from ...graphs.layers.streaming_conv import TransposedConvolution
from ...graphs.stage import Stage, WeightSource
from ...graphs.stages.code2wav.module import UpsamplingBlock
from ...graphs.stages.code2wav.tensors import PREFIX, quantizer_groups
from ...runtime.bundle.errors import AntiphonError

SCALES = (".gamma", ".scale", ".cluster_usage")
"""Suffixes of tensors that only multiply or divide another. They become ones: training knows the product
alone."""
DERIVED = ".half_square"
"""Suffix of parameters that are derived from others."""
RELATIVE_ERROR, ABSOLUTE_ERROR = 1e-5, 1e-6
"""Tolerances of a parameter that is assembled again; its checkpoint form is float32."""
Stored = dict[str, np.ndarray]
"""Tensors of a checkpoint by name, float32; elements that are not set are NaN."""


def _decay(parameter: np.ndarray) -> np.ndarray:
    """A_log of decay_scale = -exp(A_log)."""
    return np.log(-parameter)


def _frequency(parameter: np.ndarray) -> np.ndarray:
    """The logarithm of SnakeBeta's frequency [channels, 1]."""
    return np.log(parameter[:, 0])


def _magnitude(parameter: np.ndarray) -> np.ndarray:
    """The logarithm of 1 / magnitude [channels, 1]; assembling adds 1e-9 to the denominator."""
    return np.log(1 / parameter[:, 0] - 1e-9)


FORMULAS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    ".A_log": _decay,
    ".alpha": _frequency,
    ".beta": _magnitude,
}
"""Inverse formulas by the suffix of the only tensor of a parameter."""


def stored_tensors(
    stage: Stage, checkpoint: Checkpoint, parameters: Mapping[str, np.ndarray], apart: Collection[str] = ()
) -> Stored:
    """The tensors of `checkpoint` from which `stage` assembles `parameters` (all of its module's except those
    in `apart`).

    If a parameter reads a part of a tensor, the rest is NaN. Raises AntiphonError for a parameter that is
    missing, has another shape than the stage's or cannot be stored, and for two that need different values of
    one tensor.
    """
    stored: Stored = {}
    for name, source in stage.weights(checkpoint).items():
        if name in apart or name.endswith(DERIVED):
            continue
        what = f"{stage.name}: parameter {name}"
        if name not in parameters:
            raise AntiphonError(
                f"{what} is missing among the trained ones; give the state of a whole module."
            )
        stored = merged(stored, _inverted(what, source, checkpoint, np.asarray(parameters[name])))
    return stored


def codebook_tensors(
    config: Code2WavConfig, entries: np.ndarray, semantic: np.ndarray, acoustic: np.ndarray
) -> Stored:
    """The factors of Code2Wav's code_embedding, as tensors.

    They are the codebooks `entries` [quantisers, size, dim] and the weight [quantizer_dim, dim] of each
    projection.
    """
    stored: Stored = {}
    index = 0
    for (group, count), projection in zip(quantizer_groups(config), (semantic, acoustic), strict=True):
        stored[f"{PREFIX}{group}.output_proj.weight"] = projection[:, :, None].astype(np.float32)
        for layer in range(count):
            codebook = f"{PREFIX}{group}.vq.layers.{layer}._codebook"
            stored[f"{codebook}.embedding_sum"] = entries[index].astype(np.float32)
            stored[f"{codebook}.cluster_usage"] = np.ones(len(entries[index]), np.float32)
            index += 1
    return stored


def tie_repeated_biases(module: nn.Module) -> None:
    """Give the columns of Code2Wav's upsampling biases, which repeat one stored bias [out], equal gradients
    from now on.

    Biases that start equal then stay equal, and the checkpoint can hold them.
    """
    for part in module.modules():
        if isinstance(part, UpsamplingBlock):
            part.upsample_bias.register_hook(partial(_columns_mean, part.ratio))
        elif isinstance(part, TransposedConvolution):
            part.bias.register_hook(partial(_columns_mean, part.stride))


def _columns_mean(columns: int, gradient: Tensor) -> Tensor:
    return gradient.reshape(columns, -1).mean(0).repeat(columns)


def merged(*parts: Mapping[str, np.ndarray]) -> Stored:
    """The tensors of all `parts`, which may set different elements of a tensor.

    Raises AntiphonError if two set the same element differently.
    """
    together: Stored = {}
    for part in parts:
        for name, tensor in part.items():
            known = together.get(name)
            if known is None:
                together[name] = tensor
                continue
            if np.any((known != tensor) & ~np.isnan(known) & ~np.isnan(tensor)):
                raise AntiphonError(
                    f"Two trained parameters need different values of tensor {name}; "
                    "train them as one (tied) parameter."
                )
            together[name] = np.where(np.isnan(known), tensor, known)
    return together


def _inverted(what: str, source: WeightSource, checkpoint: Checkpoint, parameter: np.ndarray) -> Stored:
    """The tensors of `source` that assemble to `parameter`, verified."""
    if not np.isfinite(parameter).all():
        raise AntiphonError(f"{what} has values that are not finite; take an earlier state of this training.")
    shapes = {name: checkpoint.shape(name) for name in source.tensors}
    formula = FORMULAS.get(_end(source.tensors[0])) if len(source.tensors) == 1 else None
    if formula is None:
        stored = _rearranged(what, source, shapes, parameter)
    else:
        with np.errstate(divide="ignore", invalid="ignore"):
            stored = {source.tensors[0]: formula(parameter.astype(np.float64)).astype(np.float32)}
    again = source.assemble(*stored.values())
    if again.shape != parameter.shape or not np.allclose(again, parameter, RELATIVE_ERROR, ABSOLUTE_ERROR):
        reason = (
            f"shape {list(parameter.shape)}, expected {list(again.shape)}"
            if again.shape != parameter.shape
            else "values that no stored tensor gives"
        )
        raise AntiphonError(
            f"{what} has {reason} ({', '.join(source.tensors) or 'a constant'}); "
            "train it in the form that the checkpoint can hold."
        )
    return stored


def _rearranged(
    what: str, source: WeightSource, shapes: Mapping[str, tuple[int, ...]], parameter: np.ndarray
) -> Stored:
    """The tensors of a parameter that holds their elements in another order, possibly repeated, plus a
    constant."""
    scales = {name for name in shapes if len(shapes) > 1 and name.endswith(SCALES)}
    numbers: dict[str, np.ndarray] = {}
    starts: dict[str, int] = {}
    count = 0
    for name, shape in shapes.items():
        size = 0 if name in scales else int(np.prod(shape))
        # Numbers start at 1, so that an element that is dropped or set to zero is noticed. They are exact in
        # float32 below 2 ** 24.
        numbers[name] = (
            np.arange(count + 1, count + 1 + size, dtype=np.float64).reshape(shape)
            if size
            else np.ones(shape)
        )
        starts[name] = count
        count += size
    assert count < 2**24, f"{what} is made of {count} values"
    constant = source.assemble(
        *(np.ones(shape) if name in scales else np.zeros(shape) for name, shape in shapes.items())
    )
    traced = source.assemble(*numbers.values()) - constant
    if traced.shape != parameter.shape:
        raise AntiphonError(
            f"{what} has shape {list(parameter.shape)}, expected {list(traced.shape)}; "
            "use the configuration that it was trained with."
        )
    place = np.rint(traced).astype(np.int64).reshape(-1) - 1
    if place.size and (place.min() < 0 or place.max() >= count):
        raise AntiphonError(
            f"{what} is no arrangement of its tensors ({', '.join(shapes)}), so its values cannot be stored; "
            "it needs a formula of its own."
        )
    flat = np.full(count, np.nan, np.float32)
    flat[place] = (parameter - constant).reshape(-1)
    return {
        name: np.ones(shape, np.float32)
        if name in scales
        else flat[starts[name] : starts[name] + int(np.prod(shape))].reshape(shape)
        for name, shape in shapes.items()
    }


def _end(tensor: str) -> str:
    return f".{tensor.rpartition('.')[2]}"
