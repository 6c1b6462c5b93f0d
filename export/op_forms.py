"""Every use of an op of ai.antiphon in a stage, found by one run of the module on the meta device:
no weights, no export.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ..graphs.stage import Stage
from ..plugins.op_form import OpForm
from ..plugins.registry import FOLDERS, OPS

NAMESPACE = "antiphon"
CAPACITY = 7
_NAMES = {folder: op for op, folder in FOLDERS.items()}


def op_forms(stage: Stage) -> tuple[OpForm, ...]:
    """The uses of ops of ai.antiphon in `stage`, in the order of execution."""
    with torch.device("meta"):
        module = stage.make_module()
    module.eval().requires_grad_(False)
    recorder = _Recorder()
    with torch.device("meta"), torch.no_grad(), _scopes(module, recorder), recorder:
        module(*example_arguments(stage))
    return tuple(recorder.forms)


def example_arguments(stage: Stage) -> list[torch.Tensor]:
    """The example inputs of `stage` and states of CAPACITY rows, on the meta device,
    in the order of its module.
    """
    feeds = stage.example()
    symbols: dict[str, int] = {"capacity": CAPACITY}
    for spec in stage.inputs:
        sizes = zip(spec.shape, feeds[spec.name].shape, strict=True)
        symbols |= {axis: size for axis, size in sizes if isinstance(axis, str)}
    arguments = [torch.from_numpy(feeds[spec.name]).to("meta") for spec in stage.inputs]
    for state in stage.states:
        shape = [symbols[axis] if isinstance(axis, str) else axis for axis in state.shape]
        arguments.append(torch.zeros(shape, dtype=getattr(torch, state.dtype), device="meta"))
    return arguments


class _Recorder(TorchDispatchMode):
    """Notes every call of an operator of NAMESPACE."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[OpForm] = []
        self.scope: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == NAMESPACE:
            self.forms.append(self._form(func.__name__.partition(".")[0], args))
        return func(*args, **(kwargs or {}))

    def _form(self, folder: str, arguments: Any) -> OpForm:
        op = OPS[_NAMES[folder]]
        tensors, values = arguments[: len(op.inputs)], arguments[len(op.inputs) :]
        inputs = tuple(
            (name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
            for (name, _), tensor in zip(op.inputs, tensors, strict=True)
        )
        attributes = tuple((name, value) for (name, _), value in zip(op.attributes, values, strict=True))
        return OpForm(op.name, self.scope[-1] if self.scope else "", attributes, inputs)


@contextmanager
def _scopes(module: torch.nn.Module, recorder: _Recorder) -> Iterator[None]:
    """Keep `recorder.scope` at the path of the submodule that runs."""

    def enter(path: str) -> Any:
        return lambda *_: recorder.scope.append(path)

    def leave(*_: Any) -> None:
        recorder.scope.pop()

    named = [(path or "the stage itself", child) for path, child in module.named_modules()]
    handles = [child.register_forward_pre_hook(enter(path)) for path, child in named]
    handles += [child.register_forward_hook(leave) for _, child in named]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
