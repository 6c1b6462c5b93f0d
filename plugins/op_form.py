"""One use of an op of ai.antiphon in a stage, as plain data: what a lowering may refuse by."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class OpForm:
    """One use of an op."""

    op: str
    """Its name in plugins.registry."""
    node: str
    """Path of the module that calls it, such as layers.0.feed_forward."""
    attributes: tuple[tuple[str, float], ...]
    inputs: tuple[tuple[str, str, tuple[int, ...]], ...]
    """(name, dtype, shape of the example) of each input."""

    def attribute(self, name: str) -> float:
        """The value of the attribute `name`."""
        return dict(self.attributes)[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """The example's shape of the input `name`."""
        return next(shape for given, _, shape in self.inputs if given == name)
