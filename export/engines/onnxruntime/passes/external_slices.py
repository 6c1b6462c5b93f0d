"""Slices a tensor on disk along its first axis without reading it."""

from __future__ import annotations

import math

import onnx_ir as ir


def slice_external(tensor: ir.TensorProtocol, index: int, name: str) -> ir.ExternalTensor:
    """`tensor[index]` as a view of the same weights file, with another offset and length."""
    assert isinstance(tensor, ir.ExternalTensor) and tensor.offset is not None
    shape = [int(size) for size in tensor.shape.numpy()][1:]
    length = math.prod(shape) * tensor.dtype.itemsize
    return ir.ExternalTensor(
        tensor.location,
        int(tensor.offset + index * length),
        int(length),
        tensor.dtype,
        shape=ir.Shape(shape),
        name=name,
        base_dir=tensor.base_dir,
    )
