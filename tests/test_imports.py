"""The floors of the house: no import runs in a circle or upward, also not inside a function,
under TYPE_CHECKING or by a name given to importlib.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ("runtime.bundle", "runtime", "plugins", "graphs", "calibration", "export", "scripts")
"""Packages from the ground up. A module imports from its own floor and from those below it."""
ROOMS = ("runtime", "plugins", "graphs", "calibration", "export", "scripts")
"""Folders with product code.

The package itself stands on no floor: its `__init__` fetches public names from everywhere when they
are first used, and makes Ctrl-C wait before anything is imported (scripts.interrupts, which imports
nothing of the product).
"""
ENGINE_LIBRARY, ENGINE_ROOM = "onnxruntime", "runtime.engines.onnxruntime"

CIRCLES: tuple[frozenset[str], ...] = ()
"""Circles that are known and not yet gone."""
UPWARD: frozenset[tuple[str, str]] = frozenset()
"""(importer, imported) of upward imports that are known and not yet gone."""
LIBRARY_OUTSIDE: frozenset[str] = frozenset()
"""Modules that still import the engine library themselves."""

Edges = dict[str, set[str]]


def modules() -> dict[str, Path]:
    """Every product module by its name below the package."""
    files = (path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in files
    }


def imports(name: str, source: str, is_package: bool) -> Iterator[str]:
    """Regular expressions of the modules that `source`, the module `name`, imports:
    names relative to the product's package, else whole.
    """
    package, tree = name if is_package else name.rpartition(".")[0], ast.parse(source)
    registries = dict(_registries(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield re.escape(alias.name.removeprefix("antiphon."))
        elif isinstance(node, ast.ImportFrom):
            base = _resolved("." * node.level + (node.module or ""), package)
            for alias in node.names:
                yield re.escape(f"{base}.{alias.name}".strip("."))
        elif (
            isinstance(node, ast.Call)
            and _called(node) in ("import_module", "find_spec", "__import__")
            and node.args
        ):
            for pattern in _patterns(node.args[0], registries):
                yield pattern if not pattern.startswith(r"\.") else _resolved_pattern(pattern, package)


def _registries(tree: ast.Module) -> Iterator[tuple[str, list[str]]]:
    """Dictionaries of texts at the top level, by name: what a registry may look up and import."""
    for node in tree.body:
        target = (
            node.targets[0]
            if isinstance(node, ast.Assign)
            else node.target
            if isinstance(node, ast.AnnAssign)
            else None
        )
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        if isinstance(target, ast.Name) and isinstance(value, ast.Dict):
            yield (
                target.id,
                [
                    entry.value
                    for entry in value.values
                    if isinstance(entry, ast.Constant) and isinstance(entry.value, str)
                ],
            )


def _called(node: ast.Call) -> str:
    return (
        node.func.attr
        if isinstance(node.func, ast.Attribute)
        else node.func.id
        if isinstance(node.func, ast.Name)
        else ""
    )


def _patterns(argument: ast.expr, registries: dict[str, list[str]]) -> list[str]:
    """What a name given to importlib matches: a placeholder of an f-string is one or more parts,
    an entry of a registry any of them. Nothing where no literal says it.
    """
    if isinstance(argument, ast.Subscript) and isinstance(argument.value, ast.Name):
        return [re.escape(text).removeprefix(r"antiphon\.") for text in registries.get(argument.value.id, [])]
    pieces = argument.values if isinstance(argument, ast.JoinedStr) else [argument]
    texts = [
        re.escape(str(piece.value)) if isinstance(piece, ast.Constant) else r"[\w.]+" for piece in pieces
    ]
    return (
        ["".join(texts).removeprefix(r"antiphon\.")]
        if any(isinstance(piece, ast.Constant) for piece in pieces)
        else []
    )


def _resolved(name: str, package: str) -> str:
    """A relative name as one below the product's package; an absolute one without the product's name."""
    dots = len(name) - len(name.lstrip("."))
    if not dots:
        return name.removeprefix("antiphon.")
    parts = package.split(".")
    return ".".join([*parts[: len(parts) - dots + 1], *filter(None, [name[dots:]])])


def _resolved_pattern(pattern: str, package: str) -> str:
    dots = re.match(r"(\\\.)*", pattern)
    assert dots is not None
    base = _resolved("." * (dots.end() // 2), package)
    return r"\.".join(filter(None, [re.escape(base), pattern[dots.end() :]]))


def edges(sources: dict[str, tuple[str, bool]]) -> Edges:
    """Which modules each module imports. `sources`: text, and whether the module is a package, by name."""
    found: Edges = {}
    for name, (source, is_package) in sources.items():
        found[name] = set()
        for pattern in imports(name, source, is_package):
            if r"[\w.]+" in pattern:
                found[name] |= {other for other in sources if re.fullmatch(pattern, other)}
                continue
            plain = re.sub(r"\\(.)", r"\1", pattern)
            # a name of a module, or a module of a package
            target = plain if plain in sources else plain.rpartition(".")[0]
            found[name] |= {target} & sources.keys()
        found[name].discard(name)
    return found


def circles(graph: Edges) -> list[frozenset[str]]:
    """The sets of modules that import each other (strongly connected components of more than one module;
    Tarjan 1972).
    """
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[frozenset[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(graph[name]):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            place = stack.index(name)
            if len(stack) - place > 1:
                found.append(frozenset(stack[place:]))
            del stack[place:]

    for name in sorted(graph):
        if name not in index:
            visit(name)
    return found


def floor(name: str) -> int:
    """The number of the floor that module `name` is on, counted from the ground."""
    on = [room for room in FLOORS if name == room or name.startswith(f"{room}.")]
    return FLOORS.index(max(on, key=len))


def upward(graph: Edges) -> set[tuple[str, str]]:
    """Imports from a floor of one above it."""
    return {(name, other) for name, others in graph.items() for other in others if floor(other) > floor(name)}


def importers_of(library: str, sources: dict[str, tuple[str, bool]]) -> set[str]:
    """Modules that import `library` or a module of it."""
    named = re.compile(rf"{library}(\\?\.|$)")
    return {
        name
        for name, (source, is_package) in sources.items()
        if any(named.match(pattern) for pattern in imports(name, source, is_package))
    }


@pytest.fixture(scope="module")
def sources() -> dict[str, tuple[str, bool]]:
    return {
        name: (path.read_text(encoding="utf-8"), path.name == "__init__.py")
        for name, path in modules().items()
    }


@pytest.fixture(scope="module")
def graph(sources: dict[str, tuple[str, bool]]) -> Edges:
    return edges(sources)


def test_no_modules_import_each_other_in_a_circle(graph: Edges) -> None:
    found = set(circles(graph))
    assert not found - set(CIRCLES), [sorted(circle) for circle in found - set(CIRCLES)]
    assert not set(CIRCLES) - found, "a known circle is gone; take it off the list"


def test_no_import_runs_upward(graph: Edges) -> None:
    found = upward(graph)
    assert not found - UPWARD, sorted(found - UPWARD)
    assert not UPWARD - found, "a known upward import is gone; take it off the list"


def test_the_engine_library_is_imported_in_its_room_alone(sources: dict[str, tuple[str, bool]]) -> None:
    found = {
        name for name in importers_of(ENGINE_LIBRARY, sources) if not f"{name}.".startswith(f"{ENGINE_ROOM}.")
    }
    assert found == LIBRARY_OUTSIDE, sorted(found ^ LIBRARY_OUTSIDE)
    assert importers_of(ENGINE_LIBRARY, sources) - found


def of(**texts: str) -> dict[str, tuple[str, bool]]:
    """Sources by name; `__` stands for a point."""
    return {name.replace("__", "."): (text, False) for name, text in texts.items()}


@pytest.mark.parametrize(
    "text",
    [
        "from . import b",
        "from .b import name",
        "from antiphon.runtime.b import name",
        "import antiphon.runtime.b",
        "def later():\n    from .b import name",
        "if TYPE_CHECKING:\n    from .b import name",
        "import_module('.b', __package__)",
        "importlib.import_module('antiphon.runtime.b')",
        "find_spec(f'..runtime.{name}', __package__)",
        "import_module(f'antiphon.{name}.b')",
        "KINDS = {'b': 'antiphon.runtime.b'}\nimport_module(KINDS[kind])",
        "KINDS: dict[str, str] = {'b': '.b'}\ndef find(kind):\n"
        "    return import_module(KINDS[kind], __package__)",
    ],
)
def test_every_way_to_import_counts(text: str) -> None:
    graph = edges(of(runtime__a=text, runtime__b="", graphs__c=""))
    assert graph["runtime.a"] == {"runtime.b"}


def test_circles_and_upward_imports_are_found() -> None:
    graph = edges(
        of(
            runtime__a="from .b import x",
            runtime__b="from . import c",
            runtime__c="from .a import y",
            runtime__bundle__d="from ..a import z",
        )
    )
    assert circles(graph) == [frozenset({"runtime.a", "runtime.b", "runtime.c"})]
    assert upward(graph) == {("runtime.bundle.d", "runtime.a")}
    library = of(
        a="import onnxruntime as ort",
        b="from onnxruntime.quantization import x",
        c="import onnxruntime_extras",
    )
    assert importers_of("onnxruntime", library) == {"a", "b"}
