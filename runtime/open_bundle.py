"""From a bundle's folder to its manifest, front end and engines, all checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .bundle.errors import UnsupportedTarget, as_broken_bundle
from .bundle.manifest import Manifest, read_manifest
from .bundle.manifest import check_hashes as check_all_hashes
from .bundle.names import NOT_RUN
from .bundle.said import short_path
from .check_manifest import check_front_end, check_manifest
from .engines.base import Engine
from .engines.registry import engine_targets, find_engine
from .frontend.media.media_policy import LOCAL, MediaPolicy
from .frontend.prompt.front_end import FrontEnd
from .stages.voices import read_voice_table


@dataclass(frozen=True)
class OpenedBundle:
    """What an Omni is made of."""

    manifest: Manifest
    engines: dict[str, Engine]
    """By stage; those of NOT_RUN are not opened."""
    front_end: FrontEnd
    voice_table: np.ndarray | None
    """See voices.read_voice_table."""


def open_bundle(
    folder: Path, threads: int | None = None, check_hashes: bool = False, media: MediaPolicy = LOCAL
) -> OpenedBundle:
    """Open the bundle in `folder`; for the arguments see omni.load.

    Raises AntiphonError in one sentence for anything that does not fit.
    """
    with as_broken_bundle():
        manifest = read_manifest(folder)
        _check_targets(folder, manifest)
        if check_hashes:
            check_all_hashes(folder)
        table = (
            read_voice_table(folder / "frontend")
            if manifest.talker and manifest.talker.voice == "frames"
            else None
        )
        check_manifest(manifest, table)
        front_end = FrontEnd(folder / "frontend", media, manifest.constants.thinker_context)
        check_front_end(front_end, manifest)
    engines: dict[str, Engine] = {}
    try:
        for name, entry in manifest.stages.items():
            if name not in NOT_RUN:
                engines[name] = find_engine(entry.kind, name)(folder, entry, threads)
    except BaseException:
        for engine in engines.values():
            engine.close()
        raise
    return OpenedBundle(manifest, engines, front_end, table)


def _check_targets(folder: Path, manifest: Manifest) -> None:
    """Raise UnsupportedTarget where a kind opens no engines for the target of the bundle or of a stage."""
    for name, entry in manifest.stages.items():
        known = engine_targets(entry.kind, name)
        for target in (manifest.target, entry.target):
            if target not in known:
                raise UnsupportedTarget(
                    f"The bundle {short_path(folder)} was built for {target:.60}, "
                    f"not for {' or '.join(known)}; build it again with --target {known[0]}."
                )
