"""Trains the Talker and its code predictor, from given text to codes.

    python -m antiphon.scripts.train_tiny.talker_training CORPUS RUN CODES.npz [VARIATION.npz]...
        --checkpoint START [--minutes 80] [--dual-track]

This is gate (b) in graphs/pretrained/tiny/README.md. Every example is a row sequence as the runtime feeds it
(train_tiny.talker_data). Some input frames are replaced. A layer that is not kept also predicts which token
the next frame speaks and how many rows are ahead of it: without it long answers lose their place in the text.
Rows of the user's turn hold the bias of the projection alone. Its weight is zero until a Thinker is trained,
so that speech is a function of text and voice. `--dual-track` trains the same Talker on rows that add text
and frame, for the study alone.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...graphs.config import OmniConfig
from ...graphs.families.qwen3_5_omni.talker import Talker
from ...graphs.layers.decoder import rotary_tables, run_layers
from ...graphs.stages.predictor import PredictorStep
from ...runtime.stages.talker_rows.rows import NOTHING
from .codes import load_codes
from .command import command
from .corpus import Corpus
from .differentiable import differentiable
from .run import Run, initialise, trained
from .talker_data import MOST_AHEAD, Rows, Speech, special_ids

PREDICTED_FRAMES = 320
"""Frames per step whose residual codes are trained, drawn from about twice as many.

They cost fifteen times as much as the first code. The number is constant, because the predictor is compiled
for it.
"""
COMPILED_FROM = 500
"""Number of training steps from which compiling the predictor, which takes a minute, is worth it."""
MOST_CORRUPTED = 0.4
"""The largest share of a sequence's input frames that are replaced.

The Talker so learns to recover from mistakes and to read the text.
"""
ROUGH_SHARE = 0.5
"""Share of the sequences whose input frames have the later codes of other frames; a predictor's are no
better."""
FOLLOWED = 0.5
"""Weight of the loss of the spoken token and of the number of text rows ahead of it."""
DROPOUT = 0.1
ROUTER_WEIGHT = 0.01
Through = Callable[[Tensor, Tensor, Tensor], Tensor]
"""A function from rows and the two tables of their positions to rows."""


def read_frames(batch: list[Rows], noise: torch.Generator) -> Tensor:
    """Input frames int64 [frames of all sequences, groups], with errors like a Talker's own."""
    frames = torch.from_numpy(np.concatenate([rows.frames for rows in batch]))
    of_each = torch.tensor([len(rows.frames) for rows in batch])
    groups = frames.shape[1]
    # The first code that comes from another frame; `groups` for sequences without such codes.
    rough = torch.where(
        torch.rand(len(batch), generator=noise) < ROUGH_SHARE,
        torch.randint(2, groups, (len(batch),), generator=noise),
        groups,
    )
    shuffled = frames[torch.randperm(len(frames), generator=noise)]
    frames = torch.where(torch.arange(groups) < rough.repeat_interleave(of_each)[:, None], frames, shuffled)
    share = MOST_CORRUPTED * torch.rand(len(batch), generator=noise).repeat_interleave(of_each)
    return torch.where((torch.rand(len(frames), generator=noise) < share)[:, None], shuffled, frames)


def asked_rows(talker: Talker, batch: list[Rows], frames: Tensor) -> tuple[Tensor, Tensor]:
    """The hidden rows [asked rows of all sequences, hidden] that predict first codes and ends, and which
    predict a code (bool).

    The input frames are `frames` int64 [frames of all sequences, groups].
    """
    tokens, width = max(len(rows.text_ids) for rows in batch), talker.text.hidden_size
    text_ids, codec_ids = torch.full((len(batch), tokens), NOTHING), torch.full((len(batch), tokens), NOTHING)
    for index, rows in enumerate(batch):
        text_ids[index, : len(rows.text_ids)], codec_ids[index, : len(rows.codec_ids)] = (
            torch.from_numpy(rows.text_ids),
            torch.from_numpy(rows.codec_ids),
        )

    def flat(name: str) -> Tensor:
        return torch.from_numpy(
            np.concatenate([getattr(rows, name) + index * tokens for index, rows in enumerate(batch)])
        )

    hidden_index, frame_index, asked = flat("hidden_index"), flat("frame_index"), flat("asked")
    text = talker.text_embedding[text_ids.clamp(min=0)]
    heard = talker.hidden_projection(torch.zeros(len(hidden_index), talker.hidden_projection.weight.shape[0]))
    x = talker.joined(text_ids, text, heard, hidden_index, codec_ids, talker.frame_rows(frames), frame_index)
    positions = torch.arange(tokens, dtype=torch.float32).expand(3, len(batch), tokens)
    lengths, nothing = torch.zeros(len(batch), dtype=torch.int64), torch.zeros(0)
    rotary = rotary_tables(positions, talker.text.rope, talker.text.head_dim)
    x, _ = run_layers(talker.layers, x, rotary, lengths, lengths, [nothing] * (2 * len(talker.layers)))
    spoken = torch.from_numpy(
        np.concatenate([np.arange(len(rows.answers)) < len(rows.targets) for rows in batch])
    )
    return talker.norm(x).reshape(-1, width)[asked], spoken


