"""Trains Code2Wav, from the frozen codes of the codec encoder to the waveform.

    python -m antiphon.scripts.train_tiny.vocoder_training CORPUS CODEC_RUN CODES.npz RUN --checkpoint START
        [--minutes 85]
    python -m antiphon.scripts.train_tiny.vocoder_training ... --resynthesise 8 FOLDER
        (writes examples of the trained model, instead of training)

This is the second half of gate (a) in graphs/pretrained/tiny/README.md. The codebooks stay those of the
encoder; their output projections are trained. Losses: `spectral_losses`. The transformer sees an utterance
from its start, the decoder a crop of it; the first frames of a crop only fill the convolutions. RUN keeps a
moving average of the weights, which is published.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...graphs.config import Code2WavConfig, CodecEncoderConfig
from ...graphs.stages.code2wav.module import Code2Wav
from .codec_training import FRAME, trainable_encoder
from .codes import load_codes
from .command import command
from .corpus import Corpus
from .run import Run, initialise, trained
from .spectral_losses import SpectralLosses
from .stored import tie_repeated_biases
from .vocoder_forward import hidden_frames, keep_positive, waveform

CROP, CONTEXT, HISTORY = 18, 3, 96
"""Frames of a crop, those of them without a loss, and the most frames before it that the transformer sees."""
BATCH = 6
FINE = 0.85
"""Share of the schedule after which all is in float32; bfloat16 adds noise of about -30 dB to the audio."""
WEIGHTS = {"logarithm": 1.0, "convergence": 0.5, "mel": 1.5}
OTHER_VOICES = 0.5
"""Weight of a second of a voice that never answers, relative to one that does."""


class TrainedVocoder(nn.Module):
    """Code2Wav for training: the stage's module, whose table of codes comes from fixed codebooks and trained
    projections.

    `entries` float32 [codebooks, size, codebook_dim]; `semantic` and `acoustic` [codebook_dim, quantizer_dim]
    are the output projections (transposed).
    """

    entries: Tensor

    def __init__(self, config: Code2WavConfig) -> None:
        super().__init__()
        self.config = config
        self.module = Code2Wav(config)
        initialise([self.module])
        with torch.no_grad():
            for name, parameter in self.module.named_parameters():
                if name.endswith("pointwise"):
                    parameter.mul_(0.3)  # the outputs of twelve residual units add up
            self.module.output.weight.mul_(0.2)  # starts near the loudness of speech
        self.module.code_embedding.requires_grad_(False).zero_()
        tie_repeated_biases(self.module)
        self.register_buffer(
            "entries", torch.zeros(config.num_quantizers, config.codebook_size, config.codebook_dim)
        )
        self.semantic, self.acoustic = (
            nn.Parameter(torch.randn(config.codebook_dim, config.quantizer_dim)) for _ in range(2)
        )

    @torch.no_grad()
    def take_codebooks(self, run: Path, config: CodecEncoderConfig) -> None:
        """Take the entries of the trained encoder, and projections that give values of about unit
        variance."""
        encoder = trainable_encoder(config)
        trained(run, {"encoder": encoder})
        self.entries.copy_(torch.cat((encoder.semantic.entries, encoder.acoustic.entries)))  # type: ignore[arg-type]
        variance = self.entries.var(1).sum(1)  # of a whole entry, per codebook
        self.semantic.mul_((2 * variance[:1].sum()) ** -0.5)
        self.acoustic.mul_((2 * variance[1:].sum()) ** -0.5)

    def embedded(self, codes: Tensor) -> Tensor:
        """codes int64 [batch, frames, codebooks] -> the sum of their table rows, [batch, frames,
        quantizer_dim]."""
        rows = self.config.codebook_size * torch.arange(codes.shape[2])
        vectors = F.embedding(codes + rows, self.entries.flatten(0, 1))
        semantic = self.config.num_semantic_quantizers
        return (
            vectors[:, :, :semantic].sum(2) @ self.semantic + vectors[:, :, semantic:].sum(2) @ self.acoustic
        )

    def forward(self, codes: Tensor, first: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        """codes int64 [batch, frames, codebooks], first int64 [batch] (the first frame of each crop) -> audio
        [batch, CROP * 1920]."""
        hidden = hidden_frames(self.module, self.embedded(codes))
        places = first[:, None] + torch.arange(CROP)
        return waveform(
            self.module, hidden.gather(1, places[:, :, None].expand(-1, -1, hidden.shape[2])), dtype
        )

    @torch.no_grad()
    def stage_module(self) -> Code2Wav:
        """A copy of the stage's module with the table of codes filled in."""
        module = copy.deepcopy(self.module)
        semantic = self.config.num_semantic_quantizers
        table = torch.cat((self.entries[:semantic] @ self.semantic, self.entries[semantic:] @ self.acoustic))
        module.code_embedding.copy_(table.flatten(0, 1))
        return module


