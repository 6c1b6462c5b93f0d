"""`antiphon verify`: every engine of a bundle against its PyTorch module with the checkpoint's own weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...graphs.checkpoints.checkpoint import Checkpoint
from ...graphs.families.registry import stages
from ...graphs.layers.decoder_specs import greedy_sampling, sampling_inputs
from ...graphs.module_engine.runner import ModuleRunner
from ...graphs.stage import Stage
from ...plugins.sample_token.reference import sample_token
from ...runtime.bundle.errors import AntiphonError
from ...runtime.bundle.manifest import Manifest, check_hashes, read_manifest
from ...runtime.engines.onnxruntime.engine import OnnxEngine
from ..engines.onnxruntime.layer_taps import layer_values, session_with_outputs
from .check_bundle import check_bundle
from .probes import Feeds, probes

TOLERANCES = {"float32": 1e-4}
"""Largest error by the format of activations, relative to the largest magnitude of the reference."""
WRONG_CODES = 0.01
"""Largest share of a codec encoder's codes that may differ from the module's: a code turns on the last bit where two codewords are nearly equally near.
Behind it the other codes of its frame quantise another remainder, so a frame counts to its first wrong code. The latents, which are what is quantised,
are held to the tolerance of the precision."""

SHARES = {"token": 0.0, "codes": WRONG_CODES}
"""Rows that are judged by the share of wrong integers, with the largest share that passes."""


@dataclass(frozen=True)
class Row:
    """One output (or state) of one stage over all probe calls. Errors are relative to the reference's largest magnitude.

    The row `token` judges the sampling alone, by its reference on the engine's own logits: `worst` and `mean` are the share of wrong tokens. So they are
    of wrong codes in the row `codes` of the codec encoder, by the module's, of which WRONG_CODES may be wrong.
    """

    stage: str
    output: str
    worst: float
    mean: float
    cosine: float
    tolerance: float
    passed: bool
    first_diverging_layer: str | None = None
    """With `layers`: the first layer, in order of execution, that is out of tolerance; None where all layers agree or none was asked for."""


@dataclass(frozen=True)
class Report:
    """The result of a verification."""

    rows: tuple[Row, ...]

    @property
    def passed(self) -> bool:
        return all(row.passed for row in self.rows)


Pair = tuple[str, np.ndarray, np.ndarray]
"""Name, reference, found."""


def verify(
    bundle: str | Path, checkpoint: str | Path, layers: bool = False, on_progress: Callable[[str, int, int], None] | None = None, seed: int = 0
) -> Report:
    """Compare each stage of `bundle` with its module, teacher-forced, on random inputs from `seed`.

    `layers` also runs every layer's output and names the first that diverges. `on_progress(stage, number, stages)` is called before each
    stage. Holds one stage's weights in memory. Raises AntiphonError when the two do not belong together, or a file's hash is wrong.
    """
    folder = Path(bundle)
    manifest, source = read_manifest(folder), Checkpoint(checkpoint)
    if manifest.family != source.config.family:
        raise AntiphonError(
            f"The bundle {bundle} is of family {manifest.family}, the checkpoint {checkpoint} of {source.config.family}; give its own checkpoint."
        )
    made = stages(source.config)
    check_bundle(folder, manifest, made)
    check_hashes(folder)
    rows: list[Row] = []
    for number, stage in enumerate(made):
        if on_progress is not None:
            on_progress(stage.name, number, len(made))
        rows += _verify_stage(folder, manifest, stage, ModuleRunner(stage, source), layers, seed)
    return Report(tuple(rows))


def _verify_stage(folder: Path, manifest: Manifest, stage: Stage, runner: ModuleRunner, layers: bool, seed: int) -> list[Row]:
    entry = manifest.stages[stage.name]
    tolerance = TOLERANCES[entry.precision.activations]
    calls = probes(stage, seed)
    compare = _compare_frames if stage.name == "predictor" else _compare_calls
    pairs = compare(OnnxEngine(folder / entry.artifacts[0], entry), runner, calls)
    diverging = _first_diverging(folder / entry.artifacts[0], runner, calls, tolerance) if layers else None
    return [_row(stage.name, name, [pair for pair in pairs if pair[0] == name], tolerance, diverging) for name in dict.fromkeys(pair[0] for pair in pairs)]


def _compare_calls(engine: OnnxEngine, runner: ModuleRunner, calls: list[Feeds]) -> list[Pair]:
    states = engine.new_states().allocate()
    rows = sum(_rows(feeds) for feeds in calls)
    states.reserve(rows)
    reference_states = runner.empty_states(rows)
    pairs: list[Pair] = []
    for feeds in calls:
        expected = runner.run(feeds, reference_states)
        found = engine.run(feeds, (states,) if engine.entry.states else ())
        states.advance(_rows(feeds))
        pairs += [(spec.name, expected[spec.name], found[spec.name]) for spec in engine.entry.outputs if spec.dtype == "float32"]
        if "token" in found:
            pairs.append(("token", _sampled(feeds, found["logits"]), found["token"]))
        if "codes" in found:
            pairs.append(("codes", *_until_wrong(expected["codes"], found["codes"])))
    for state in engine.entry.states:
        used = tuple(slice(rows) if axis == "capacity" else slice(None) for axis in state.shape)
        pairs.append((f"states ({state.kind})", reference_states[state.name][used], states.past(state.name)[used]))
    return pairs


def _until_wrong(expected: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The codes [codes] of both, int64 [batch, frames, codebooks], that are judged: of every frame those to its first wrong one."""
    right = np.logical_and.accumulate(expected == found, axis=-1)
    judged = np.concatenate([np.ones_like(right[..., :1]), right[..., :-1]], axis=-1)
    return expected[judged], found[judged]


