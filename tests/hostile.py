"""Ways to spoil the files of a checkpoint, and what must come of it:
either it works, or one bounded sentence, soon and in little memory.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from antiphon.runtime.bundle.errors import AntiphonError

LONGEST_SENTENCE = 900
SLOWEST = 5.0
"""Seconds of processor time for one file; a second on an idle machine."""
STRANGE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 40),
    st.sampled_from([10**6, 2**31, 2**63, 10**400, -(10**400), 0.5, -1.5, 1e300, 5e-324]),
    st.text(max_size=4),
    st.sampled_from(["x" * 100_000, "a\nb", "\x00", "../x", "\ud83d\ude00"]),
    st.just([]),
    st.just({}),
    st.lists(st.integers(0, 9), max_size=3),
    st.just([7] * 5000),
    st.just([[[[]]]]),
    st.just({"x" * 5000: 1}),
    st.just({"": {"a": None}}),
)

INSERTED = [b"[" * 5000, b'{"a":' * 5000, b"Infinity", b"\xff\xfe", b"9" * 5000, b"\\ud800", b"\x00"]


@st.composite
def spoiled(draw: st.DrawFn, tree: Any) -> Any:
    """`tree` with one to three of its nodes replaced, removed, doubled or exchanged."""
    root = [copy.deepcopy(tree)]
    for _ in range(draw(st.integers(1, 3))):
        holder, key = draw(st.sampled_from(_places(root)))
        way = draw(st.sampled_from(["replace", "replace", "remove", "double", "exchange", "wrap"]))
        if way == "replace":
            holder[key] = copy.deepcopy(draw(STRANGE))
        elif way == "wrap":
            holder[key] = [holder[key]]
        elif way == "exchange":
            other, name = draw(st.sampled_from(_places(root)))
            holder[key], other[name] = copy.deepcopy(other[name]), copy.deepcopy(holder[key])
        elif holder is not root and way == "remove":
            del holder[key]
        elif isinstance(holder, list):
            holder.append(holder[key])
        elif holder is not root:
            holder[f"{key}{key}"] = holder[key]
    return root[0]


def _places(root: list[Any]) -> list[tuple[Any, Any]]:
    """Every (holder, key) in the tree; of long lists and tables the first and the last alone."""
    found: list[tuple[Any, Any]] = []
    row: list[Any] = [root]
    while row:
        holder = row.pop()
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        for key in keys if len(keys) < 200 else (*keys[:3], keys[-1]):
            found.append((holder, key))
            if isinstance(holder[key], dict | list) and len(found) < 3000:
                row.append(holder[key])
    return found


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """`content` cut off, with bytes flipped, or with a piece repeated."""
    place = draw(st.integers(0, max(len(content) - 1, 0)))
    way = draw(st.sampled_from(["cut", "flip", "insert", "repeat"]))
    if way == "cut":
        return content[:place]
    if way == "flip":
        return content[:place] + bytes([draw(st.integers(0, 255))]) + content[place + 1 :]
    if way == "insert":
        return content[:place] + draw(st.sampled_from(INSERTED)) + content[place:]
    return content[:place] + content[place : place + 50] * 20 + content[place:]


def spoiled_bytes(content: bytes) -> st.SearchStrategy[bytes]:
    """The bytes of a JSON file, its tree or its bytes spoiled."""
    return st.one_of(
        spoiled(json.loads(content)).map(lambda tree: json.dumps(tree).encode()), damaged(content)
    )


def works_or_one_sentence(call: Callable[[], object]) -> str | None:
    """What `call` said if it refused; anything but a return or one bounded sentence fails,
    as does a call that takes long.
    """
    before = time.process_time()
    said = None
    try:
        call()
    except AntiphonError as error:
        said = str(error)
        assert len(said) < LONGEST_SENTENCE and said.isprintable() and said.endswith("."), said[:2000]
    assert time.process_time() - before < SLOWEST
    return said
