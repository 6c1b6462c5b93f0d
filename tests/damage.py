"""Ways to damage files, shared by the tests of what reads them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

DELETED = object()
_WHOLE = (0, -1, 1, 2, 7, 255, 256, 10**9, 2**31, 2**63 - 1, 2**63, -(2**63), 10**30)
_FLOATS = (0.0, -0.5, 0.5, 1e-300, 1e300)
_TEXTS = ("", "a", "..", "/", "batch", "capacity", "\ud800", "0" * 500)
_CONTAINERS = ([], [-1], [10**9], ["x"], {}, {"x": 1})
STRANGE: tuple[Any, ...] = (DELETED, None, True, False, *_WHOLE, *_FLOATS, *_TEXTS, *_CONTAINERS)
"""What takes the place of a value."""


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of every value inside `value`."""
    for key, item in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield (*path, key)
        yield from places(item, (*path, key))


def changed(content: Any, place: tuple[str | int, ...], value: Any) -> Any:
    """A copy of `content` with `value` at `place`, or without it where `value` is DELETED."""
    result = node = copy.copy(content)
    for key in place[:-1]:
        node[key] = node = copy.copy(node[key])
    if value is DELETED:
        del node[place[-1]]
    else:
        node[place[-1]] = value
    return result


def one_change(content: Any) -> st.SearchStrategy[Any]:
    """`content` with one value replaced, deleted, or exchanged with that of another place."""
    found = list(places(content))
    strange = st.builds(
        lambda place, value: changed(content, place, value), st.sampled_from(found), st.sampled_from(STRANGE)
    )
    return strange | st.builds(
        lambda place, other: changed(content, place, _at(content, other)),
        st.sampled_from(found),
        st.sampled_from(found),
    )


def _at(content: Any, place: tuple[str | int, ...]) -> Any:
    for key in place:
        content = content[key]
    return content


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def exchange(path: Path) -> None:
    """As many other bytes, as a bundle of other weights has them."""
    path.write_bytes(path.read_bytes()[::-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def delete(path: Path) -> None:
    path.unlink()


DAMAGE = {"cut": cut, "flipped": flip, "of other weights": exchange, "emptied": empty, "deleted": delete}
