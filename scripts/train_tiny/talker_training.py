"""Gate (b): the Talker and its code predictor, from given text to codes.

    python -m antiphon.scripts.train_tiny.talker_training CORPUS RUN CODES.npz [VARIATION.npz]... --checkpoint START [--minutes 80] [--dual-track]

Every example is the row sequence that the runtime feeds, with a codec prompt from another utterance of the voice, and with an interleave of text and frames
drawn anew: a lead of 1 to 8 rows or all text, R from 0.3 to 1 of the item's own frames per row (so that the published bound of ARIA holds at every prefix),
or, for a quarter, four rows and four frames in turn. Every time one of several variations of the recording is taken (train_tiny.codes), and some of the
frames that are read are replaced: without both the Talker learns its 3,600 utterances by heart. It is also asked which token the next frame speaks and how many
rows lie ahead of it (train_tiny.alignment), by a layer that is thrown away: without it long answers lose their place in the text. Rows of the user's turn carry
nothing but the bias of the projection: its weight is zero until a Thinker has been trained, so that speech is a function of text and voice. `--dual-track`
trains the same Talker, for the study alone, on rows that add text and frame.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...graphs.config import OmniConfig
from ...graphs.layers import rotary_tables, run_layers
from ...graphs.qwen3_5_omni.talker import Talker
from ...graphs.qwen3_omni_moe.predictor import PredictorStep
from ...runtime.aria import Policy, adaptive, chunked
from ...runtime.interleaved_prompt import Manner, interleaved_prompt
from ...runtime.talker_rows import NOTHING
from .alignment import Aligner
from .codes import load_codes
from .command import command
from .corpus import Corpus
from .differentiable import differentiable
from .run import Run, initialise, trained
from .shape import VOICES

LEADS = 8
LOWEST_SHARE = 0.3
CHUNKED_SHARE, ALL_TEXT_SHARE = 0.25, 0.15
PROMPT_FRAMES = (12, 32)
"""Frames of a voice's codec prompt, at least and at most."""
CONTENT_ROWS = 16
BATCH_ROWS = 2000
LONGEST = 260
"""Frames; longer utterances are left out."""
PREDICTED_FRAMES = 320
"""Frames of a step whose residual codes are learnt, drawn of about twice as many: they cost fifteen times as much as the first code. Always as many, because
the predictor is compiled for them."""
COMPILED_FROM = 500
"""Steps of a training from which on compiling the predictor, a minute, pays."""
MOST_CORRUPTED = 0.4
"""Of the frames that a Talker reads in one sequence, at most so many are replaced by others: it learns to go on after mistakes, and to read the text."""
ROUGH_SHARE = 0.5
"""Of the sequences, those in which the later codes of all frames that are read are those of others: what the predictor makes of them is no better."""
FOLLOWED = 0.5
"""Weight of the loss of the token that is spoken and of how many text rows lie ahead of it."""
MOST_AHEAD = 16
"""Text rows ahead of the voice that are told apart: so many, and more, are one."""
DROPOUT = 0.1
ROUTER_WEIGHT = 0.01


