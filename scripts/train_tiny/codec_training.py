"""Trains the codec encoder and its residual quantiser, with temporary networks that read the codes.

    python -m antiphon.scripts.train_tiny.codec_training CORPUS RUN --checkpoint START [--steps 8000]
        [--minutes 40]

This is the first half of gate (a) in graphs/pretrained/tiny/README.md. Losses: log-mel reconstruction;
commitment to the codebooks; the text by CTC from the first codebook alone, so that it carries the words. The
codebooks are moving averages (van den Oord et al. 2017, arXiv 1711.00937, appendix A.1); unused entries are
replaced. The published encoder has no such networks: only encoder, input projections and codebooks are kept.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...graphs.config import CodecEncoderConfig
from ...graphs.layers.decoder import Projection
from ...graphs.stages.codec_encoder.stage import CodecEncoder
from .command import command
from .corpus import Corpus
from .differentiable import differentiable
from .run import Run, initialise

FRAME = 1920
MELS, MEL_HOP = 80, 240
LONGEST = 48
"""Frames of one training example; longer utterances are cut and have no text loss."""
BATCH_FRAMES = 320
UNUSED = 0.1
"""Share of the mean use below which an entry is replaced."""


class TrainedQuantiser(nn.Module):
    """A residual quantiser for training, in place of the ResidualQuantiser of graphs.

    Keeps the results of its last call.

    forward: latents [batch, frames, hidden] -> codes int64 [batch, frames] of each codebook. It also sets
    `quantised` [batch, frames, dim] (straight through) and `commitment`. With `mask` bool [batch, frames]
    set, only those frames count.
    """

    entries: Tensor
    sums: Tensor
    usage: Tensor

    def __init__(self, config: CodecEncoderConfig, codebooks: int) -> None:
        super().__init__()
        self.size, self.codebooks = config.codebook_size, codebooks
        self.projection = Projection(config.hidden_size, config.codebook_dim)
        self.register_buffer("entries", torch.randn(codebooks, self.size, config.codebook_dim) * 0.1)
        self.register_buffer("sums", torch.zeros(codebooks, self.size, config.codebook_dim))
        self.register_buffer("usage", torch.zeros(codebooks, self.size))
        self.mask: Tensor | None = None
        self.quantised = self.commitment = torch.zeros(())

    @torch.autocast("cpu", enabled=False)  # in float32, because distances decide between near entries
    def forward(self, latents: Tensor) -> list[Tensor]:
        projected = self.projection(latents.float())
        mask = torch.ones(projected.shape[:2], dtype=torch.bool) if self.mask is None else self.mask
        rest, chosen, losses = projected, [], []
        total = torch.zeros_like(projected)
        # Half of the examples use fewer codebooks, so that the first ones carry the most.
        kept = torch.full((len(projected), 1, 1), self.codebooks)
        if self.training and self.codebooks > 1:
            fewer = torch.randint(1, self.codebooks + 1, kept.shape)
            kept = torch.where(torch.rand(kept.shape) < 0.5, fewer, kept)
        for index in range(self.codebooks):
            entries = self.entries[index]
            with torch.no_grad():
                codes = (rest @ entries.T - entries.square().sum(1) / 2).argmax(2)
                if self.training:
                    self._follow(index, rest[mask], codes[mask])
            nearest = F.embedding(codes, entries)
            active = (index < kept).float()
            losses.append(((rest - nearest.detach()).square().mean(2, keepdim=True) * active)[mask].mean())
            total = total + nearest * active
            rest = rest - nearest.detach()
            chosen.append(codes)
        self.commitment = sum(losses[1:], losses[0])
        self.quantised = projected + (total - projected).detach()
        return chosen

    @torch.no_grad()
    def _follow(self, index: int, vectors: Tensor, codes: Tensor, decay: float = 0.98) -> None:
        """Move the entries to the vectors that chose them, and unused entries to random vectors."""
        counts = torch.bincount(codes, minlength=self.size).float()
        sums = torch.zeros_like(self.sums[index]).index_add(0, codes, vectors)
        self.usage[index].mul_(decay).add_(counts, alpha=1 - decay)
        self.sums[index].mul_(decay).add_(sums, alpha=1 - decay)
        dead = self.usage[index] < UNUSED * self.usage[index].mean()
        if dead.any():
            fresh = vectors[torch.randint(len(vectors), (int(dead.sum()),))]
            mean = self.usage[index].mean()
            self.usage[index][dead] = mean
            self.sums[index][dead] = fresh * mean
        self.entries[index] = self.sums[index] / self.usage[index][:, None].clamp(min=1e-5)


class Judges(nn.Module):
    """Networks for training only: codes to log-mel [batch, frames * 8, MELS], and the first codebook to
    text."""

    def __init__(self, dim: int, vocabulary: int, width: int = 192) -> None:
        super().__init__()
        self.semantic, self.acoustic = nn.Linear(dim, width, bias=False), nn.Linear(dim, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv1d(width, width, 3, padding=1), nn.GELU(), nn.Conv1d(width, width, 1))
            for _ in range(4)
        )
        self.spread = nn.Linear(width, FRAME // MEL_HOP * 96)
        self.fine = nn.Sequential(
            nn.Conv1d(96, 128, 3, padding=1),
            nn.GELU(),
            nn.Conv1d(128, 128, 3, padding=1),
            nn.GELU(),
            nn.Conv1d(128, MELS, 1),
        )
        self.reader = nn.Sequential(
            nn.Conv1d(dim, width, 5, padding=2),
            nn.GELU(),
            nn.Conv1d(width, width, 5, padding=2),
            nn.GELU(),
            nn.Conv1d(width, vocabulary + 1, 1),
        )

    def mel(self, semantic: Tensor, acoustic: Tensor) -> Tensor:
        x = (self.semantic(semantic) + self.acoustic(acoustic)).transpose(1, 2)
        for block in self.blocks:
            x = x + block(x)
        x = self.spread(x.transpose(1, 2)).reshape(len(x), -1, 96)
        return self.fine(x.transpose(1, 2)).transpose(1, 2)

    def text(self, semantic: Tensor) -> Tensor:
        """Log-probabilities [frames, batch, vocabulary + 1]; the last id is CTC's blank."""
        return self.reader(semantic.transpose(1, 2)).permute(2, 0, 1).log_softmax(2)


