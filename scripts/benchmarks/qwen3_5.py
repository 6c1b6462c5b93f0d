"""Benchmarks of Qwen3.5-Omni's decoders: against transformers, in spoken answers, by context length.

    python -m antiphon.scripts.benchmarks.qwen3_5 CHECKPOINT BUNDLE [--threads 2] [--runs 5] [--tokens 48]
        [--frames 48] [--steps 40] [--lengths 2000,20000,200000] [--json FILE]

There are three measurements in one process, in float32 and on the same threads. First, the Thinker's greedy
decode and prefill alternate with HF Qwen3_5MoeForCausalLM on the same weights and prompt; per stage the
fastest of its experts implementations counts. The checkpoint must hold the Thinker under transformers' names:
`new_checkpoint(..., layout="fused", linear_layout="split")`. Second, whole spoken answers, which transformers
cannot give: ours alone is reported. Third, ONNX Runtime's profile of single decode steps, alternating between
several context lengths, gives the time of the recurrent layers and of full attention. All figures are medians
of warm runs.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from ...graphs.checkpoints.checkpoint import Checkpoint
from ...runtime.bundle.errors import AntiphonError
from ...runtime.bundle.manifest import read_manifest
from ...runtime.engines.onnxruntime.engine import OnnxEngine
from ...runtime.engines.onnxruntime.library import onnxruntime
from ...runtime.engines.onnxruntime.sessions import make_session
from ...runtime.states.pool import Slot, StatePool
from ..bench import _prompt
from ..console import print_table
from .bound import step_feeds
from .transformers import EXPERTS, LONG_PROMPT, PROMPT

WARM_STEPS = 3
RECURRENT, FULL, OTHER = "recurrent layers", "full attention, cache read", "full attention, the rest"
REST = "experts, norms, head"
DECODE, PREFILL = "decode_token", f"prefill_{LONG_PROMPT}"
SPOKEN = (
    "seconds_per_token",
    "seconds_per_frame",
    "seconds_per_vocoder_frame",
    "time_to_first_audio",
    "total",
    "real_time_factor",
)


class Ours:
    """The bundle."""

    def __init__(self, bundle: str, threads: int, tokens: int, frames: int) -> None:
        from ...runtime.omni import load

        self.omni, self.tokens, self.frames = load(bundle, max_streams=1, threads=threads), tokens, frames
        self.messages = _prompt(self.omni, PROMPT)
        self.prompt_ids = [int(token) for token in self.omni.front_end.prompt(self.messages).token_ids]
        self.exact = {"greedy": True, "max_text_tokens": tokens, "min_text_tokens": tokens}

    def decode(self) -> tuple[float, list[int]]:
        """Seconds of a decode step, and the ids of a greedy answer."""
        reply = self.omni.generate(self.messages, **self.exact, modalities=("text",))
        assert reply.timings.seconds_per_token is not None
        return reply.timings.seconds_per_token, list(reply.token_ids)

    def prefill(self, token_ids: np.ndarray) -> float:
        """Seconds to prefill `token_ids` into an empty context."""
        context = self.omni.model.thinker.new_context()
        context.queue_text(token_ids)
        began = time.perf_counter()
        self.omni.model.thinker.prefill(context, lambda: None)
        return time.perf_counter() - began

    def speak(self, runs: int) -> dict[str, float]:
        """Medians of the timings of spoken answers."""
        replies = [
            self.omni.generate(self.messages, **self.exact, max_frames=self.frames, min_frames=self.frames)
            for _ in range(runs + 1)
        ][1:]
        assert all(len(reply.codes) == self.frames for reply in replies)
        return {name: statistics.median(getattr(reply.timings, name) for reply in replies) for name in SPOKEN}


class Theirs:
    """HF Qwen3_5MoeForCausalLM with the Thinker's weights.

    Raises AntiphonError where the checkpoint holds them under other names.
    """

    def __init__(self, checkpoint: str, ends: Sequence[int]) -> None:
        import torch
        from transformers.models.qwen3_5_moe import Qwen3_5MoeForCausalLM, Qwen3_5MoeTextConfig

        self.torch, self.ends = torch, list(ends)
        stored, root = (
            Checkpoint(checkpoint),
            json.loads((Path(checkpoint) / "config.json").read_text(encoding="utf-8")),
        )
        text = root["thinker_config"]["text_config"]
        config = Qwen3_5MoeTextConfig(
            **{
                name: value
                for name, value in text.items()
                if name not in ("model_type", "architectures", "dtype")
            }
        )
        with torch.device("meta"):
            shapes = {
                name: tuple(value.shape) for name, value in Qwen3_5MoeForCausalLM(config).state_dict().items()
            }
        absent = next((name for name in shapes if not stored.has(f"thinker.{name}")), None)
        if absent is not None:
            wanted = 'new_checkpoint(..., family="qwen3_5_omni", layout="fused", linear_layout="split")'
            raise AntiphonError(
                f"{checkpoint} has no tensor thinker.{absent}, expected the Thinker under transformers' "
                f"names; make one with {wanted}."
            )
        for name, shape in shapes.items():
            stored.expect_shape(f"thinker.{name}", shape)
        # also computes the rotary tables, which no checkpoint holds
        self.model = Qwen3_5MoeForCausalLM._from_config(config, dtype=torch.float32).eval()
        self.model.load_state_dict(
            {name: torch.from_numpy(stored.read(f"thinker.{name}")) for name in shapes}
        )

    def decode(
        self, experts: str, prompt_ids: Sequence[int], tokens: int
    ) -> tuple[float, list[int], list[float]]:
        """Seconds of a decode step, the ids of a greedy answer,
        and how far each was ahead of the second best.
        """
        torch = self.torch
        self.model.set_experts_implementation(experts)
        ids, taken, margins = torch.tensor([prompt_ids]), [], []
        with torch.no_grad():
            past, answer = None, []
            for _ in range(tokens):
                began = time.perf_counter()
                result = self.model(ids, past_key_values=past, use_cache=True, logits_to_keep=1)
                taken.append(time.perf_counter() - began)
                logits, past = result.logits[0, -1], result.past_key_values
                logits[self.ends] = -torch.inf
                best = logits.topk(2)
                margins.append(float(best.values[0] - best.values[1]))
                answer.append(int(best.indices[0]))
                ids = best.indices[None, :1]
        return statistics.mean(taken[1:]), answer, margins

    def prefill(self, experts: str, token_ids: np.ndarray) -> float:
        """Seconds of the decoder alone: the head would work on all rows where only the last is wanted."""
        ids = self.torch.from_numpy(np.asarray(token_ids, np.int64))[None]
        self.model.set_experts_implementation(experts)
        began = time.perf_counter()
        with self.torch.no_grad():
            self.model.model(input_ids=ids, use_cache=True)
        return time.perf_counter() - began


def compare(ours: Ours, theirs: Theirs, runs: int) -> dict[str, Any]:
    """Decode and prefill of both sides, in turns, so that a slow moment of the machine hits all;
    and whether they give the same ids.

    A warm round finds the experts implementations that are worth measuring, stage by stage: those
    within twice the fastest.
    """
    long_prompt = np.random.default_rng(0).integers(0, 500, LONG_PROMPT)
    agreements = []

    def decode(experts: str) -> float:
        taken, expected, margins = theirs.decode(experts, ours.prompt_ids, ours.tokens)
        agreements.append(agreement(ids, expected, margins))
        return taken

    _, ids = ours.decode()
    ours.prefill(long_prompt)
    # batched_mm copies the experts' weights for every row: a long prompt would take it half a minute.
    decode_worth = _worth({experts: decode(experts) for experts in EXPERTS})
    prefill_worth = _worth(
        {experts: theirs.prefill(experts, long_prompt[: LONG_PROMPT // 8]) for experts in EXPERTS}
    )
    seconds: dict[str, dict[str, list[float]]] = {
        DECODE: collections.defaultdict(list),
        PREFILL: collections.defaultdict(list),
    }
    for run in range(runs + 1):
        taken = {
            DECODE: {"antiphon": ours.decode()[0]} | {experts: decode(experts) for experts in decode_worth}
        }
        taken[PREFILL] = {"antiphon": ours.prefill(long_prompt)} | {
            experts: theirs.prefill(experts, long_prompt) for experts in prefill_worth
        }
        for stage, sides in taken.items() if run else ():
            for side, value in sides.items():
                seconds[stage][side].append(value)
    medians = {
        stage: {side: statistics.median(values) for side, values in sides.items()}
        for stage, sides in seconds.items()
    }
    ratio = {
        stage: min(value for side, value in sides.items() if side != "antiphon") / sides["antiphon"]
        for stage, sides in medians.items()
    }
    return {"thinker": medians, "ratio": ratio, "ids": min(agreements, key=lambda found: found[0])}


def _worth(probed: Mapping[str, float]) -> list[str]:
    return [name for name, taken in probed.items() if taken <= 2 * min(probed.values())]


def agreement(
    ids: Sequence[int], expected: Sequence[int], margins: Sequence[float]
) -> tuple[int, int, float | None]:
    """How many ids agree before the first that does not, how many there are,
    and by how much the other was ahead there (None: all agree).
    """
    same = next(
        (place for place, (own, other) in enumerate(zip(ids, expected, strict=True)) if own != other),
        len(ids),
    )
    return same, len(ids), margins[same] if same < len(ids) else None


def over_context(bundle: Path, threads: int, lengths: Sequence[int], steps: int) -> list[dict[str, Any]]:
    """For each length: seconds of a decode step (without profile),
    and seconds of kernels by part and by operator (with one).
    """
    manifest = read_manifest(bundle)
    entry = manifest.stages["thinker"]
    path = bundle / entry.artifacts[0]
    owner = mixer_nodes(ir.load(path))
    states, feeds = {}, {}
    noise = np.random.default_rng(0).standard_normal(2**16, np.float32)
    for length in lengths:
        states[length] = StatePool(entry.states).allocate()
        states[length].reserve(length + 1)
        states[length].advance(length)
        for spec in entry.states:
            # Pages that were never written are all one page of zeros, which a cache would hold.
            np.copyto(
                states[length].past(spec.name).reshape(-1),
                np.resize(noise, states[length].past(spec.name).size),
            )
        feeds[length] = step_feeds(entry, manifest)
        feeds[length]["past_length"][...] = feeds[length]["positions"][...] = length
    wall = _wall(OnnxEngine(path, entry, threads), states, feeds, steps)
    with tempfile.TemporaryDirectory() as folder:
        session = make_session(path, threads, profile=Path(folder) / "profile")
        bound = {length: _bind(session, states[length], feeds[length]) for length in lengths}
        for _ in range(WARM_STEPS + steps):
            for length in lengths:
                session.run_with_iobinding(bound[length][0])
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    runs = kernels_by_run(events)[WARM_STEPS * len(lengths) :]
    assert len(runs) == steps * len(lengths), "the profile holds one entry for each run"
    return [
        {"context": length, "step": wall[length], **_medians(runs[place :: len(lengths)], owner)}
        for place, length in enumerate(lengths)
    ]


def mixer_nodes(model: ir.Model) -> dict[str, str]:
    """Names of an engine graph's nodes from the first to the last projection of each layer's attention,
    with the kind of that layer.

    Walks back from the last projection and the layer's present states to the first projection, whose weights
    keep the module's names.
    """
    by_weight = {
        (value.name or ""): node
        for node in model.graph
        if node.op_type == "MatMul"
        for value in node.inputs[1:]
        if value is not None
    }
    presents = {(value.name or ""): value.producer() for value in model.graph.outputs}
    owner: dict[str, str] = {}
    for weight, last in by_weight.items():
        if not weight.endswith(".attention.output.weight"):
            continue
        prefix = weight.removesuffix("output.weight")
        layer = prefix.split(".")[1]
        first = by_weight.get(f"{prefix}input.weight") or by_weight[f"{prefix}qkv.weight"]
        kind = RECURRENT if f"{prefix}input.weight" in by_weight else OTHER
        waiting = [
            last,
            *(
                presents[name]
                for state in ("conv", "recurrent")
                if (name := f"present.{state}.{layer}") in presents
            ),
        ]
        while waiting:
            node = waiting.pop()
            if node is None or (node.name or "") in owner:
                continue
            owner[node.name or ""] = FULL if node.op_type == "GroupQueryAttention" else kind
            if node is not first:
                waiting += [value.producer() for value in node.inputs if value is not None]
    return owner


def kernels_by_run(events: Sequence[Mapping[str, Any]]) -> list[list[tuple[str, str, float]]]:
    """Of a profile, for each run in order: (node, operator, seconds) of its kernels."""
    began = sorted(
        event["ts"] for event in events if event.get("cat") == "Session" and event["name"] == "model_run"
    )
    runs: list[list[tuple[str, str, float]]] = [[] for _ in began]
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            run = int(np.searchsorted(began, event["ts"], side="right")) - 1
            runs[run].append(
                (event["name"].removesuffix("_kernel_time"), event["args"]["op_name"], event["dur"] * 1e-6)
            )
    return runs


def _medians(runs: Sequence[Sequence[tuple[str, str, float]]], owner: Mapping[str, str]) -> dict[str, Any]:
    """Medians over runs of the seconds of each part and operator."""
    parts: dict[str, list[float]] = {part: [] for part in (RECURRENT, FULL, OTHER, REST)}
    operators: dict[str, list[float]] = collections.defaultdict(list)
    for run in runs:
        by_part: dict[str, float] = collections.defaultdict(float)
        by_operator: dict[str, float] = collections.defaultdict(float)
        for node, operator, seconds in run:
            # A fused kernel's name begins with that of one node it replaces: "node_silu/QuickGeluFusion/".
            by_part[owner.get(node) or owner.get(node.split("/")[0], REST)] += seconds
            by_operator[operator] += seconds
        for part in parts:
            parts[part].append(by_part[part])
        for operator, seconds in by_operator.items():
            operators[operator].append(seconds)
    return {
        "parts": {part: statistics.median(values) for part, values in parts.items()},
        "operators": dict(
            sorted(
                ((name, statistics.median(values)) for name, values in operators.items()),
                key=lambda item: -item[1],
            )
        ),
        "nodes": len(runs[0]),
    }


def _wall(
    engine: OnnxEngine, states: Mapping[int, Slot], feeds: Mapping[int, Mapping[str, np.ndarray]], steps: int
) -> dict[int, float]:
    taken: dict[int, list[float]] = {length: [] for length in states}
    wanted = [spec.name for spec in engine.entry.outputs if spec.name != "logits"]
    for _ in range(WARM_STEPS + steps):
        for length, state in states.items():
            began = time.perf_counter()
            engine.run(feeds[length], (state,), wanted)
            taken[length].append(time.perf_counter() - began)
    return {length: statistics.median(values[WARM_STEPS:]) for length, values in taken.items()}


def _bind(
    session: onnxruntime.InferenceSession, states: Slot, feeds: Mapping[str, np.ndarray]
) -> tuple[Any, list[Any]]:
    """One decode step over arrays that stay where they are, as the runtime binds it;
    the values must outlive the binding.
    """
    binding, values = session.io_binding(), []
    for name, array in feeds.items():
        values.append(onnxruntime.OrtValue.ortvalue_from_numpy(array))
        binding.bind_ortvalue_input(name, values[-1])
    for spec in states.pool.specs:
        past, present = states.past(spec.name), states.present(spec.name)
        values.append(onnxruntime.OrtValue.ortvalue_from_numpy(past))
        binding.bind_ortvalue_input(f"past.{spec.name}", values[-1])
        if present is not past:
            values.append(onnxruntime.OrtValue.ortvalue_from_numpy(present))
        binding.bind_ortvalue_output(f"present.{spec.name}", values[-1])
    binding.bind_output("token", "cpu")
    return binding, values


def main() -> None:
    """Measure, print the tables and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint")
    parser.add_argument("bundle")
    for name, default in (("threads", 2), ("runs", 5), ("tokens", 48), ("frames", 48), ("steps", 40)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--lengths", default="2000,20000,200000")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    lengths = [int(length) for length in arguments.lengths.split(",")]
    ours = Ours(arguments.bundle, arguments.threads, arguments.tokens, arguments.frames)
    spoken = ours.speak(arguments.runs)  # before PyTorch and its threads are there
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(arguments.threads)
    try:
        compared = compare(
            ours, Theirs(arguments.checkpoint, sorted(ours.omni.model.thinker.eos)), arguments.runs
        )
    finally:
        torch.set_num_threads(before)
    result = {
        "machine": platform.processor() or platform.machine(),
        "threads": arguments.threads,
        "runs": arguments.runs,
        "tokens": arguments.tokens,
        "prompt_tokens": len(ours.prompt_ids),
        **compared,
        "speech": {"frames": arguments.frames, **spoken},
        "over_context": over_context(Path(arguments.bundle), arguments.threads, lengths, arguments.steps),
    }
    recurrent = [row["parts"][RECURRENT] for row in result["over_context"]]
    result["recurrent_spread"] = max(recurrent) / min(recurrent) - 1
    _print(result)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=2), encoding="utf-8")