def losses(
    talker: Talker,
    predictor: PredictorStep,
    follower: nn.Linear,
    batch: list[Rows],
    noise: torch.Generator,
    through: Through | None = None,
) -> tuple[Tensor, Tensor, Tensor, dict[str, float]]:
    """Cross entropy of the first codes, of the residual codes and of the place in the text, and values for
    the curves.

    The `follower` predicts the place in the text: the token and the rows ahead.
    """
    wanted, spoken = asked_rows(talker, batch, read_frames(batch, noise))
    logits, answers = choices(talker, wanted, batch)
    first = F.cross_entropy(logits, answers)
    targets = torch.from_numpy(np.concatenate([rows.targets for rows in batch]))
    chosen = torch.randint(len(targets), (PREDICTED_FRAMES,), generator=noise)
    residual = residual_losses(talker, predictor, wanted[spoken][chosen], targets[chosen], through)
    right = (logits.argmax(1) == answers).float()
    tokens, ahead = (
        torch.from_numpy(np.concatenate([getattr(rows, name) for rows in batch]))
        for name in ("spoken", "ahead")
    )
    followed, lead = follower(wanted).split((follower.out_features - MOST_AHEAD, MOST_AHEAD), dim=1)
    values = {
        "first": first.item(),
        "residual": residual.mean().item(),
        "right": right[spoken].mean().item(),
        "end_right": right[~spoken].mean().item(),
    }
    values |= {
        "followed": (followed.argmax(1) == tokens).float().mean().item(),
        "ahead": (lead.argmax(1) == ahead).float().mean().item(),
    }
    place = F.cross_entropy(followed, tokens) + F.cross_entropy(lead, ahead)
    # Earlier codes are more audible and more predictable; the later ones are nearly noise.
    weights = 1 / torch.arange(1, len(residual) + 1)
    total = (residual * weights).sum() / weights.sum()
    return (
        first,
        total,
        place,
        values | {f"residual{group}": residual[group - 1].item() for group in (1, 4, 15)},
    )


def choices(talker: Talker, wanted: Tensor, batch: list[Rows]) -> tuple[Tensor, Tensor]:
    """Logits [asked rows, ids] of first codes and ends after the hidden rows `wanted`, and the targets int64
    [asked rows]."""
    logits = talker.head(wanted)
    answers = torch.from_numpy(np.concatenate([rows.answers for rows in batch]))
    may_end = torch.from_numpy(np.concatenate([rows.may_end for rows in batch]))
    # As in the runtime, special ids are always suppressed, and the end until the text has ended.
    end = int(batch[0].answers[-1])
    suppressed = torch.zeros(logits.shape, dtype=torch.bool)
    suppressed[:, talker.codebook :] = True
    suppressed[:, end] = ~may_end
    return logits.masked_fill(suppressed, -torch.inf), answers


def residual_losses(
    talker: Talker, predictor: PredictorStep, hidden: Tensor, codes: Tensor, through: Through | None = None
) -> Tensor:
    """Mean cross entropy of each residual code [groups - 1].

    hidden [frames, talker hidden]: the rows that predicted the first codes. codes [frames, groups].
    `through`: the predictor's layers in another form.
    """
    config, groups = predictor.config, talker.groups
    tables = torch.cat((talker.codec_embedding[: talker.codebook], talker.residual_embedding))
    # [frames, groups - 1, talker hidden]
    embedded = F.embedding(codes[:, :-1] + torch.arange(groups - 1) * talker.codebook, tables)
    x = torch.cat((hidden[:, None], embedded), dim=1)
    if predictor.projection is not None:
        x = predictor.projection(x)
    positions = torch.arange(groups, dtype=torch.float32).expand(1, len(x), groups)
    x = (through or layers_of(predictor))(x, *rotary_tables(positions, config.rope, config.head_dim))
    # [groups - 1, frames, codebook]
    logits = torch.einsum("fgh,ghc->gfc", predictor.norm(x[:, 1:]), predictor.heads)
    return torch.stack([F.cross_entropy(logits[group], codes[:, group + 1]) for group in range(groups - 1)])