class LogMel(nn.Module):
    """Waveforms [batch, samples] at 24 kHz to natural log-mel [batch, samples / hop, mels]."""

    filters: Tensor
    shape: Tensor

    def __init__(self, window: int = 1024, hop: int = MEL_HOP, mels: int = MELS) -> None:
        super().__init__()
        import librosa

        self.window, self.hop = window, hop
        self.register_buffer(
            "filters",
            torch.from_numpy(librosa.filters.mel(sr=24_000, n_fft=window, n_mels=mels).T.astype(np.float32)),
            persistent=False,
        )
        self.register_buffer("shape", torch.hann_window(window), persistent=False)

    def magnitude(self, waveform: Tensor) -> Tensor:
        padded = F.pad(waveform[:, None], (self.window // 2, self.window // 2 - self.hop), mode="reflect")[
            :, 0
        ]
        spectrum = torch.stft(
            padded, self.window, self.hop, window=self.shape, center=False, return_complex=True
        )
        return (spectrum.real.square() + spectrum.imag.square() + 1e-9).sqrt().transpose(1, 2)

    def forward(self, waveform: Tensor) -> Tensor:
        return (self.magnitude(waveform) @ self.filters).clamp(min=1e-4).log()


def trainable_encoder(config: CodecEncoderConfig) -> CodecEncoder:
    """The stage's module with trainable quantisers."""
    encoder = CodecEncoder(config)
    initialise([encoder], residual=8)
    encoder.semantic = TrainedQuantiser(config, config.num_semantic_quantizers)  # type: ignore[assignment]
    encoder.acoustic = TrainedQuantiser(config, config.num_quantizers - config.num_semantic_quantizers)  # type: ignore[assignment]
    for quantiser in quantisers(encoder):
        nn.init.normal_(quantiser.projection.weight, std=config.hidden_size**-0.5)
    return encoder


def quantisers(encoder: CodecEncoder) -> tuple[TrainedQuantiser, TrainedQuantiser]:
    """The semantic and the acoustic quantiser of a trainable encoder."""
    semantic, acoustic = encoder.semantic, encoder.acoustic
    assert isinstance(semantic, TrainedQuantiser) and isinstance(acoustic, TrainedQuantiser)
    return semantic, acoustic


def batches(corpus: Corpus, tokenizer: Any, noise: np.random.Generator) -> Any:
    """Endless (waveform [batch, samples], samples int64 [batch], token ids of each, or [] if the utterance
    was cut)."""
    while True:
        order = noise.permutation(len(corpus.items))
        # Batches of similar lengths, so that there is little padding.
        for pool in np.array_split(order, max(1, len(order) // 400)):
            lengths = np.minimum([-(-corpus.items[number].samples // FRAME) for number in pool], LONGEST)
            groups: list[list[int]] = []
            group: list[int] = []
            for place in np.argsort(lengths + noise.random(len(pool))):
                if group and (len(group) + 1) * lengths[place] > BATCH_FRAMES:
                    groups.append(group)
                    group = []
                group.append(place)
            groups.append(group)
            for index in noise.permutation(len(groups)):
                yield _batch(corpus, tokenizer, [int(pool[place]) for place in groups[index]], noise)


def _batch(
    corpus: Corpus, tokenizer: Any, numbers: list[int], noise: np.random.Generator
) -> tuple[Tensor, Tensor, list[list[int]]]:
    clips, texts = [], []
    for number in numbers:
        clip = corpus.audio(number)
        whole = len(clip) <= LONGEST * FRAME
        if not whole:
            start = int(noise.integers(len(clip) - LONGEST * FRAME))
            clip = clip[start : start + LONGEST * FRAME]
        clips.append(clip)
        texts.append(
            tokenizer.encode(corpus.items[number].text, add_special_tokens=False).ids if whole else []
        )
    length = max(-(-len(clip) // FRAME) for clip in clips) * FRAME
    waveform = np.zeros((len(clips), length), np.float32)
    for row, clip in zip(waveform, clips, strict=True):
        row[: len(clip)] = clip
    return torch.from_numpy(waveform), torch.tensor([len(clip) for clip in clips]), texts


def train(
    corpus: Corpus,
    folder: Path,
    config: CodecEncoderConfig,
    tokenizer: Any,
    steps: int,
    minutes: float | None,
    seed: int = 0,
) -> Run:
    """Train the encoder in `folder`, or continue its training."""
    torch.manual_seed(seed)
    encoder, judges, mel = (
        trainable_encoder(config),
        Judges(config.codebook_dim, tokenizer.get_vocab_size()),
        LogMel(),
    )
    semantic, acoustic = quantisers(encoder)
    run = Run(folder, {"encoder": encoder, "judges": judges}, 1.5e-3, steps, minutes, betas=(0.9, 0.95))
    stream = batches(corpus, tokenizer, np.random.default_rng(seed + run.step))
    blank = tokenizer.get_vocab_size()
    with differentiable():
        for step in run.steps():
            waveform, samples, texts = next(stream)
            frames = -(-samples // FRAME)
            mask = torch.arange(waveform.shape[1] // FRAME) < frames[:, None]
            semantic.mask = acoustic.mask = mask
            with torch.autocast("cpu", torch.bfloat16):
                codes, _ = encoder(waveform, samples)
                made = judges.mel(semantic.quantised, acoustic.quantised).float()
            wanted = mel(waveform)
            difference = (made - wanted)[mask.repeat_interleave(FRAME // MEL_HOP, 1)]
            mel_loss = difference.abs().mean() + 0.25 * difference.square().mean()
            read = [row for row, text in enumerate(texts) if text]
            text_loss = torch.zeros(())
            if read:
                targets = torch.cat([torch.tensor(texts[row]) for row in read])
                lengths = torch.tensor([len(texts[row]) for row in read])
                text_loss = F.ctc_loss(
                    judges.text(semantic.quantised[read]),
                    targets,
                    frames[read],
                    lengths,
                    blank=blank,
                    zero_infinity=True,
                )
            commitment = semantic.commitment + acoustic.commitment
            run.update(mel_loss + 0.3 * text_loss + 0.25 * commitment, clip=2.0)
            run.log(
                mel=mel_loss.item(),
                absolute=difference.abs().mean().item(),
                text=text_loss.item(),
                commitment=commitment.item(),
            )
            if step % 50 == 0:
                used = [
                    codes[..., group][mask].unique().numel() / min(config.codebook_size, int(mask.sum()))
                    for group in (0, 1, 8, 15)
                ]
                run.log(**{f"used{group}": share for group, share in zip((0, 1, 8, 15), used, strict=True)})
    return run


def main() -> None:
    """Train from the command line."""
    from tokenizers import Tokenizer

    from ...graphs.checkpoints.read_config import read_config

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="from train_tiny.shape: configuration and tokenizer"
    )
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--minutes", type=float, help="end the schedule after so many minutes of training")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tokenizer = Tokenizer.from_file(str(arguments.checkpoint / "tokenizer.json"))
    config = read_config(arguments.checkpoint).codec_encoder
    assert config is not None
    train(Corpus(arguments.corpus), arguments.run, config, tokenizer, arguments.steps, arguments.minutes)


if __name__ == "__main__":
    command(main)
