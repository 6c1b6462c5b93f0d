"""The common part of all trainings: a folder with checkpoints and curves, from which a training can continue.

RUN/state.pt holds modules, optimiser, step and time; RUN/curves.jsonl has one line per report.
"""

from __future__ import annotations

import json
import math
import os
import signal
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import nn

from ..console import progress_bar

REPORT_EVERY, SAVE_EVERY = 50, 250
"""In steps."""


class Run:
    """One training.

    `steps` yields the remaining step numbers and sets the learning rate; `log` collects values for the
    curves.
    """

    def __init__(
        self,
        folder: Path,
        modules: dict[str, nn.Module],
        rate: float,
        steps: int,
        minutes: float | None = None,
        warmup: int = 200,
        betas: tuple[float, float] = (0.9, 0.98),
        decay: float = 0.01,
    ) -> None:
        """The schedule has a warm-up and a cosine. It ends after `steps` or `minutes`, whichever comes first.

        A folder with a state continues from it.
        """
        self.folder, self.modules, self.rate, self.total, self.minutes, self.warmup = (
            folder,
            modules,
            rate,
            steps,
            minutes,
            warmup,
        )
        folder.mkdir(parents=True, exist_ok=True)
        parameters = [
            parameter
            for module in modules.values()
            for parameter in module.parameters()
            if parameter.requires_grad
        ]
        matrices = [parameter for parameter in parameters if parameter.ndim > 1]
        vectors = [parameter for parameter in parameters if parameter.ndim <= 1]
        self.parameters = parameters
        named = [pair for module in modules.values() for pair in module.named_parameters()]
        self._decays = [parameter for name, parameter in named if name.endswith("decay_scale")]
        groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=rate, betas=betas, fused=True)
        self.step, self.seconds = 0, 0.0
        self._values: dict[str, list[float]] = defaultdict(list)
        if (folder / "state.pt").is_file():
            self._load()

    @property
    def progress(self) -> float:
        """0 at the start of the schedule, 1 at its end."""
        by_time = self.seconds / 60 / self.minutes if self.minutes else 0.0
        return min(1.0, max(self.step / self.total, by_time))

    def steps(self) -> Iterator[int]:
        """Step numbers until the schedule ends. Saves regularly, at the end, and when interrupted."""
        before = time.perf_counter()
        # `kill` stops like Ctrl-C, and saves.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with progress_bar() as report:
            try:
                while self.progress < 1.0:
                    rate = (
                        self.rate
                        * min(1.0, (self.step + 1) / self.warmup)
                        * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * self.progress)))
                    )
                    for group in self.optimiser.param_groups:
                        group["lr"] = rate
                    yield self.step
                    self.step += 1
                    now = time.perf_counter()
                    self.seconds, before = self.seconds + now - before, now
                    report(self.folder.name, self.progress, 1.0, None)
                    if self.step % REPORT_EVERY == 0:
                        self._report(rate)
                    if self.step % SAVE_EVERY == 0:
                        self.save()
            finally:
                self.save()

    def update(self, loss: torch.Tensor, clip: float = 1.0) -> None:
        """One step of the optimiser; a step with gradients that are not finite is skipped and counted in the
        curves."""
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, clip)
        if torch.isfinite(norm):
            self.optimiser.step()
            with torch.no_grad():
                for decay in self._decays:
                    decay.clamp_(max=-1e-3)  # a checkpoint stores the logarithm of -decay_scale
        self.log(skipped=float(not torch.isfinite(norm)), gradient=float(norm))

    def log(self, **values: float) -> None:
        """Collect values of this step."""
        for name, value in values.items():
            self._values[name].append(float(value))

    def save(self) -> None:
        """Write the state under a temporary name and rename it."""
        modules = {name: module.state_dict() for name, module in self.modules.items()}
        state = {
            "modules": modules,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        torch.save(state, self.folder / "state.part")
        os.replace(self.folder / "state.part", self.folder / "state.pt")

    def _load(self) -> None:
        state = torch.load(self.folder / "state.pt", weights_only=True)
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds = state["step"], state["seconds"]

    def _report(self, rate: float) -> None:
        means = {name: sum(values) / len(values) for name, values in self._values.items()}
        self._values.clear()
        with (self.folder / "curves.jsonl").open("a") as curves:
            curves.write(
                json.dumps({"step": self.step, "seconds": round(self.seconds, 1), "rate": rate, **means})
                + "\n"
            )


def trained(folder: Path, modules: dict[str, nn.Module]) -> None:
    """Load the modules of a finished or running training into `modules`."""
    state = torch.load(folder / "state.pt", weights_only=True, map_location="cpu")
    for name, module in modules.items():
        module.load_state_dict(state["modules"][name])


def initialise(modules: Iterable[nn.Module], residual: int = 4) -> None:
    """Set initial values (std 1 / sqrt(inputs)) of the empty projections of stage modules.

    `residual` layers share a variance.
    """
    for module in modules:
        for name, parameter in module.named_parameters():
            last = name.rpartition(".")[2]
            with torch.no_grad():
                if parameter.ndim <= 1 or last in ("frequency", "magnitude"):
                    parameter.fill_(0.0 if "bias" in last else 1.0)
                elif parameter.ndim == 2 and "embedding" in last:
                    parameter.normal_(0, 0.5)
                else:
                    # projections [inputs, outputs], experts [experts, outputs, inputs], heads
                    # [groups, inputs, outputs], convolutions [outputs, inputs, ...]
                    by_name = {
                        "gate_up": parameter.shape[-1],
                        "down": parameter.shape[-1],
                        "heads": parameter.shape[1],
                    }
                    inputs = (
                        parameter.shape[0] if parameter.ndim == 2 else by_name.get(last, parameter[0].numel())
                    )
                    scale = (
                        0.5 / math.sqrt(residual)
                        if any(part in name for part in ("output", "down", "contract"))
                        else 1.0
                    )
                    parameter.normal_(0, scale / math.sqrt(inputs))
                if last == "decay_scale":
                    parameter.uniform_(-8.0, -0.5)
                if last == "dt_bias":
                    parameter.uniform_(-5.0, -2.0)
