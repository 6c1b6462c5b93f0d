"""Ahead-of-time compilation of every program's kernels into cubin, PTX and launch contract. Needs no GPU."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runtime.bundle.beside import folder_beside, put_in_place
from ...runtime.bundle.errors import AntiphonError, require_extra
from ...runtime.kernels.contract import CONTRACT_VERSION, Program, image_key, parameters, to_plain
from ...runtime.kernels.library import CONTRACT_FILE, read_contract
from ..registry import FOLDERS
from . import compile_worker
from .compile_worker import Compiled, Job, compile_kernel, compiler_versions, prepare
from .programs import programs

Progress = Callable[[str, int, int, float | None], None]
"""progress(what, images done, total images, seconds left or None)."""


@dataclass(frozen=True)
class Built:
    """The compiled form of one op for one target."""

    target: str
    op: str
    programs: int
    images: int
    bytes: int
    """Size of cubins and PTX together."""
    cached: bool


@dataclass(frozen=True)
class _Part:
    """One op for one target to compile: a folder of the library."""

    target: str
    op: str
    programs: tuple[Program, ...]
    source: str
    jobs: tuple[Job, ...]


def compile_library(
    folder: str | Path,
    targets: Sequence[str],
    ops: Iterable[str] = (),
    *,
    again: bool = False,
    workers: int | None = None,
    on_progress: Progress | None = None,
) -> list[Built]:
    """Compile the programs of `ops` (default: all) for `targets` into the library at `folder`; return what it
    holds.

    An op whose kernels, contract and compiler are unchanged is kept, unless `again`. Each op's folder is
    written under a temporary name and renamed when complete. Raises AntiphonError for an unknown op or
    target, a missing compiler, and a kernel that does not compile.
    """
    require_extra("kernels", "antiphon plugins compile", "triton")
    root = Path(folder)
    versions = compiler_versions()
    parts = [
        _part(target, op, versions)
        for target in dict.fromkeys(targets)
        for op in dict.fromkeys(ops) or FOLDERS
    ]
    stale = [part for part in parts if again or not is_fresh(root, part.target, part.op, part.source)]
    if stale:
        with suppress(FileExistsError, NotADirectoryError):
            root.mkdir(parents=True, exist_ok=True)
        if not (root.is_dir() and os.access(root, os.W_OK | os.X_OK)):  # reported before minutes of compiling
            raise AntiphonError(f"{root} is no folder that can be written; give another with --library.")
        _compile(
            root,
            stale,
            versions,
            workers or len(os.sched_getaffinity(0)),
            on_progress or (lambda what, done, total, remaining: None),
        )
    return [_built(root, part, part not in stale) for part in parts]


def source_hash(target: str, op: str) -> str:
    """Hash of everything that decides the compiled form of `op` for `target`.

    That is the source of the kernels, the op's programs and the compiler versions.
    """
    return _part(target, op, compiler_versions()).source


def is_fresh(root: Path, target: str, op: str, source: str) -> bool:
    """Whether the library holds the complete files of `op` for `target`, compiled from `source`."""
    home = root / target / op
    try:
        contract = read_contract(home / CONTRACT_FILE)
        return contract.get("source") == source and all(
            hashlib.sha256((home / f"{key}.{kind}").read_bytes()).hexdigest() == image[f"{kind}_sha256"]
            for key, image in contract["images"].items()
            for kind in ("cubin", "ptx")
        )
    except (AntiphonError, OSError, AttributeError, KeyError, TypeError):
        return False


def kernel_sources(wanted: Iterable[Program]) -> list[bytes]:
    """The Triton source that the launches of `wanted` depend on: the folders they name, and the folders these
    import from."""
    folders = {step.kernel.split(".")[0] for program in wanted for step in program.launches}
    sources: dict[Path, bytes] = {}
    while unseen := [
        file
        for folder in folders
        for file in (Path(__file__).parents[1] / folder).glob("*.py")
        if file not in sources
    ]:
        sources |= {file: file.read_bytes() for file in unseen}
        folders |= {
            name
            for file in unseen
            for name in re.findall(r"from \.\.(\w+)\.", sources[file].decode())
            if b"import triton" in sources[file]
        }
    return [sources[file] for file in sorted(sources) if b"import triton" in sources[file]]


def _part(target: str, op: str, versions: dict[str, str]) -> _Part:
    wanted = tuple(programs(target, [op]))
    jobs = {
        image_key(program, step): Job(image_key(program, step), target, parameters(program, step), step)
        for program in wanted
        for step in program.launches
    }
    digest = hashlib.sha256(
        json.dumps([versions, [to_plain(program) for program in wanted]], sort_keys=True).encode()
    )
    for content in (*kernel_sources(wanted), Path(compile_worker.__file__).read_bytes()):
        digest.update(content)
    return _Part(target, op, wanted, digest.hexdigest(), tuple(jobs.values()))


def _compile(
    root: Path, parts: list[_Part], versions: dict[str, str], workers: int, progress: Progress
) -> None:
    """Compile all parts in one process pool; write a part as soon as its last image is compiled."""
    began, done, total = time.monotonic(), 0, sum(len(part.jobs) for part in parts)
    found: dict[tuple[str, str], list[Compiled]] = {(part.target, part.op): [] for part in parts}
    pool = ProcessPoolExecutor(
        min(workers, total), mp_context=multiprocessing.get_context("spawn"), initializer=prepare
    )
    try:
        with _ctrl_c_for_us_alone():  # the first submission starts the processes
            waiting: dict[Future[Compiled], _Part] = {
                pool.submit(compile_kernel, job): part for part in parts for job in part.jobs
            }
        names = {
            future: job.launch.kernel
            for future, job in zip(waiting, (job for part in parts for job in part.jobs), strict=True)
        }
        for future in as_completed(waiting):
            part = waiting[future]
            finished = found[part.target, part.op]
            try:
                finished.append(future.result())
            except BrokenProcessPool:
                raise AntiphonError(
                    f"A compiler process died at {names[future]} for {part.target}; is there enough memory?"
                ) from None
            except Exception as error:  # the compiler raises many types
                raise AntiphonError(
                    f"{names[future]} does not compile for {part.target}: "
                    f"{str(error).strip() or type(error).__name__}"
                ) from error
            done += 1
            progress(
                f"{part.target} {part.op}", done, total, (time.monotonic() - began) * (total - done) / done
            )
            if len(finished) == len(part.jobs):
                _write(root, part, finished, versions)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _write(root: Path, part: _Part, compiled: list[Compiled], versions: dict[str, str]) -> None:
    home = root / part.target / part.op
    home.parent.mkdir(parents=True, exist_ok=True)
    with folder_beside(home) as beside:
        for one in compiled:
            (beside / f"{one.key}.cubin").write_bytes(one.cubin)
            (beside / f"{one.key}.ptx").write_text(one.ptx)
        contract: dict[str, Any] = {
            "version": CONTRACT_VERSION,
            "target": part.target,
            "op": part.op,
            "compiler": versions,
            "source": part.source,
            "programs": [to_plain(program) for program in part.programs],
            "images": {one.key: to_plain(one.image) for one in sorted(compiled, key=lambda one: one.key)},
        }
        (beside / CONTRACT_FILE).write_text(json.dumps(contract, indent=1))
        put_in_place(beside, home)


@contextmanager
def _ctrl_c_for_us_alone() -> Iterator[None]:
    """Start processes that ignore Ctrl-C, which a terminal sends to the whole group.

    This process ends them, so they print no traceback. A Ctrl-C within the block is raised at its end,
    because a process that is interrupted while it starts prints one. The signal mask alone does not delay
    Ctrl-C: another thread, such as one of a numeric library, can receive it for the main thread.
    """
    held_back: list[int] = []
    is_main = threading.current_thread() is threading.main_thread()
    handler = (
        signal.signal(signal.SIGINT, lambda number, frame: held_back.append(number)) if is_main else None
    )
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if is_main:
            signal.signal(signal.SIGINT, handler)
    if held_back:
        raise KeyboardInterrupt


def _built(root: Path, part: _Part, cached: bool) -> Built:
    home = root / part.target / part.op
    size = 0
    with suppress(FileNotFoundError):  # another compilation may be replacing the folder
        size = sum(file.stat().st_size for file in home.iterdir())
    return Built(part.target, part.op, len(part.programs), len(part.jobs), size, cached)
