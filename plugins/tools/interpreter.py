"""Run programs on the CPU in the Triton interpreter, launch by launch from the contract, with exact
arithmetic.

Needs TRITON_INTERPRET=1 in the environment before the first import of triton, because kernels read it when
they are decorated. Every tensor lies between guard bytes, and outputs start as garbage, so writes outside a
tensor and elements that are not written are detected.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import torch

from ...runtime.bundle.errors import AntiphonError
from ...runtime.kernels.contract import Launch, Operand, Program
from ...runtime.kernels.invoke import invoke
from .programs import kernel_function

_GUARD_BYTES = 256
_GUARD = 0xFF  # NaN in every float type, so that it shows in any sum
_TORCH = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
    "float8_e4m3fn": torch.uint8,
    "int64": torch.int64,
    "int32": torch.int32,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "bool": torch.bool,
}


def run_interpreted(
    program: Program, inputs: Mapping[str, np.ndarray], attributes: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """The outputs of `program` in the Triton interpreter, by name.

    Float inputs are float32 or float64 arrays, rounded here to the program's dtype; float8_e4m3fn inputs hold
    their bits as uint8. Float outputs are float32. `inputs` are not changed, even where an output is aliased
    to one. Raises AssertionError if a kernel wrote outside its tensors, and AntiphonError if inputs do not
    fit the program or the interpreter is off.
    """
    _patch_interpreter()
    guarded: list[tuple[str, torch.Tensor]] = []

    def place(spec: Operand, shape: tuple[int, ...]) -> torch.Tensor:
        dtype = _TORCH[spec.dtype]
        size = int(np.prod(shape)) * dtype.itemsize
        block = torch.full((size + 2 * _GUARD_BYTES,), _GUARD, dtype=torch.uint8)
        guarded.append((spec.name, block))
        return block[_GUARD_BYTES : _GUARD_BYTES + size].view(dtype).reshape(shape)

    held = {}
    for spec in program.inputs:
        if spec.name in inputs:
            value = np.ascontiguousarray(inputs[spec.name])
            held[spec.name] = place(spec, value.shape)
            held[spec.name].copy_(torch.from_numpy(value))
    # named in errors
    held |= {name: torch.from_numpy(value) for name, value in inputs.items() if name not in held}
    outputs = invoke(
        program, held, attributes, shape_of=lambda tensor: tensor.shape, allocate=place, launch=_launch
    )
    for name, block in guarded:
        if not (
            bool((block[:_GUARD_BYTES] == _GUARD).all()) and bool((block[-_GUARD_BYTES:] == _GUARD).all())
        ):
            raise AssertionError(f"{program.op} ({program.name}) wrote outside {name}.")
    return {name: _numpy(tensor) for name, tensor in outputs.items()}


def _launch(step: Launch, grid: tuple[int, int, int], arguments: list[Any]) -> None:
    for scalar, value in zip(step.scalars, arguments[len(step.inputs) :], strict=False):
        assert value % scalar.multiple == 0, (
            f"{step.kernel}: {scalar.name} = {value} is no multiple of {scalar.multiple}, "
            "as the compiled kernel takes it to be"
        )
    kernel_function(step.kernel)[grid](*arguments, **step.constants)


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return (tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor).numpy().copy()


@functools.cache
def _patch_interpreter() -> None:
    """Give the interpreter the bfloat16 of devices: rounding to nearest even, and products of numbers (its
    dot multiplies bits)."""
    import triton
    import triton.language as tl
    from triton.runtime import interpreter

    if not triton.knobs.runtime.interpret:
        raise AntiphonError(
            "The Triton interpreter is off; set TRITON_INTERPRET=1 before the program starts."
        )
    builder = interpreter.InterpreterBuilder
    cast, convert, dot = builder.cast_impl, builder.create_fp_to_fp, builder.create_dot

    def values(handle: Any) -> np.ndarray:
        return (
            handle.data.view(ml_dtypes.bfloat16).astype(np.float32)
            if handle.dtype.scalar == tl.bfloat16
            else handle.data
        )

    def between(source: Any, target: Any, otherwise: Any) -> Any:
        kinds = (source.dtype.scalar, target.scalar)
        # Devices move the bits, also of subnormal numbers, for which the interpreter is wrong.
        if kinds == (tl.float8e4b15, tl.float16):
            bits = source.data.astype(np.uint16)
            return interpreter.TensorHandle(
                ((bits & 0x80) << 8 | (bits & 0x7F) << 7).view(np.float16), tl.float16
            )
        if (
            tl.bfloat16 not in kinds
            or kinds[0] == kinds[1]
            or not (kinds[0].is_floating() and kinds[1].is_floating())
        ):
            return otherwise()
        numbers = values(source)
        if target.scalar == tl.bfloat16:
            return interpreter.TensorHandle(numbers.astype(ml_dtypes.bfloat16).view(np.uint16), tl.bfloat16)
        return interpreter.TensorHandle(
            numbers.astype(interpreter._get_np_dtype(target.scalar)), target.scalar
        )

    def exact_dot(self: Any, a: Any, b: Any, d: Any, input_precision: Any, max_num_imprecise_acc: Any) -> Any:
        if tl.bfloat16 not in (a.dtype.scalar, b.dtype.scalar):
            return dot(self, a, b, d, input_precision, max_num_imprecise_acc)
        product = np.matmul(values(a), values(b), dtype=np.float32)
        return interpreter.TensorHandle((product + d.data).astype(d.data.dtype), d.dtype.scalar)

    builder.cast_impl = lambda self, source, target: between(
        source, target, lambda: cast(self, source, target)
    )
    builder.create_fp_to_fp = lambda self, source, target, mode: between(
        source, target, lambda: convert(self, source, target, mode)
    )
    for name in ("create_fp_ext", "create_fp_trunc"):
        setattr(builder, name, lambda self, source, target: self.cast_impl(source, target))
    builder.create_dot = exact_dot
    patch_tensor = interpreter._patch_lang_tensor

    def patch_tensor_and_index(tensor: Any, scope: Any) -> None:
        """Make a loaded loop bound usable as an index: it is an array of one element, which NumPy 2.4 does
        not convert."""
        patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    interpreter._patch_lang_tensor = patch_tensor_and_index
    patch_language = interpreter._patch_lang

    def patch_language_once(function: Any) -> Any:
        """Patch the language once per kernel.

        The interpreter would repeat it at each call, for a fifth of its time.
        """
        languages = [value for value in function.__globals__.values() if value is tl or value is tl.core]
        if languages and not any(tl.core.is_builtin(language.load) for language in languages):
            return interpreter._LangPatchScope()
        return patch_language(function)

    interpreter._patch_lang = patch_language_once
