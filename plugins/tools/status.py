"""The status of an op: its programs in this version of Antiphon, and its compiled files in a library."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ...runtime.kernels.contract import GPU_TARGETS, Program, image_key
from ...runtime.kernels.library import CONTRACT_FILE, read_contract
from .programs import programs


@dataclass(frozen=True)
class OpStatus:
    """One op as `antiphon plugins list` shows it."""

    op: str
    dtypes: tuple[str, ...]
    """Dtypes of the first floating-point input, over the op's programs."""
    programs: int
    kernels: int
    """The largest number of images per target."""
    compiled: tuple[str, ...]
    """Compiled targets in the library."""
    stale: tuple[str, ...]
    """The compiled targets whose sources or compiler have changed; empty if no compiler is installed to
    tell."""
    bytes: int
    """Size of the compiled files."""

    @property
    def state(self) -> str:
        """A text for people: not compiled, ready, or the targets that are out of date."""
        if not self.compiled:
            return "not compiled"
        return f"out of date: {', '.join(self.stale)}" if self.stale else "ready"


def op_status(library: Path, op: str) -> OpStatus:
    """The status of `op` in the library at `library`, which need not exist.

    Raises AntiphonError for an unknown op or a damaged contract.
    """
    wanted = {target: programs(target, [op]) for target in GPU_TARGETS}
    homes = {target: library / target / op for target in GPU_TARGETS}
    compiled = tuple(target for target, home in homes.items() if (home / CONTRACT_FILE).is_file())
    for target in compiled:
        read_contract(homes[target] / CONTRACT_FILE)
    return OpStatus(
        op=op,
        dtypes=tuple(dict.fromkeys(_dtype(program) for every in wanted.values() for program in every)),
        programs=max(len(every) for every in wanted.values()),
        kernels=max(
            len({image_key(program, step) for program in every for step in program.launches})
            for every in wanted.values()
        ),
        compiled=compiled,
        stale=tuple(target for target in compiled if not _is_fresh(library, target, op)),
        bytes=sum(file.stat().st_size for target in compiled for file in homes[target].iterdir()),
    )


def _dtype(program: Program) -> str:
    return next(spec.dtype for spec in program.inputs if "float" in spec.dtype)


def _is_fresh(library: Path, target: str, op: str) -> bool:
    if find_spec("triton") is None:
        return True
    from .compile import is_fresh, source_hash

    return is_fresh(library, target, op, source_hash(target, op))