def _compare_frames(engine: OnnxEngine, runner: ModuleRunner, calls: list[Feeds]) -> list[Pair]:
    pairs: list[Pair] = []
    for feeds in calls:
        found = engine.run(feeds)
        logits, frame_row = _module_frame(runner, feeds, found["codes"])
        pairs += [("logits", logits, found["logits"]), ("frame_row", frame_row, found["frame_row"])]
        pairs.append(("token", _sampled_frame(feeds, found["logits"]), found["codes"]))
    return pairs


def _sampled(feeds: Feeds, logits: np.ndarray) -> np.ndarray:
    """The tokens int64 [rows] that belong to an engine's own `logits` [rows, vocab]; -1, which no engine gives, where they are not finite."""
    settings = [feeds[spec.name] for spec in sampling_inputs(logits.shape[1])]
    tokens = np.full(len(logits), -1, np.int64)
    rows = np.isfinite(logits).all(axis=1)
    tokens[rows] = sample_token(logits[rows].astype(np.float64), *(setting[rows] for setting in settings))
    return tokens


def _sampled_frame(feeds: Feeds, logits: np.ndarray) -> np.ndarray:
    """The codes int64 [batch, groups] that belong to the predictor's own `logits` [batch, groups - 1, codebook]."""
    batch, steps, codebook = logits.shape
    nothing = greedy_sampling(batch, codebook)  # a frame neither penalises nor suppresses
    codes = [_sampled(nothing | feeds | {"noise": feeds["noise"][:, step]}, logits[:, step]) for step in range(steps)]
    return np.stack([feeds["code0"], *codes], axis=1)


def _module_frame(runner: ModuleRunner, feeds: Feeds, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The module's steps, forced to the engine's `codes` [batch, groups]: logits [batch, groups - 1, codebook] and the frame row."""
    example = runner.stage.example()
    batch, groups = codes.shape
    states = runner.empty_states(groups)
    logits, rows = [], []
    for step in range(groups - 1):
        hidden = feeds["hidden"][:, None] if step == 0 else feeds["hidden"][:, None][:, :0]
        bound = {name: value[:batch] for name, value in example.items()}
        bound |= {"hidden": hidden, "code": codes[:, step], "step": np.array([step]), "past_length": np.full(batch, step + 1 if step else 0)}
        outputs = runner.run(bound, states)
        logits.append(outputs["logits"])
        rows.append(outputs["code_row"])
    table = runner.module.get_parameter("code_embedding").numpy()
    codebook = runner.stage.size("codebook_size")
    rows.append(table[codes[:, -1] + (groups - 1) * codebook])
    return np.stack(logits, axis=1), np.sum(rows, axis=0)


def _first_diverging(engine: Path, runner: ModuleRunner, calls: list[Feeds], tolerance: float) -> str | None:
    """Compare the first call layer by layer; for the predictor every step of a frame."""
    values = layer_values(engine.parent / "portable.onnx", runner.module)
    feeds = calls[0]
    is_frame = runner.stage.name == "predictor"
    steps = runner.stage.size("code_groups") - 1 if is_frame else 1
    names = {(step, path): f"step{step}.{name}" if is_frame else name for step in range(steps) for path, name in values.items()}
    session, found_names = session_with_outputs(engine, list(names.values()))
    states = {} if is_frame else {f"past.{name}": value for name, value in runner.empty_states(_rows(feeds)).items()}
    wanted = [*found_names, *(["codes"] if is_frame else [])]
    found = dict(zip(wanted, session.run(wanted, feeds | states), strict=True))
    with runner.recorded(list(values)) as recorded:
        if is_frame:
            _module_frame(runner, feeds, found["codes"])
        else:
            runner.run(feeds, {name.removeprefix("past."): value for name, value in states.items()})
    for (step, path), name in names.items():
        if name in found and path in recorded[step] and np.issubdtype(recorded[step][path].dtype, np.floating):  # a codebook gives codes
            expected = recorded[step][path]
            assert found[name].size == expected.size, f"{name} is not the output of {path}"
            if not _errors([("", expected, found[name])])[0] <= tolerance:
                return f"step {step}, {path}" if is_frame else path
    return None


def _rows(feeds: Feeds) -> int:
    """Rows that a call adds to the states' length."""
    return int(feeds["query_length"][0]) if "query_length" in feeds else feeds["codes"].shape[1] if "codes" in feeds else 0


def _row(stage: str, name: str, pairs: list[Pair], tolerance: float, diverging: str | None) -> Row:
    worst, mean, cosine = _errors(pairs)
    if name in SHARES:
        tolerance = SHARES[name]
        worst = mean = float(np.concatenate([(pair[1] != pair[2]).ravel() for pair in pairs]).mean())
    # Not a number compares false with everything, so a broken engine never passes.
    return Row(stage, name, worst, mean, cosine, tolerance, bool(worst <= tolerance), diverging)


def _errors(pairs: list[Pair]) -> tuple[float, float, float]:
    expected = np.concatenate([pair[1].ravel() for pair in pairs]).astype(np.float64)
    found = np.concatenate([pair[2].ravel() for pair in pairs]).astype(np.float64)
    scale = max(float(np.abs(expected).max(initial=0.0)), np.finfo(np.float32).tiny)
    difference = np.abs(expected - found) / scale
    norms = float(np.linalg.norm(expected) * np.linalg.norm(found))
    cosine = float(expected @ found) / norms if norms else float(np.array_equal(expected, found))
    return float(difference.max(initial=0.0)), float(difference.mean()) if difference.size else 0.0, cosine
