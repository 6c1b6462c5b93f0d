"""The model families by name. This is the only place that lists them: whoever needs a fact of one asks its record (`graphs.families.base.Family`).

Importing this module loads no family, and neither torch nor numpy; a family's record is loaded when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ...runtime.bundle.errors import AntiphonError

if TYPE_CHECKING:
    from ..config import OmniConfig
    from ..stage import Stage
    from .base import Family

MODULES = {"qwen3_omni_moe": ".qwen3_omni_moe.family", "qwen3_5_omni": ".qwen3_5_omni.family"}
"""The module, in this package, whose `FAMILY` is the record of each family."""
DEFAULT = "qwen3_omni_moe"
"""The family of a random checkpoint where none is named."""
_registered: dict[str, Family] = {}


def names() -> tuple[str, ...]:
    """The names of all families: Antiphon's own, then the registered ones."""
    return (*MODULES, *_registered)


def family(name: str) -> Family:
    """The record of the family `name`. Raises AntiphonError that lists the known ones."""
    if name in _registered:
        return _registered[name]
    if name not in MODULES:
        raise AntiphonError(f"Unknown family {name!r:.200}; expected one of {', '.join(names())}.")
    found: Family = import_module(MODULES[name], __package__).FAMILY
    return found


def families() -> tuple[Family, ...]:
    """The records of all families, in the order of `names`."""
    return tuple(map(family, names()))


def register(family: Family) -> None:
    """Let checkpoints of `family` be read, built, verified and made in this process.

    Raises AntiphonError where another family answers for one of its `model_types`.
    """
    for known in families():
        taken = set(known.model_types) & set(family.model_types)
        if taken:
            raise AntiphonError(
                f"The family {family.name} cannot be registered: model_type {', '.join(sorted(taken))} is taken by the family {known.name}; use another."
            )
    _registered[family.name] = family


def unregister(name: str) -> None:
    """Forget the registered family `name`. Raises AntiphonError where no such family is registered."""
    if _registered.pop(name, None) is None:
        raise AntiphonError(f"No family {name!r:.200} is registered; expected one of {', '.join(_registered) or 'none'}.")


def stages(config: OmniConfig) -> tuple[Stage, ...]:
    """All stages of the checkpoint that `config` describes, in the order they are built; see Family.stages."""
    return family(config.family).stages(config)
