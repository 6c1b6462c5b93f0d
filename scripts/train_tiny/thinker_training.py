"""Trains the Thinker and its audio encoder, on endless typed prompts and on the spoken prompts of the corpus.

    python -m antiphon.scripts.train_tiny.thinker_training CORPUS RUN --checkpoint START
        [--minutes 95] [--deaf]

This is gate (c) in graphs/pretrained/tiny/README.md. Losses: the answers, after typed and after spoken
prompts; the words of a recording by CTC from the audio features. CTC scores features against the Thinker's
own embedding (Hearing), so that heard words resemble typed ones.
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...graphs.checkpoints.read_config import read_config
from ...graphs.config import OmniConfig
from ...graphs.stages.audio_encoder import AudioEncoder
from ...graphs.stages.thinker import Thinker
from .command import command
from .differentiable import differentiable
from .domain import WORDS, Exchange, draw, is_held_out
from .hearing_data import Recordings, augmented, held_out_recordings, plain
from .run import Run, initialise, trained
from .small_talk import SMALL_TALK
from .thinker_rows import SILENT, Batch, Layout, Turn, answer_logits

TEXT_TOKENS = 1024
"""Tokens per step, including padding."""
CLIPS = 24
"""Clips per step."""
POOL = 16
"""Batches drawn at a time, to group similar lengths."""
FREQUENT = (
    ("sum",) * 10 + ("number",) * 2 + ("count",) * 3 + ("spelling",) * 3 + ("talk",) * 3 + ("color",) * 2
)
"""Kinds drawn more often than by their shares, because they have the most contents or are the hardest."""
MADE_UP, GAPS = 0.7, 0.4
"""Shares of spelled words that are invented, and of prompts with a missing or changed word."""
CTC_WEIGHT, ROUTER_WEIGHT = 0.5, 0.01
EVALUATE_EVERY = 250
REPEAT = "Repeat what I said."
"""Text after a recording whose words are the answer: recordings without a question teach hearing too."""


PROMPT_TIMES, OVERHEARD = 2, 0.7
"""Weight of prompts relative to other recordings, and the share of those that train by CTC alone, which is
cheap."""


class Hearing(nn.Module):
    """A network for training the audio encoder only.

    It gives log-probabilities of tokens from the similarity of features and embedded tokens; the last is
    blank.
    """

    def __init__(self, hidden: int, vocabulary: int) -> None:
        super().__init__()
        self.inner = nn.Linear(hidden, hidden)
        nn.init.eye_(self.inner.weight)
        nn.init.zeros_(self.inner.bias)
        self.blank = nn.Parameter(torch.randn(1, hidden) * 0.1)
        self.bias = nn.Parameter(torch.zeros(vocabulary + 1))

    def forward(self, features: Tensor, embedding: Tensor) -> Tensor:
        """features [..., hidden], embedding [vocabulary, hidden] -> [..., vocabulary + 1]."""
        words = torch.cat((embedding.detach(), self.blank))
        scores: Tensor = self.inner(features) @ words.T * (0.25 * words.shape[1] ** 0.5 / 7) + self.bias
        return scores.log_softmax(-1)


def text_turn(layout: Layout, choice: random.Random) -> Turn:
    """A typed exchange of the training contents, sometimes written carelessly."""
    exchange = draw(choice, False, choice.choice(FREQUENT) if choice.random() < 0.4 else None)
    text, answer = worded(exchange, choice), exchange.answer
    if exchange.kind == "spelling" and choice.random() < MADE_UP:
        word = made_up_word(choice)
        before, found, after = text.rpartition(exchange.key)
        text, answer = (before + word + after, ", ".join(word.upper()) + ".") if found else (text, answer)
    if exchange.kind in ("talk", "color") and choice.random() < GAPS:
        gapped = with_gap(text, choice, None if exchange.kind == "talk" else COLOUR_WORDS)
        text = text if plain(gapped).lower() in KEPT_BACK else gapped
    return Turn(layout.encode(text), layout.encode(answer))


KEPT_BACK = {
    plain(wording).lower()
    for wordings, _ in SMALL_TALK
    for wording in wordings
    if is_held_out(f"talk:{wording}")
}
"""Small talk for evaluation: "Bye bye." with a missing word must not become "Bye."."""
COLOUR_WORDS = "what which color is does have? have tell me the of do and make? make mix you get? get".split()


def made_up_word(choice: random.Random) -> str:
    """The head of one word and the tail of another, not held out; teaches the letters of every part of a
    word."""
    while True:
        first, second = choice.choice(WORDS), choice.choice(WORDS)
        word = first[: choice.randint(1, len(first))] + second[choice.randint(0, len(second) - 1) :]
        if 3 <= len(word) <= 6 and not is_held_out(f"spelling:{word}"):
            return word


def with_gap(text: str, choice: random.Random, among: Sequence[str] | None) -> str:
    """`text` without one of its words, or with another in its place; the word is one of `among` (lower case),
    if given."""
    words = text.split()
    places = [place for place, word in enumerate(words) if among is None or word.lower() in among]
    if len(words) < 2 or not places:
        return text
    place = choice.choice(places)
    words[place : place + 1] = (
        [choice.choice(draw(choice, False).spoken.split())] if choice.random() < 0.3 else []
    )
    return " ".join(words)


def worded(exchange: Exchange, choice: random.Random) -> str:
    """The question with digits or words, as it is or without capitals and marks; sums also as formulas."""
    if exchange.kind == "sum" and choice.random() < 0.1:
        first, second = exchange.key.split("+")
        return choice.choice(
            ("{}+{}", "{} + {}", "{} plus {}", "{} plus {}?", "{} + {} =", "What's {} + {}?", "what is {}+{}")
        ).format(first, second)
    text = exchange.typed if choice.random() < 0.6 else exchange.spoken
    if choice.random() < 0.3:
        if choice.random() < 0.6:
            text = text.rstrip(".?!")
        if choice.random() < 0.6:
            text = text.lower()
    return text


def text_batches(layout: Layout, choice: random.Random) -> Iterator[Batch]:
    """Endless batches; a quarter of the conversations have several turns, all with a loss."""
    while True:
        conversations, tokens = [], 0
        while tokens < POOL * TEXT_TOKENS:
            turns = [
                text_turn(layout, choice) for _ in range(choice.choice((1, 1, 1, choice.choice((2, 2, 3)))))
            ]
            conversations.append((len(layout.ids(turns)[0]), turns))
            tokens += conversations[-1][0]
        conversations.sort(key=lambda entry: entry[0] + choice.random())
        groups: list[list[list[Turn]]] = [[]]
        for length, turns in conversations:
            if (len(groups[-1]) + 1) * length > TEXT_TOKENS:
                groups.append([])
            groups[-1].append(turns)
        choice.shuffle(groups)
        for group in groups:
            yield layout.batch(group)


def sound_batches(
    layout: Layout, recordings: Recordings, noise: np.random.Generator
) -> Iterator[tuple[Batch, list[np.ndarray], list[list[int]]]]:
    """Endless batches of spoken prompts and recordings to repeat; all sounds, first those of the batch; the
    word ids of each."""
    choice = random.Random(int(noise.integers(2**31)))
    prompts, others = (
        [number for number, clip in enumerate(recordings.clips) if (clip.answer is not None) == asks]
        for asks in (True, False)
    )
    while True:
        order = noise.permutation(PROMPT_TIMES * prompts + others)
        for pool in np.array_split(order, max(1, len(order) // (8 * CLIPS))):
            pool = pool[np.argsort([recordings.clips[number].frames for number in pool], kind="stable")]
            groups = np.array_split(pool, max(1, round(len(pool) / CLIPS)))
            for index in noise.permutation(len(groups)):
                conversations, heard, overheard = [], [], []
                for number in groups[index]:
                    clip = recordings.clips[number]
                    sound, words = (
                        augmented(recordings.power(int(number)), noise),
                        layout.encode(plain(clip.text)),
                    )
                    if clip.answer is None and choice.random() < OVERHEARD:
                        overheard.append((sound, words))
                        continue
                    asked = clip.answer is not None and choice.random() < 0.9
                    prompt, answer = ("", clip.answer) if asked else (REPEAT, clip.text)
                    turn = Turn(layout.encode(prompt), layout.encode(answer or ""), sound)
                    conversations.append(
                        [text_turn(layout, choice), turn] if choice.random() < 0.1 else [turn]
                    )
                    heard.append((sound, words))
                if conversations:
                    yield (
                        layout.batch(conversations),
                        [sound for sound, _ in heard + overheard],
                        [words for _, words in heard + overheard],
                    )


def ctc_loss(scores: Tensor, tokens: Sequence[int], words: Sequence[Sequence[int]]) -> Tensor:
    """CTC loss of `scores`, log-probabilities [tokens of all sounds, vocabulary + 1], blank last.

    It is a mean over the sounds, each divided by its words.
    """
    padded = nn.utils.rnn.pad_sequence(list(scores.split(list(tokens))))
    targets, lengths = (
        torch.tensor([index for row in words for index in row]),
        torch.tensor([len(row) for row in words]),
    )
    return F.ctc_loss(
        padded, targets, torch.tensor(tokens), lengths, blank=scores.shape[1] - 1, zero_infinity=True
    )


@torch.no_grad()
def right_answers(
    thinker: Thinker, encoder: AudioEncoder, layout: Layout, turns: Sequence[Turn], size: int = 24
) -> list[bool]:
    """Whether each answer is the most probable, token by token, as in greedy decoding."""
    right: list[bool] = []
    for start in range(0, len(turns), size):
        batch = layout.batch([[turn] for turn in turns[start : start + size]])
        features = layout.features(encoder, batch.sounds)[0] if batch.sounds else None
        logits, targets = answer_logits(thinker, batch, layout.frontend.audio, features)
        rows = torch.nonzero(batch.targets != SILENT)[:, 0]
        wrong = torch.zeros(len(batch.ids)).index_add(0, rows, (logits.argmax(1) != targets).float())
        right += (wrong == 0).tolist()
    return right


class Examination:
    """Fixed held-out prompts: typed ones by kind, and spoken ones by voice if a file for their recordings is
    given."""

    def __init__(self, layout: Layout, recordings: Path | None, count: int = 160) -> None:
        self._layout = layout
        choice = random.Random("held out, typed")
        exchanges = [draw(choice, held_out=True) for _ in range(count)]
        self._cases = [
            (f"typed {exchange.kind}", Turn(layout.encode(exchange.typed), layout.encode(exchange.answer)))
            for exchange in exchanges
        ]
        if recordings is not None:
            self._cases += [
                (f"spoken {voice}", Turn([], layout.encode(answer), sound))
                for voice, answer, sound in held_out_recordings(recordings)
            ]

    def grades(self, thinker: Thinker, encoder: AudioEncoder) -> dict[str, float]:
        """The share of right answers by name, and of all typed and all spoken prompts."""
        grades = defaultdict(list)
        for heard in (False, True):
            cases = [(name, turn) for name, turn in self._cases if (turn.sound is not None) == heard]
            for (name, _), right in zip(
                cases, right_answers(thinker, encoder, self._layout, [turn for _, turn in cases]), strict=True
            ):
                grades[name].append(right)
                grades[f"{name.split()[0]} all"].append(right)
        return {name: float(np.mean(rights)) for name, rights in grades.items()}


def start(config: OmniConfig) -> tuple[Thinker, AudioEncoder]:
    """Both modules with initial values."""
    audio = config.thinker.audio
    assert audio is not None, "the tiny model hears"
    thinker, encoder = Thinker(config), AudioEncoder(audio)
    initialise([thinker], residual=2 * config.thinker.text.num_hidden_layers)
    initialise([encoder], residual=2 * audio.encoder_layers)
    with torch.no_grad():
        thinker.head.weight.mul_(0.2)  # the first predictions are even
        # GELU halves its input's scale: without this the encoder's positions would be much larger than the
        # audio.
        for name, parameter in encoder.convolutions.named_parameters():
            if name.endswith("weight"):
                parameter.mul_(1.7)
        # This layer is not the branch of a residual layer.
        encoder.convolution_output.weight.normal_(0, encoder.convolution_output.weight.shape[0] ** -0.5)
    return thinker, encoder


def train(
    checkpoint: Path,
    corpus: Path | None,
    folder: Path,
    steps: int,
    minutes: float | None,
    rate: float = 2e-3,
    seed: int = 0,
    begin_with: Path | None = None,
) -> Run:
    """Train both in `folder`, or continue their training; without a corpus the text alone.

    A new training can `begin_with` the modules of another run.
    """
    torch.manual_seed(seed)
    config = read_config(checkpoint)
    layout = Layout(checkpoint, config)
    thinker, encoder = start(config)
    hearing = Hearing(config.thinker.text.hidden_size, config.thinker.text.vocab_size)
    modules: dict[str, nn.Module] = {"thinker": thinker, "audio_encoder": encoder, "hearing": hearing}
    if begin_with is not None:
        trained(begin_with, modules)
    run = Run(folder, modules, rate, steps, minutes, warmup=300)
    texts = text_batches(layout, random.Random(f"thinker {seed} {run.step}"))
    sounds = None
    if corpus is not None:
        sounds = sound_batches(
            layout, Recordings(corpus, folder / "mels.npy"), np.random.default_rng(seed + run.step)
        )
    examination = None
    router: list[Tensor] = []
    with differentiable(router):
        for step in run.steps():
            with torch.autocast("cpu", torch.bfloat16):
                logits, targets = answer_logits(thinker, next(texts), layout.frontend.audio, None)
            loss = F.cross_entropy(logits, targets)
            run.log(text=loss.item(), text_right=(logits.argmax(1) == targets).float().mean().item())
            if sounds is not None:
                batch, heard_sounds, words = next(sounds)
                with torch.autocast("cpu", torch.bfloat16):
                    features, tokens = layout.features(encoder, heard_sounds)
                    logits, targets = answer_logits(
                        thinker, batch, layout.frontend.audio, features[: sum(tokens[: len(batch.sounds)])]
                    )
                heard = ctc_loss(hearing(features.float(), thinker.embedding), tokens, words)
                answered = F.cross_entropy(logits, targets)
                run.log(
                    ctc=heard.item(),
                    spoken=answered.item(),
                    spoken_right=(logits.argmax(1) == targets).float().mean().item(),
                )
                loss = loss + CTC_WEIGHT * heard + answered
            balance = torch.stack(router).mean()
            router.clear()
            run.update(loss + ROUTER_WEIGHT * balance)
            run.log(balance=balance.item())
            if (step + 1) % EVALUATE_EVERY == 0:
                examination = examination or Examination(layout, folder / "held_out.npz" if corpus else None)
                run.log(**examination.grades(thinker, encoder))
                router.clear()
    return run


def main() -> None:
    """Train from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="from train_tiny.shape: configuration and tokenizer"
    )
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--minutes", type=float, help="end the schedule after so many minutes of training")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument(
        "--begin-with",
        type=Path,
        metavar="RUN",
        help="start values for a new training: the modules of another one",
    )
    parser.add_argument(
        "--deaf", action="store_true", help="text alone; without it the same run goes on with hearing"
    )
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    corpus = None if arguments.deaf else arguments.corpus
    train(
        arguments.checkpoint,
        corpus,
        arguments.run,
        arguments.steps,
        arguments.minutes,
        arguments.rate,
        begin_with=arguments.begin_with,
    )


if __name__ == "__main__":
    command(main)