def layers_of(predictor: PredictorStep) -> Through:
    """The predictor's layers on rows [frames, groups, hidden], with the tables of rotate, starting with empty
    states."""
    layers = predictor.layers

    def through(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        lengths, nothing = torch.zeros(len(x), dtype=torch.int64), torch.zeros(0)
        made: Tensor = run_layers(layers, x, (cosine, sine), lengths, lengths, [nothing] * (2 * len(layers)))[
            0
        ]
        return made

    return through


def new_modules(config: OmniConfig) -> tuple[Talker, PredictorStep]:
    """Talker and predictor with initial values. The predictor uses the Talker's table instead of its own."""
    assert config.talker is not None
    talker, predictor = Talker(config.talker), PredictorStep(config.talker)
    initialise([talker], residual=config.talker.text.num_hidden_layers)
    initialise([predictor], residual=config.talker.predictor.num_hidden_layers)
    with torch.no_grad():
        talker.residual_embedding.mul_(0.3)
        talker.head.weight.mul_(0.5)
        predictor.heads.mul_(0.5)
        talker.hidden_projection.weight.zero_()
        # a row of zeros cannot be normalised
        nn.init.normal_(talker.hidden_projection.bias, std=0.5)  # type: ignore[arg-type]
        predictor.code_embedding.zero_()
    talker.hidden_projection.weight.requires_grad_(False)
    predictor.code_embedding.requires_grad_(False)
    return talker, predictor


def train(
    speech: Speech,
    folder: Path,
    config: OmniConfig,
    steps: int,
    minutes: float | None,
    seed: int = 0,
    rate: float = 2e-3,
    begin_with: Path | None = None,
) -> Run:
    """Train the Talker in `folder`, or continue its training; a new training can `begin_with` the modules of
    another run."""
    torch.manual_seed(seed)
    talker, predictor = new_modules(config)
    follower = nn.Linear(talker.text.hidden_size, speech.vocabulary + MOST_AHEAD)
    if begin_with is not None:
        trained(begin_with, {"talker": talker, "predictor": predictor})
    for layer in [*talker.layers, *predictor.layers]:
        layer.attention.register_forward_hook(lambda _, __, made: (F.dropout(made[0], DROPOUT), *made[1:]))
        layer.feed_forward.register_forward_hook(lambda _, __, made: F.dropout(made, DROPOUT))
    through = layers_of(predictor)
    if steps >= COMPILED_FROM and (shutil.which("g++") or shutil.which("clang++")):
        through = torch.compile(through, dynamic=False)
    run = Run(
        folder,
        {"talker": talker, "predictor": predictor, "follower": follower},
        rate,
        steps,
        minutes,
        decay=0.1,
    )
    stream = speech.batches(np.random.default_rng([seed, run.step]))
    noise = torch.Generator().manual_seed(seed + run.step)
    router_losses: list[Tensor] = []
    with differentiable(router_losses):
        for _ in run.steps():
            router_losses.clear()
            with torch.autocast("cpu", torch.bfloat16):
                first, residual, followed, values = losses(
                    talker, predictor, follower, next(stream), noise, through
                )
            run.update(
                first + residual + FOLLOWED * followed + ROUTER_WEIGHT * sum(router_losses, torch.zeros(()))
            )
            run.log(**values, router=sum(loss.item() for loss in router_losses) / len(router_losses))
    return run


def main() -> None:
    """Train from the command line."""
    from tokenizers import Tokenizer

    from ...graphs.checkpoints.read_config import read_config

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument(
        "codes", type=Path, nargs="+", help="of train_tiny.codes: the recordings as they are, and variations"
    )
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="from train_tiny.shape: configuration and tokenizer"
    )
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--minutes", type=float, help="end the schedule after so many minutes of training")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument(
        "--begin-with",
        type=Path,
        metavar="RUN",
        help="start values for a new training: the modules of another one",
    )
    parser.add_argument("--dual-track", action="store_true", help="for the study alone: text added to frames")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tokenizer, config = (
        Tokenizer.from_file(str(arguments.checkpoint / "tokenizer.json")),
        read_config(arguments.checkpoint),
    )
    corpus = Corpus(arguments.corpus)
    speech = Speech(
        corpus,
        [load_codes(path, corpus) for path in arguments.codes],
        tokenizer,
        special_ids(config, tokenizer),
        arguments.dual_track,
    )
    train(
        speech,
        arguments.run,
        config,
        arguments.steps,
        arguments.minutes,
        rate=arguments.rate,
        begin_with=arguments.begin_with,
    )


if __name__ == "__main__":
    command(main)
