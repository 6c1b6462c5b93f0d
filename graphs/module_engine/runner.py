"""A stage's PyTorch module with the checkpoint's weights, run call by call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ...runtime.states.arrays import StateArrays
from ..stage import Stage, TensorSource


class ModuleRunner:
    """The reference of a stage; holds the weights of the whole stage in memory as float32."""

    def __init__(self, stage: Stage, checkpoint: TensorSource) -> None:
        self.stage = stage
        with torch.device("meta"):
            module = stage.make_module().eval().requires_grad_(False)
        for name, source in stage.weights(checkpoint).items():
            owner, _, leaf = name.rpartition(".")
            array = source.assemble(*(checkpoint.read(tensor) for tensor in source.tensors))
            parameter = torch.nn.Parameter(
                torch.from_numpy(np.array(array, np.float32, order="C")), requires_grad=False
            )
            setattr(module.get_submodule(owner) if owner else module, leaf, parameter)
        self.module = module

    def run(self, feeds: Mapping[str, np.ndarray], states: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One call; `states` are the past states by name and are replaced by the present ones."""
        arguments = [feeds[spec.name] for spec in self.stage.inputs] + [
            states[state.name] for state in self.stage.states
        ]
        results = self.module(
            *(torch.from_numpy(np.require(argument, requirements=("C", "W"))) for argument in arguments)
        )
        arrays = [result.numpy() for result in results]
        outputs = len(self.stage.outputs)
        states.update(
            {state.name: array for state, array in zip(self.stage.states, arrays[outputs:], strict=True)}
        )
        return {spec.name: array for spec, array in zip(self.stage.outputs, arrays[:outputs], strict=True)}

    def empty_states(self, capacity: int, batch: int = 1) -> dict[str, np.ndarray]:
        """States of `batch` streams before their first call, with room for `capacity` rows of context."""
        states = StateArrays(self.stage.states, batch, capacity)
        return {state.name: states.array(state.name, 0, 0, batch) for state in self.stage.states}

    @contextmanager
    def recorded(self, paths: list[str]) -> Iterator[list[dict[str, np.ndarray]]]:
        """Collect the (first) output of each submodule in `paths`;
        one dict per forward pass of the module.
        """
        calls: list[dict[str, np.ndarray]] = []

        def begin(_module: Any, _arguments: Any) -> None:
            calls.append({})

        def keep(path: str) -> Any:
            def hook(_module: Any, _arguments: Any, result: Any) -> None:
                calls[-1][path] = (result[0] if isinstance(result, tuple) else result).numpy()

            return hook

        handles = [self.module.register_forward_pre_hook(begin)]
        handles += [self.module.get_submodule(path).register_forward_hook(keep(path)) for path in paths]
        try:
            yield calls
        finally:
            for handle in handles:
                handle.remove()
