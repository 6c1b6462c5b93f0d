"""Which engine kind, target and precision each stage is built in, and whether its builder can."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ..runtime.bundle.errors import InvalidInput, UnsupportedTarget
from ..runtime.bundle.names import PRECISIONS, TARGETS
from ..runtime.bundle.said import short
from ..runtime.bundle.specs import Precision
from .engines.base import EngineBuilder
from .engines.registry import DEFAULT, builder_kinds, find_builder
from .stage_keys import StageFacts


@dataclass(frozen=True)
class EngineChoice:
    """What a build was asked for."""

    target: str
    precision: str
    """A name of bundle.names.PRECISIONS."""
    default: str
    """The engine kind of stages that `kinds` does not name."""
    kinds: Mapping[str, str]
    """Engine kinds by stage."""

    @property
    def formats(self) -> Precision:
        """The number formats of `precision`."""
        return PRECISIONS[self.precision]

    @property
    def weight_bytes(self) -> int:
        """Bytes of one stored weight."""
        return np.dtype(self.formats.weights).itemsize

    def kind(self, stage: str) -> str:
        """The engine kind of `stage`."""
        return self.kinds.get(stage, self.default)

    def builder(self, stage: str) -> EngineBuilder:
        """The builder of `stage`."""
        return find_builder(self.kind(stage))

    def check(self, facts: Iterable[StageFacts]) -> None:
        """Raise UnsupportedTarget where a stage is named that there is none of,
        or a builder refuses its stage.
        """
        found = list(facts)
        names = [entry.stage.name for entry in found]
        for name in self.kinds:
            if name not in names:
                raise UnsupportedTarget(
                    f"The checkpoint has no stage {short(name)} to choose an engine for; "
                    f"its stages are {', '.join(names)}."
                )
        for entry in found:
            refusal = self.builder(entry.stage.name).refuses(
                entry.stage, entry.forms, self.target, self.formats
            )
            if refusal is not None:
                raise UnsupportedTarget(refusal)


OTHERS = "*"
"""In place of a stage: all stages that are not named."""


def choose_engines(
    engine: str | Mapping[str, str] = DEFAULT, target: str = "cpu", precision: str = "fp32"
) -> EngineChoice:
    """Check what a build is asked for.

    Raises UnsupportedTarget for an unknown engine, target or precision, InvalidInput where `engine` is
    neither a name nor a mapping. A target is known where it is one of TARGETS, or of a chosen kind.
    """
    if not isinstance(engine, str | Mapping):
        raise InvalidInput(
            f"engine is {short(engine)}, expected the name of an engine kind, or a mapping of stage to kind."
        )
    kinds = {OTHERS: engine} if isinstance(engine, str) else dict(engine)
    default = kinds.pop(OTHERS, DEFAULT)
    targets = dict.fromkeys(TARGETS)
    for kind in (default, *kinds.values()):
        if kind not in builder_kinds():
            raise UnsupportedTarget(
                f"Unknown engine {short(kind)}; expected one of {', '.join(builder_kinds())}."
            )
        targets |= dict.fromkeys(find_builder(kind).targets())
    known = {"target": (target, tuple(targets)), "precision": (precision, tuple(PRECISIONS))}
    for name, (value, values) in known.items():
        if value not in values:
            raise UnsupportedTarget(f"Unknown {name} {short(value)}; expected one of {', '.join(values)}.")
    return EngineChoice(target, precision, default, kinds)


def parse_engines(given: Iterable[str]) -> dict[str, str]:
    """Kinds by stage, of what `--engine KIND` (all stages that are not named) and `--engine STAGE=KIND` say.

    Raises InvalidInput where a stage, or the kind of all others, is given twice.
    """
    kinds: dict[str, str] = {}
    for entry in given:
        stage, equals, kind = entry.rpartition("=")
        name = stage if equals else OTHERS
        if name in kinds:
            what = "all other stages" if name == OTHERS else f"the stage {short(name)}"
            raise InvalidInput(f"--engine names a kind for {what} twice; give one.")
        kinds[name] = kind
    return kinds