Crops = tuple[Tensor, Tensor, Tensor, Tensor]
"""codes int64 [batch, frames, codebooks], first int64 [batch], target audio [batch, CROP * 1920], mask like
audio."""


def crops(corpus: Corpus, codes: list[np.ndarray], noise: np.random.Generator) -> Iterator[Crops]:
    """Endless batches that draw every frame of the corpus about equally often."""
    answering = {item.voice for item in corpus.items if item.role == "answer"}
    shares = np.array(
        [
            len(rows) * (1.0 if item.voice in answering else OTHER_VOICES)
            for item, rows in zip(corpus.items, codes, strict=True)
        ]
    )
    while True:
        yield _batch(corpus, codes, noise.choice(len(codes), BATCH, p=shares / shares.sum()), noise)


def _batch(corpus: Corpus, codes: list[np.ndarray], numbers: np.ndarray, noise: np.random.Generator) -> Crops:
    streams, firsts = [], []
    wanted, counted = np.zeros((2, len(numbers), CROP * FRAME), np.float32)
    for row, number in enumerate(numbers):
        frames = len(codes[number])
        # Starts may lie beyond both ends, so that the first and last frames are drawn as often as others.
        start = int(np.clip(noise.integers(-CROP // 2, max(1, frames - CROP // 2)), 0, max(0, frames - CROP)))
        before = max(0, start - HISTORY)
        streams.append(codes[number][before : start + CROP])
        firsts.append(start - before)
        clip = corpus.audio(number)[start * FRAME : (start + CROP) * FRAME]
        wanted[row, : len(clip)] = clip
        counted[row, (CONTEXT if start else 0) * FRAME : (frames - start) * FRAME] = 1.0
    # Codes after a short utterance may be any: masked samples alone depend on them.
    stacked = np.zeros((len(numbers), max(first + CROP for first in firsts), codes[0].shape[1]), np.int64)
    for place, stream in zip(stacked, streams, strict=True):
        place[: len(stream)] = stream
    return (
        torch.from_numpy(stacked),
        torch.tensor(firsts),
        torch.from_numpy(wanted),
        torch.from_numpy(counted),
    )


def loss_of(
    vocoder: TrainedVocoder, losses: SpectralLosses, batch: Crops, dtype: torch.dtype = torch.bfloat16
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum and the parts of the loss of a batch."""
    codes, first, wanted, counted = batch
    parts = losses(vocoder(codes, first, dtype) * counted, wanted * counted)
    return sum((WEIGHTS[name] * part for name, part in parts.items()), torch.zeros(())), parts


def train(
    corpus: Corpus,
    codes: list[np.ndarray],
    folder: Path,
    vocoder: TrainedVocoder,
    steps: int,
    minutes: float | None,
    rate: float = 1.5e-3,
    seed: int = 0,
) -> Run:
    """Train `vocoder` in `folder`, or continue its training."""
    losses, average = SpectralLosses(), copy.deepcopy(vocoder).requires_grad_(False)
    run = Run(folder, {"vocoder": vocoder, "average": average}, rate, steps, minutes, betas=(0.8, 0.99))
    stream = crops(corpus, codes, np.random.default_rng(seed + run.step))
    followed: list[Tensor] = list(vocoder.parameters())
    following: list[Tensor] = list(average.parameters())
    for step in run.steps():
        loss, parts = loss_of(
            vocoder, losses, next(stream), torch.bfloat16 if run.progress < FINE else torch.float32
        )
        run.update(loss, clip=2.0)
        keep_positive(vocoder.module)
        with torch.no_grad():
            torch._foreach_lerp_(following, followed, 1 - min(0.999, (step + 1) / (step + 10)))
        run.log(loss=loss.item(), **{name: part.item() for name, part in parts.items()})
    return run


@torch.no_grad()
def rounded(vocoder: TrainedVocoder) -> TrainedVocoder:
    """A copy with the weights of a bfloat16 checkpoint; SnakeBeta's are rounded as logarithms."""
    copied = copy.deepcopy(vocoder)
    for name, parameter in copied.named_parameters():
        logarithms = name.endswith((".frequency", ".magnitude"))
        parameter.copy_(
            parameter.log().bfloat16().float().exp() if logarithms else parameter.bfloat16().float()
        )
    return copied


@torch.no_grad()
def evaluate(
    vocoder: TrainedVocoder, corpus: Corpus, codes: list[np.ndarray], batches: int = 6
) -> dict[str, float]:
    """Mean loss and its parts over a fixed set of crops of the corpus, in float32."""
    losses, stream = SpectralLosses(), crops(corpus, codes, np.random.default_rng(1))
    rows = []
    for _ in range(batches):
        total, parts = loss_of(vocoder, losses, next(stream), torch.float32)
        rows.append({"loss": total.item()} | {name: part.item() for name, part in parts.items()})
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


@torch.no_grad()
def resynthesise(vocoder: TrainedVocoder, codes: np.ndarray) -> np.ndarray:
    """Codes [frames, codebooks] to audio float32 [frames * 1920] by the stage's module."""
    module = vocoder.stage_module()
    past = [torch.zeros(1, *(int(size) for size in spec.shape[1:])) for spec in module.states()]
    return module(torch.from_numpy(codes.astype(np.int64))[None], torch.zeros(1, dtype=torch.long), *past)[0][
        0
    ].numpy()


def write_examples(
    vocoder: TrainedVocoder, corpus: Corpus, codes: list[np.ndarray], count: int, folder: Path
) -> None:
    """Write `count` utterances: each original next to the resynthesised one."""
    import soundfile

    folder.mkdir(parents=True, exist_ok=True)
    for number in np.linspace(0, len(codes) - 1, count).astype(int):
        item = corpus.items[number]
        soundfile.write(folder / f"{number}_{item.voice}_wanted.wav", corpus.audio(number), 24_000)
        soundfile.write(
            folder / f"{number}_{item.voice}_made.wav",
            resynthesise(vocoder, codes[number])[: item.samples],
            24_000,
        )
        print(f"{number} {item.voice}: {item.text}")


def main() -> None:
    """Train, or resynthesise, from the command line."""
    from ...graphs.checkpoints.read_config import read_config

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("codec", type=Path, help="folder of codec_training")
    parser.add_argument("codes", type=Path, help="from train_tiny.codes, by the same encoder")
    parser.add_argument("run", type=Path)
    parser.add_argument("--checkpoint", type=Path, required=True, help="from train_tiny.shape: configuration")
    parser.add_argument("--steps", type=int, default=40_000)
    parser.add_argument("--minutes", type=float, help="end the schedule after so many minutes of training")
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--resynthesise",
        nargs=2,
        metavar=("COUNT", "FOLDER"),
        help="write utterances as WAV by the trained weights and stop",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    config = read_config(arguments.checkpoint)
    assert config.code2wav is not None and config.codec_encoder is not None
    corpus = Corpus(arguments.corpus)
    codes = load_codes(arguments.codes, corpus)
    vocoder = TrainedVocoder(config.code2wav)
    vocoder.take_codebooks(arguments.codec, config.codec_encoder)
    if not arguments.resynthesise:
        train(corpus, codes, arguments.run, vocoder, arguments.steps, arguments.minutes, arguments.rate)
    trained(arguments.run, {"average": vocoder})
    if arguments.resynthesise:
        write_examples(
            vocoder, corpus, codes, int(arguments.resynthesise[0]), Path(arguments.resynthesise[1])
        )
    for name, weights in (("average", vocoder), ("in bfloat16", rounded(vocoder))):
        print(name, {part: round(value, 4) for part, value in evaluate(weights, corpus, codes).items()})


if __name__ == "__main__":
    command(main)
