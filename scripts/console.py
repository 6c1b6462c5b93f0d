"""Printing helpers of the commands: units for people, tables, and a progress bar on terminals only.

rich is imported where it draws, because its import would take most of a command's start.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from . import interrupts

Report = Callable[[str, float, float, float | None], None]
"""report(what, done, total, seconds left or None)."""

_PIPE_WIDTH = 200  # columns if the output is no terminal: tables must not be cut


def seconds(value: float | None) -> str:
    """A duration for people: milliseconds below one second; a dash for None."""
    if value is None:
        return "-"
    if value < 1:
        return f"{value * 1000:.1f} ms"
    if value < 120:
        return f"{value:.2f} s"
    return f"{int(value // 60)} min {int(value % 60)} s"


def size(count: float | None) -> str:
    """Bytes for people, in powers of 1024; a dash for None."""
    if count is None:
        return "-"
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def count(value: int) -> str:
    """A number of parameters for people: 1.2 M, 30.5 B."""
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.1f} {unit}"
    return str(value)


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], last_is_total: bool = False
) -> None:
    """Print rows under columns; numeric columns are aligned to the right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if title:  # above the table, because rich would wrap it to the table's width
        print(title)
    table = Table()
    for place, column in enumerate(columns):
        words = place == 0 or any(
            not str(row[place])[:1].isdigit() and row[place] not in ("", "-") for row in rows
        )
        table.add_column(column, justify="left" if words else "right", overflow="fold")
    for index, row in enumerate(rows):
        table.add_row(
            *(Text(str(cell)) for cell in row), end_section=last_is_total and index == len(rows) - 2
        )
    console = Console(file=sys.stdout)
    (console if console.is_terminal else Console(file=sys.stdout, width=_PIPE_WIDTH)).print(table)


def print_json(value: Any) -> None:
    """Print one JSON document on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def interrupt_is_handled() -> None:
    """Clear Python's note of a handled KeyboardInterrupt; call it before leaving with an exit code.

    When an interrupt leaves an `exec` of source text (dataclasses and torch.fx run some), Python notes it as
    unhandled. Under `python -m` it then ends by SIGINT, whatever the exit code is. The next such `exec`
    clears the note.
    """
    exec("")


@contextmanager
def progress_bar() -> Iterator[Report]:
    """A bar on stderr with elapsed and remaining time; silent if stderr is not a terminal."""
    with interrupts.ending_at_once():
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda what, done, total, remaining: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[to_go]}"),
    )
    try:
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("starting", total=None, to_go="")

            def report(what: str, done: float, total: float, remaining: float | None) -> None:
                to_go = "" if remaining is None else f"{seconds(remaining)} to go"
                progress.update(task, description=what, completed=done, total=total or None, to_go=to_go)

            yield report
    finally:
        console.show_cursor()  # also after Ctrl-C while the bar is drawn or removed
