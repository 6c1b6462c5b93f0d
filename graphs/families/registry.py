"""The model families by name. Only this module lists them; their facts are in `graphs.families.base.Family`.

Importing this module imports no family and neither torch nor numpy. A record is loaded at its first use.
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
"""Family -> module of this package whose `FAMILY` is its record."""
DEFAULT = "qwen3_omni_moe"
"""The default family of a random checkpoint."""
_registered: dict[str, Family] = {}


def names() -> tuple[str, ...]:
    """The names of all families: the built-in ones, then the registered ones."""
    return (*MODULES, *_registered)


def family(name: str) -> Family:
    """The record of the family `name`. Raises AntiphonError, with all names, if there is none."""
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
    """Add `family` in this process: its checkpoints can then be read, built, verified and made.

    Raises AntiphonError if one of its `model_types` belongs to another family.
    """
    for known in families():
        taken = set(known.model_types) & set(family.model_types)
        if taken:
            raise AntiphonError(
                f"The family {family.name} cannot be registered: "
                f"model_type {', '.join(sorted(taken))} is taken by the family {known.name}; use another."
            )
    _registered[family.name] = family


def unregister(name: str) -> None:
    """Remove the registered family `name`. Raises AntiphonError if no such family is registered."""
    if _registered.pop(name, None) is None:
        raise AntiphonError(
            f"No family {name!r:.200} is registered; expected one of {', '.join(_registered) or 'none'}."
        )


def stages(config: OmniConfig) -> tuple[Stage, ...]:
    """All stages of a checkpoint of `config`, in build order; see Family.stages."""
    return family(config.family).stages(config)