Through = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Rows and the two tables of their positions to rows."""


@dataclass(frozen=True)
class Rows:
    """One training sequence: text_ids and codec_ids int64 [rows] (-1: none), hidden int64 [content rows], frames int64 [n, groups] at rows `frame_index`,
    and what is learnt: after row `asked[i]` comes `answers[i]`, a first code, or the end where `may_end[i]`."""

    text_ids: np.ndarray
    codec_ids: np.ndarray
    hidden_index: np.ndarray
    frames: np.ndarray
    frame_index: np.ndarray
    asked: np.ndarray
    answers: np.ndarray
    may_end: np.ndarray
    spoken: np.ndarray
    """The token that frame i speaks, int64 [frames + 1]; the end of text for the end."""
    ahead: np.ndarray
    """Text rows that were fed from that token on, int64 [frames + 1]."""
    targets: np.ndarray
    """The frames that are spoken, int64 [frames, groups]; asked has one row more, for the end."""


@dataclass(frozen=True)
class Track:
    """The rows after the prompt: their text ids (-1: none), which of them are (also) a frame, the rows after which a first code or the end is asked for,
    and whether the end may be the answer there."""

    text_ids: list[int]
    frame_rows: list[int]
    asked: list[int]
    may_end: list[bool]


def interleaved(text: list[int], frames: int, policy: Policy, end_id: int) -> Track:
    """The rows that runtime.aria.speak feeds for `frames` frames of `text`."""
    rows = [*text, end_id]
    track = Track([], [], [], [])
    fed = 0
    for frame in range(frames + 1):
        if frame:
            track.frame_rows.append(len(track.text_ids))
            track.text_ids.append(NOTHING)
        # The runtime masks the end until all text is in: where the text is behind when speech ends, it comes then.
        wanted = len(rows) if frame == frames else min(len(rows), policy.need(frame + 1))
        if wanted > fed:
            track.text_ids.extend(rows[fed:wanted])
            fed = wanted
        track.asked.append(len(track.text_ids) - 1)
        track.may_end.append(fed == len(rows))
    return track


def dual_track(text: list[int], frames: int, end_id: int, pad_id: int) -> Track:
    """Text row k is added to the row before frame k, padding after the end of the text; the first row is text alone, as there is no frame yet."""
    rows = [*text, end_id] + [pad_id] * max(0, frames - len(text))
    return Track(rows[: frames + 1], list(range(1, frames + 1)), list(range(frames + 1)), [True] * (frames + 1))


def draw_policy(noise: np.random.Generator, tokens: int, frames: int) -> Policy:
    """A schedule that keeps a lead and ARIA's bound for an item of `tokens` text rows and `frames` frames."""
    kind = noise.random()
    ratio = max(0.05, noise.uniform(LOWEST_SHARE, 1.0) * frames / tokens)
    if kind < CHUNKED_SHARE:
        return chunked(4, 4)
    lead = tokens + 1 if kind < CHUNKED_SHARE + ALL_TEXT_SHARE else int(noise.integers(1, LEADS + 1))
    return adaptive(lead, round(ratio, 3))


def special_ids(config: OmniConfig, tokenizer: Any) -> dict[str, int]:
    """The ids that prompts are made of, by the names of a manifest."""
    assert config.talker is not None
    names = ("im_start", "im_end", "system", "user", "assistant", "tts_pad", "tts_bos", "tts_eos")
    text = {name: getattr(config, f"{name}_token_id") for name in names}
    codec = {"codec_eos": config.talker.codec_eos_token_id}
    for name in ("codec_bos", "codec_pad", "codec_think", "codec_nothink", "codec_think_bos", "codec_think_eos"):
        codec[name] = getattr(config.talker, f"{name}_id")
    return text | codec | {"newline": tokenizer.encode("\n", add_special_tokens=False).ids[0]}


def sequence(track: Track, text: Sequence[int], codes: np.ndarray, places: np.ndarray, voice_codes: np.ndarray, ids: Mapping[str, int], content: int) -> Rows:
    """The rows of one utterance, `codes` [frames, groups] that speak the tokens of `text` at `places` [frames]; its prompt has `content` rows of what the
    user said."""
    user = [ids["im_start"], ids["user"], ids["newline"], *[ids["tts_pad"]] * content, ids["im_end"], ids["newline"]]
    prompt = interleaved_prompt(user, {row: np.zeros(1, np.float32) for row in range(3, 3 + content)}, 1, CONTENT_ROWS, ids, Manner(voice_codes))
    start = len(prompt.text_ids)
    fed = np.cumsum(np.array(track.text_ids) != NOTHING)[track.asked]
    ended_places = np.append(places, len(text))
    return Rows(
        text_ids=np.concatenate([prompt.text_ids, track.text_ids]),
        codec_ids=np.concatenate([prompt.codec_ids, np.full(len(track.text_ids), NOTHING)]),
        hidden_index=prompt.hidden_index,
        frames=np.concatenate([prompt.frames, codes]),
        frame_index=np.concatenate([prompt.frame_index, start + np.array(track.frame_rows, np.int64)]),
        asked=start + np.array(track.asked),
        answers=np.append(codes[:, 0], ids["codec_eos"]),
        may_end=np.array(track.may_end),
        spoken=np.append(text, ids["tts_eos"])[ended_places],
        ahead=np.clip(fed - ended_places, 0, MOST_AHEAD - 1),
        targets=codes,
    )


