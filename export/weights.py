"""Writes a stage's weights from the checkpoint to a file beside its graph, one parameter at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from ..graphs.stage import WeightSource
from ..runtime.bundle.errors import AntiphonError

ALIGNMENT = 4096
"""Bytes of a page. Engines map the file, and use tensors at page boundaries without a copy."""


def write_weights(
    model: ir.Model,
    sources: dict[str, WeightSource],
    checkpoint: Any,
    file: Path,
    on_bytes: Callable[[int], None] | None = None,
) -> None:
    """Write the parameters of `model` to `file`, and let the model refer to them as external data.

    One parameter at a time is in memory, and `on_bytes(n)` is called after each. Parameters are written in
    the order of their names, so that equal inputs give an equal file. Raises AntiphonError if the shape of a
    source differs from the graph's.
    """
    parameters = {
        name: value for name, value in model.graph.initializers.items() if value.const_value is None
    }
    with file.open("wb") as out:
        for name in sorted(parameters):
            value, source = parameters[name], sources[name]
            assert value.shape is not None
            expected = value.shape.numpy()
            array = np.ascontiguousarray(
                source.assemble(*(checkpoint.read(tensor) for tensor in source.tensors)), dtype=np.float32
            )
            if array.shape != expected:
                raise AntiphonError(
                    f"Tensor {source.tensors[0]} of {checkpoint.path} gives shape {list(array.shape)} "
                    f"for {model.graph.name}.{name}, expected {list(expected)} from config.json; "
                    "the checkpoint and its config.json do not belong together."
                )
            offset = -(-out.tell() // ALIGNMENT) * ALIGNMENT
            out.seek(offset)
            out.write(array.data)  # array.tofile does not report a full disk
            value.const_value = ir.ExternalTensor(
                file.name,
                offset,
                array.nbytes,
                ir.DataType.FLOAT,
                shape=ir.Shape(list(expected)),
                name=name,
                base_dir=file.parent,
            )
            if on_bytes is not None:
                on_bytes(array.nbytes)
            del array  # frees it before the next one is made
