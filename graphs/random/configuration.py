"""The `config.json` of a random checkpoint of any family."""

from __future__ import annotations

import copy
from typing import Any

from ...runtime.bundle.errors import AntiphonError
from ..families.registry import DEFAULT
from ..families.registry import family as find_family
from .tokenizer import TokenIds


def configuration(
    size: str, tokens: TokenIds, dtype: str, overrides: dict[str, Any] | None = None, family: str = DEFAULT
) -> dict[str, Any]:
    """The `config.json` object for a `size` of `family`, changed by `overrides` (dotted path -> value).

    Raises AntiphonError for an unknown family or size, or a path that does not exist.
    """
    recipe = find_family(family).random()
    if size not in recipe.sizes:
        raise AntiphonError(f"Unknown size {size!r:.60}; expected one of {', '.join(recipe.sizes)}.")
    config = copy.deepcopy(recipe.configuration(size, tokens, dtype))
    for path, value in (overrides or {}).items():
        *sections, name = path.split(".")
        node: Any = config
        for section in sections:
            node = node.get(section) if isinstance(node, dict) else None
        if not isinstance(node, dict) or name not in node:
            raise AntiphonError(
                f"Override {path!r} names nothing in the configuration; "
                "expected a dotted path of config.json."
            )
        node[name] = value
    return config
