"""Losses of a Talker on held-out texts, in nats.

    python -m antiphon.scripts.train_tiny.talker_evaluation CODEC_RUN TALKER_RUN VOICES.npz --checkpoint START
        [--prompts 100] [--dual-track]

A gap to the training loss shows memorisation. The synthesiser speaks the answers of held-out prompts, and the
codec encodes them. The Talker predicts every code after the true ones. Interleaves are drawn with a seed as
in training; no input frame is replaced.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ...graphs.families.qwen3_5_omni.talker import Talker
from ...graphs.stages.predictor import PredictorStep
from ..console import print_table, progress_bar
from ..quality.prompts import Prompt, read_prompts
from ..quality.synthesisers import synthesise
from .codes import encode_corpus
from .command import command
from .differentiable import differentiable
from .run import trained
from .talker_data import (
    CONTENT_ROWS,
    LONGEST,
    Rows,
    draw_policy,
    dual_track,
    interleaved,
    sequence,
    special_ids,
)
from .talker_training import asked_rows, choices, new_modules, residual_losses

SHOWN = (1, 4, 15)
"""The residual codebooks whose losses are printed."""


@torch.no_grad()
def held_out_losses(talker: Talker, predictor: PredictorStep, rows: Rows) -> tuple[np.ndarray, int]:
    """Nats per code and the number of frames of `rows`.

    The array float [1 + 1 + groups - 1] holds the first codes (and the end), all residual codes, and each
    residual codebook.
    """
    with differentiable():
        wanted, spoken = asked_rows(talker, [rows], torch.from_numpy(rows.frames))
        logits, answers = choices(talker, wanted, [rows])
        residual = residual_losses(talker, predictor, wanted[spoken], torch.from_numpy(rows.targets))
    return np.array(
        [F.cross_entropy(logits, answers).item(), residual.mean().item(), *residual.tolist()]
    ), len(rows.targets)


def mean_losses(found: list[tuple[np.ndarray, int]]) -> np.ndarray:
    """The mean over all frames."""
    return np.average([losses for losses, _ in found], axis=0, weights=[frames for _, frames in found])


def main() -> None:
    """Measure from the command line."""
    from tokenizers import Tokenizer

    from ...graphs.checkpoints.read_config import read_config

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("codec", type=Path, help="folder of codec_training")
    parser.add_argument("talker", type=Path, help="folder of talker_training")
    parser.add_argument("voices", type=Path, help="from train_tiny.voices")
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="from train_tiny.shape: configuration and tokenizer"
    )
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--dual-track", action="store_true", help="the Talker was trained so")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer, config = (
        Tokenizer.from_file(str(arguments.checkpoint / "tokenizer.json")),
        read_config(arguments.checkpoint),
    )
    assert config.codec_encoder is not None
    ids, noise, voice = (
        special_ids(config, tokenizer),
        np.random.default_rng(0),
        np.load(arguments.voices)["joe"].astype(np.int64),
    )
    talker, predictor = new_modules(config)
    trained(arguments.talker, {"talker": talker, "predictor": predictor})
    prompts = read_prompts(arguments.prompts)
    codes = encode_corpus(arguments.codec, _spoken(prompts), config.codec_encoder)
    found = defaultdict(list)
    for prompt, frames in zip(prompts, codes, strict=True):
        text = tokenizer.encode(prompt.answer, add_special_tokens=False).ids
        if len(frames) > LONGEST:
            continue
        policy = draw_policy(noise, len(text), len(frames))
        end, pad = ids["tts_eos"], ids["tts_pad"]
        track = (
            dual_track(text, len(frames), end, pad)
            if arguments.dual_track
            else interleaved(text, len(frames), policy, end)
        )
        rows = sequence(
            track,
            text,
            frames.astype(np.int64),
            np.zeros(len(frames), np.int64),
            voice,
            ids,
            int(noise.integers(1, CONTENT_ROWS + 1)),
        )
        losses = held_out_losses(talker, predictor, rows)
        for kind in ("all", prompt.kind):
            found[kind].append(losses)
    heads = ("kind", "texts", "first code", "residual codes", *(f"code {group}" for group in SHOWN))
    cells = {
        kind: mean_losses(of_kind)[[0, 1, *(group + 1 for group in SHOWN)]]
        for kind, of_kind in sorted(found.items())
    }
    print_table(
        "nats a code, held out",
        heads,
        [[kind, len(found[kind]), *(f"{value:.2f}" for value in row)] for kind, row in cells.items()],
    )


def _spoken(prompts: list[Prompt]) -> list[np.ndarray]:
    made = []
    with progress_bar() as report:
        for done, prompt in enumerate(prompts):
            report("synthesiser: speaking", done, len(prompts), None)
            made.append(synthesise(prompt.answer, "joe"))
    return made


if __name__ == "__main__":
    command(main)
