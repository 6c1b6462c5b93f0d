"""Tests whether a decode step costs only what it reads, with twice the experts or 16 times the cache.

    python -m antiphon.scripts.benchmarks.scaling FOLDER [--size small] [--threads 2] [--steps 60]

Makes and builds two checkpoints under FOLDER unless they exist; the second has twice the experts and the same
top-k. Times decode steps of the Thinker at 256 tokens of context, alternating between the variants, so that a
slow moment of the machine affects all of them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

from ...runtime.engines.onnxruntime.engine import OnnxEngine

CONTEXT, CAPACITY, LARGE_CAPACITY = 256, 512, 8192


def main() -> None:
    """Build what is missing, measure and print medians with their ratio to the first."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", default="small")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=60)
    arguments = parser.parse_args()
    bundles = [_bundle(arguments.folder, arguments.size, factor) for factor in (1, 2)]
    variants = {
        "published experts, capacity 512": _Decoder(bundles[0], CAPACITY, arguments.threads),
        "published experts, capacity 8,192": _Decoder(bundles[0], LARGE_CAPACITY, arguments.threads),
        "twice the experts, capacity 512": _Decoder(bundles[1], CAPACITY, arguments.threads),
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for step in range(arguments.steps + 5):
        for name, decoder in variants.items():
            began = time.perf_counter()
            decoder.step(step)
            if step >= 5:
                seconds[name].append(time.perf_counter() - began)
    first = statistics.median(next(iter(seconds.values())))
    for name, taken in seconds.items():
        print(
            f"{name:40s} {statistics.median(taken) * 1000:7.2f} ms   {statistics.median(taken) / first:5.2f}"
        )


def _bundle(folder: Path, size: str, factor: int) -> Path:
    from ...export.build import build
    from ...graphs.checkpoints.read_config import read_config
    from ...graphs.random.new_checkpoint import new_checkpoint

    checkpoint, bundle = folder / f"checkpoint-{factor}", folder / f"bundle-{factor}"
    if not checkpoint.exists():
        overrides = None
        if factor > 1:
            overrides = {
                "thinker_config.text_config.num_experts": factor
                * read_config(folder / "checkpoint-1").thinker.text.num_experts
            }
        new_checkpoint(checkpoint, size=size, overrides=overrides)
    if not bundle.exists():
        build(checkpoint, bundle)
    return bundle


class _Decoder:
    """Decode steps of one Thinker at a fixed context, on random tokens."""

    def __init__(self, bundle: Path, capacity: int, threads: int) -> None:
        from ...runtime.bundle.manifest import read_manifest

        entry = read_manifest(bundle).stages["thinker"]
        self.engine = OnnxEngine(bundle / entry.artifacts[0], entry, threads)
        self.states = self.engine.new_states().allocate()
        self.states.reserve(capacity)
        self.states.advance(CONTEXT)
        self.noise = np.random.default_rng(0)
        vocabulary, hidden = entry.constant("vocab_size"), entry.constant("hidden_size")
        layers = entry.constant("deepstack_layers")
        deepstack: dict[str, np.ndarray] = {
            "deepstack": np.zeros((layers, 0, hidden), np.float32),
            "deepstack_index": np.zeros(0, np.int64),
        }
        self.vocabulary = vocabulary
        self.feeds: dict[str, np.ndarray] = {
            "positions": np.full((3, 1, 1), CONTEXT, np.float32),
            "query_length": np.ones(1, np.int64),
            "past_length": np.full(1, CONTEXT),
            "features": np.zeros((0, hidden), np.float32),
            "feature_index": np.zeros(0, np.int64),
            **(deepstack if layers else {}),
            "output_index": np.zeros(1, np.int64),
            "noise": np.zeros(1, np.float32),
            "temperature": np.zeros(1, np.float32),
            "top_k": np.zeros(1, np.int64),
            "top_p": np.ones(1, np.float32),
            "repetition_penalty": np.ones(1, np.float32),
            "penalised": np.zeros((1, vocabulary), bool),
            "suppressed": np.zeros((1, vocabulary), bool),
        }

    def step(self, _: int) -> None:
        self.engine.run(
            self.feeds | {"input_ids": self.noise.integers(0, self.vocabulary, (1, 1))},
            (self.states,),
            ("token",),
        )


if __name__ == "__main__":
    main()