def _print(result: Mapping[str, Any]) -> None:
    rows = [
        [name, *(_ms(sides.get(side)) for side in ("antiphon", *EXPERTS)), f"{result['ratio'][name]:.2f}"]
        for name, sides in result["thinker"].items()
    ]
    print_table(
        f"Thinker, {result['threads']} threads, median of {result['runs']}",
        ("measure", "antiphon", *EXPERTS, "ratio"),
        rows,
    )
    same, among, margin = result["ids"]
    print(
        f"greedy ids equal: {same} of {among}"
        + ("" if margin is None else f"; transformers' first other id was ahead by {margin:.2e}")
    )
    spoken = [
        [name, f"{value:.3f}" if name == "real_time_factor" else _ms(value)]
        for name, value in result["speech"].items()
        if name != "frames"
    ]
    print_table(
        f"spoken answer of {result['tokens']} tokens and {result['speech']['frames']} frames",
        ("measure", "antiphon"),
        spoken,
    )
    parts = (RECURRENT, FULL, OTHER, REST)
    rows = [
        [str(row["context"]), *(_ms(row["parts"][part]) for part in parts), _ms(row["step"])]
        for row in result["over_context"]
    ]
    print_table(
        "kernels of a decode step by tokens of context (profiled), and the step without profile",
        ("tokens", *parts, "step"),
        rows,
    )
    print(f"recurrent layers: {result['recurrent_spread']:.1%} between the fastest and the slowest length")
    first = result["over_context"][0]
    total = sum(first["operators"].values())
    shares = ", ".join(f"{name} {taken / total:.0%}" for name, taken in list(first["operators"].items())[:10])
    print(f"{first['nodes']} kernels at {first['context']} tokens: {shares}")


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value * 1000:.2f} ms"


if __name__ == "__main__":
    main()