class Speech:
    """What the Talker learns from: utterances of its voices as text ids and codes, in batches of similar length."""

    def __init__(self, corpus: Corpus, codes: Sequence[Sequence[np.ndarray]], tokenizer: Any, ids: Mapping[str, int], dual_track: bool = False) -> None:
        """`codes`: uint8 [frames, groups] of every item, in one or more variations."""
        self.ids, self.dual_track, self.vocabulary = ids, dual_track, tokenizer.get_vocab_size()
        numbers = [number for number, item in enumerate(corpus.items) if item.voice in VOICES]
        self.codes = {number: [variation[number].astype(np.int64) for variation in codes] for number in numbers}
        self.text = {number: tokenizer.encode(corpus.items[number].text, add_special_tokens=False).ids for number in numbers}
        self.voice = {number: corpus.items[number].voice for number in numbers}
        self.numbers = [number for number in numbers if max(map(len, self.codes[number])) <= LONGEST]
        self.by_voice = {voice: [number for number in self.numbers if self.voice[number] == voice] for voice in VOICES}
        texts, entries = list(self.text.values()), 1 + max(int(rows[:, 0].max()) for rows in codes[0])
        aligner = Aligner(texts, [self.codes[number][0][:, 0] for number in numbers], self.vocabulary, entries)
        self.places = {number: [aligner.spoken(text, rows[:, 0]) for rows in self.codes[number]] for number, text in zip(numbers, texts, strict=True)}

    def _any(self, number: int, noise: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """One of the variations of an item, and the places in its text that its frames speak."""
        variation = int(noise.integers(len(self.codes[number])))
        return self.codes[number][variation], self.places[number][variation]

    def example(self, number: int, noise: np.random.Generator) -> Rows:
        """One utterance as it is learnt this time."""
        others = self.by_voice[self.voice[number]]
        other, _ = self._any(others[int(noise.integers(len(others)))], noise)
        length = min(len(other), int(noise.integers(PROMPT_FRAMES[0], PROMPT_FRAMES[1] + 1)))
        start = int(noise.integers(len(other) - length + 1))
        voice_codes, content = other[start : start + length], int(noise.integers(1, CONTENT_ROWS + 1))
        text, (codes, places) = self.text[number], self._any(number, noise)
        end, pad = self.ids["tts_eos"], self.ids["tts_pad"]
        policy = draw_policy(noise, len(text), len(codes))
        track = dual_track(text, len(codes), end, pad) if self.dual_track else interleaved(text, len(codes), policy, end)
        return sequence(track, text, codes, places, voice_codes, self.ids, content)

    def batches(self, noise: np.random.Generator) -> Iterator[list[Rows]]:
        """Endless batches of about BATCH_ROWS rows, padding included."""
        while True:
            for pool in np.array_split(noise.permutation(self.numbers), max(1, len(self.numbers) // 300)):
                examples = sorted((self.example(int(number), noise) for number in pool), key=lambda rows: len(rows.text_ids))
                groups: list[list[Rows]] = [[]]
                for rows in examples:
                    if groups[-1] and (len(groups[-1]) + 1) * len(rows.text_ids) > BATCH_ROWS:
                        groups.append([])
                    groups[-1].append(rows)
                for index in noise.permutation(len(groups)):
                    yield groups[index]


def read_frames(batch: list[Rows], noise: torch.Generator) -> Tensor:
    """The frames that are read, int64 [frames of all sequences, groups], as the Talker might have made them."""
    frames = torch.from_numpy(np.concatenate([rows.frames for rows in batch]))
    of_each = torch.tensor([len(rows.frames) for rows in batch])
    groups = frames.shape[1]
    # from which code on they are others': beyond the last, for a part of the sequences
    rough = torch.where(torch.rand(len(batch), generator=noise) < ROUGH_SHARE, torch.randint(2, groups, (len(batch),), generator=noise), groups)
    shuffled = frames[torch.randperm(len(frames), generator=noise)]
    frames = torch.where(torch.arange(groups) < rough.repeat_interleave(of_each)[:, None], frames, shuffled)
    share = MOST_CORRUPTED * torch.rand(len(batch), generator=noise).repeat_interleave(of_each)
    return torch.where((torch.rand(len(frames), generator=noise) < share)[:, None], shuffled, frames)


def asked_rows(talker: Talker, batch: list[Rows], frames: Tensor) -> tuple[Tensor, Tensor]:
    """The hidden rows [asked rows of all sequences, hidden] that first codes and ends are chosen from, where `frames` int64 [frames of all sequences, groups]
    are read, and which of them choose a first code, bool."""
    tokens, width = max(len(rows.text_ids) for rows in batch), talker.text.hidden_size
    text_ids, codec_ids = torch.full((len(batch), tokens), NOTHING), torch.full((len(batch), tokens), NOTHING)
    for index, rows in enumerate(batch):
        text_ids[index, : len(rows.text_ids)], codec_ids[index, : len(rows.codec_ids)] = torch.from_numpy(rows.text_ids), torch.from_numpy(rows.codec_ids)

    def flat(name: str) -> Tensor:
        return torch.from_numpy(np.concatenate([getattr(rows, name) + index * tokens for index, rows in enumerate(batch)]))

    hidden_index, frame_index, asked = flat("hidden_index"), flat("frame_index"), flat("asked")
    text = talker.text_embedding[text_ids.clamp(min=0)]
    heard = talker.hidden_projection(torch.zeros(len(hidden_index), talker.hidden_projection.weight.shape[0]))
    x = talker.joined(text_ids, text, heard, hidden_index, codec_ids, talker.frame_rows(frames), frame_index)
    positions = torch.arange(tokens, dtype=torch.float32).expand(3, len(batch), tokens)
    lengths, nothing = torch.zeros(len(batch), dtype=torch.int64), torch.zeros(0)
    rotary = rotary_tables(positions, talker.text.rope, talker.text.head_dim)
    x, _ = run_layers(talker.layers, x, rotary, lengths, lengths, [nothing] * (2 * len(talker.layers)))
    spoken = torch.from_numpy(np.concatenate([np.arange(len(rows.answers)) < len(rows.targets) for rows in batch]))
    return talker.norm(x).reshape(-1, width)[asked], spoken


def losses(
    talker: Talker, predictor: PredictorStep, follower: nn.Linear, batch: list[Rows], noise: torch.Generator, through: Through | None = None
) -> tuple[Tensor, Tensor, Tensor, dict[str, float]]:
    """Cross entropy of the first codes, of the residual codes and of the place in the text (both answers of the `follower`), and values for the curves."""
    wanted, spoken = asked_rows(talker, batch, read_frames(batch, noise))
    logits = talker.head(wanted)
    answers = torch.from_numpy(np.concatenate([rows.answers for rows in batch]))
    may_end = torch.from_numpy(np.concatenate([rows.may_end for rows in batch]))
    # What the runtime suppresses is no choice here either: special ids always, the end until the text has ended.
    end = int(batch[0].answers[-1])
    suppressed = torch.zeros(logits.shape, dtype=torch.bool)
    suppressed[:, talker.codebook :] = True
    suppressed[:, end] = ~may_end
    logits = logits.masked_fill(suppressed, -torch.inf)
    first = F.cross_entropy(logits, answers)
    targets = torch.from_numpy(np.concatenate([rows.targets for rows in batch]))
    chosen = torch.randint(len(targets), (PREDICTED_FRAMES,), generator=noise)
    residual = residual_losses(talker, predictor, wanted[spoken][chosen], targets[chosen], through)
    right = (logits.argmax(1) == answers).float()
    tokens, ahead = (torch.from_numpy(np.concatenate([getattr(rows, name) for rows in batch])) for name in ("spoken", "ahead"))
    followed, lead = follower(wanted).split((follower.out_features - MOST_AHEAD, MOST_AHEAD), dim=1)
    values = {"first": first.item(), "residual": residual.mean().item(), "right": right[spoken].mean().item(), "end_right": right[~spoken].mean().item()}
    values |= {"followed": (followed.argmax(1) == tokens).float().mean().item(), "ahead": (lead.argmax(1) == ahead).float().mean().item()}
    place = F.cross_entropy(followed, tokens) + F.cross_entropy(lead, ahead)
    # Earlier codes are heard more, and can be known: the later ones are nearly noise.
    weights = 1 / torch.arange(1, len(residual) + 1)
    total = (residual * weights).sum() / weights.sum()
    return first, total, place, values | {f"residual{group}": residual[group - 1].item() for group in (1, 4, 15)}


def residual_losses(talker: Talker, predictor: PredictorStep, hidden: Tensor, codes: Tensor, through: Through | None = None) -> Tensor:
    """Mean cross entropy of each residual code [groups - 1]: hidden [frames, talker hidden] are the rows that chose the first codes, codes [frames, groups].
    `through`: the predictor's layers in another form."""
    config, groups = predictor.config, talker.groups
    tables = torch.cat((talker.codec_embedding[: talker.codebook], talker.residual_embedding))
    embedded = F.embedding(codes[:, :-1] + torch.arange(groups - 1) * talker.codebook, tables)  # [frames, groups - 1, talker hidden]
    x = torch.cat((hidden[:, None], embedded), dim=1)
    if predictor.projection is not None:
        x = predictor.projection(x)
    positions = torch.arange(groups, dtype=torch.float32).expand(1, len(x), groups)
    x = (through or layers_of(predictor))(x, *rotary_tables(positions, config.rope, config.head_dim))
    logits = torch.einsum("fgh,ghc->gfc", predictor.norm(x[:, 1:]), predictor.heads)  # [groups - 1, frames, codebook]
    return torch.stack([F.cross_entropy(logits[group], codes[:, group + 1]) for group in range(groups - 1)])


def layers_of(predictor: PredictorStep) -> Through:
    """The predictor's layers on rows [frames, groups, hidden], with tables of rotate, beginning with empty states."""
    layers = predictor.layers

    def through(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        lengths, nothing = torch.zeros(len(x), dtype=torch.int64), torch.zeros(0)
        made: Tensor = run_layers(layers, x, (cosine, sine), lengths, lengths, [nothing] * (2 * len(layers)))[0]
        return made

    return through


def new_modules(config: OmniConfig) -> tuple[Talker, PredictorStep]:
    """Talker and predictor with start values; the predictor's own table is not used: it shares the Talker's."""
    assert config.talker is not None
    talker, predictor = Talker(config.talker), PredictorStep(config.talker)
    initialise([talker], residual=config.talker.text.num_hidden_layers)
    initialise([predictor], residual=config.talker.predictor.num_hidden_layers)
    with torch.no_grad():
        talker.residual_embedding.mul_(0.3)
        talker.head.weight.mul_(0.5)
        predictor.heads.mul_(0.5)
        talker.hidden_projection.weight.zero_()
        nn.init.normal_(talker.hidden_projection.bias, std=0.5)  # type: ignore[arg-type]  # the whole row: one of zeros has no direction to be normalised
        predictor.code_embedding.zero_()
    talker.hidden_projection.weight.requires_grad_(False)
    predictor.code_embedding.requires_grad_(False)
    return talker, predictor


def train(
    speech: Speech, folder: Path, config: OmniConfig, steps: int, minutes: float | None, seed: int = 0, rate: float = 2e-3, begin_with: Path | None = None
) -> Run:
    """Train, or go on with, the Talker in `folder`; a new training can `begin_with` the modules of another run."""
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
    run = Run(folder, {"talker": talker, "predictor": predictor, "follower": follower}, rate, steps, minutes, decay=0.1)
    stream = speech.batches(np.random.default_rng([seed, run.step]))
    noise = torch.Generator().manual_seed(seed + run.step)
    router_losses: list[Tensor] = []
    with differentiable(router_losses):
        for _ in run.steps():
            router_losses.clear()
            with torch.autocast("cpu", torch.bfloat16):
                first, residual, followed, values = losses(talker, predictor, follower, next(stream), noise, through)
            run.update(first + residual + FOLLOWED * followed + ROUTER_WEIGHT * sum(router_losses, torch.zeros(())))
            run.log(**values, router=sum(loss.item() for loss in router_losses) / len(router_losses))
    return run


def main() -> None:
    """Train from the command line."""
    from tokenizers import Tokenizer

    from ...graphs.read_config import read_config

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("codes", type=Path, nargs="+", help="of train_tiny.codes: the recordings as they are, and variations")
    parser.add_argument("--checkpoint", type=Path, required=True, help="from train_tiny.shape: configuration and tokenizer")
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--minutes", type=float, help="end the schedule after so many minutes of training")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--begin-with", type=Path, metavar="RUN", help="start values for a new training: the modules of another one")
    parser.add_argument("--dual-track", action="store_true", help="for the study alone: text added to frames")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tokenizer, config = Tokenizer.from_file(str(arguments.checkpoint / "tokenizer.json")), read_config(arguments.checkpoint)
    corpus = Corpus(arguments.corpus)
    speech = Speech(corpus, [load_codes(path, corpus) for path in arguments.codes], tokenizer, special_ids(config, tokenizer), arguments.dual_track)
    train(speech, arguments.run, config, arguments.steps, arguments.minutes, rate=arguments.rate, begin_with=arguments.begin_with)


if __name__ == "__main__":
    command(main)
