"""`antiphon verify`: every engine of a bundle against its PyTorch module with the
checkpoint's own weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...graphs.checkpoints.checkpoint import Checkpoint
from ...graphs.families.registry import stages
from ...graphs.module_engine.engine import ModuleEngine
from ...graphs.stage import Stage
from ...runtime.bundle.errors import AntiphonError
from ...runtime.bundle.manifest import check_hashes, read_manifest
from ...runtime.bundle.specs import StageEntry
from ...runtime.engines.registry import find_engine
from .check_bundle import check_bundle
from .compare import Pair, compare, errors
from .conversation_calls import Stream, record_conversation
from .layers import first_diverging
from .probes import probes

TOLERANCES = {"float32": 1e-4}
"""Largest error by the format of activations, relative to the largest magnitude of the reference."""
WRONG_CODES = 0.01
"""Largest share of a codec encoder's codes that may differ from the module's: a code turns on the last bit
where two codewords are nearly equally near. Behind it the other codes of its frame quantise another
remainder, so a frame counts to its first wrong code. The latents, which are what is quantised, are held to
the tolerance of the precision.
"""

SHARES = {"token": 0.0, "codes": WRONG_CODES}
"""Rows that are judged by the share of wrong integers, with the largest share that passes."""


@dataclass(frozen=True)
class Row:
    """One output (or state) of one stage over all probe calls.

    Errors are relative to the reference's largest magnitude.

    The row `token` judges the sampling alone, by its reference on the engine's own logits: `worst` and `mean`
    are the share of wrong tokens. So they are of wrong codes in the row `codes` of the codec encoder, by the
    module's, of which WRONG_CODES may be wrong.
    """

    stage: str
    output: str
    worst: float
    mean: float
    cosine: float
    tolerance: float
    passed: bool
    first_diverging_layer: str | None = None
    """With `layers`: the first layer, in order of execution, that is out of tolerance;
    None where all layers agree or none was asked for.
    """


@dataclass(frozen=True)
class Report:
    """The result of a verification."""

    rows: tuple[Row, ...]

    @property
    def passed(self) -> bool:
        return all(row.passed for row in self.rows)


def verify(
    bundle: str | Path,
    checkpoint: str | Path,
    layers: bool = False,
    on_progress: Callable[[str, int, int], None] | None = None,
    seed: int = 0,
) -> Report:
    """Compare each stage of `bundle` with its module, teacher-forced: on random inputs from `seed`,
    and on what a short conversation on the bundle feeds it.

    `layers` also runs every layer's output and names the first that diverges.
    `on_progress(stage, number, stages)` is called before each stage. Holds one stage's weights in memory.
    Raises AntiphonError when the two do not belong together, or a file's hash is wrong.
    """
    folder = Path(bundle)
    manifest, source = read_manifest(folder), Checkpoint(checkpoint)
    if manifest.family != source.config.family:
        raise AntiphonError(
            f"The bundle {bundle} is of family {manifest.family}, "
            f"the checkpoint {checkpoint} of {source.config.family}; give its own checkpoint."
        )
    model_stages = stages(source.config)
    check_bundle(folder, manifest, model_stages)
    check_hashes(folder)
    recorded = record_conversation(folder, seed)
    rows: list[Row] = []
    for number, stage in enumerate(model_stages):
        if on_progress is not None:
            on_progress(stage.name, number, len(model_stages))
        rows += _rows_of(
            folder,
            manifest.stages[stage.name],
            stage,
            ModuleEngine(stage, source),
            recorded.get(stage.name, []),
            layers,
            seed,
        )
    return Report(tuple(rows))


def _rows_of(
    folder: Path,
    entry: StageEntry,
    stage: Stage,
    module: ModuleEngine,
    streams: Sequence[Stream],
    layers: bool,
    seed: int,
) -> list[Row]:
    tolerance = TOLERANCES[entry.precision.activations]
    calls = probes(stage, seed)
    with closing(find_engine(entry.kind, entry.name)(folder, entry)) as engine:
        pairs = compare(engine, module, [calls, *streams])
    diverging = first_diverging(folder, entry, module, calls[0], tolerance) if layers else None
    return [
        _row(stage.name, name, [pair for pair in pairs if pair[0] == name], tolerance, diverging)
        for name in dict.fromkeys(pair[0] for pair in pairs)
    ]


def _row(stage: str, name: str, pairs: list[Pair], tolerance: float, diverging: str | None) -> Row:
    worst, mean, cosine = errors(pairs)
    if name in SHARES:
        tolerance = SHARES[name]
        worst = mean = float(np.concatenate([(pair[1] != pair[2]).ravel() for pair in pairs]).mean())
    # Not a number compares false with everything, so a broken engine never passes.
    return Row(stage, name, worst, mean, cosine, tolerance, bool(worst <= tolerance), diverging)
