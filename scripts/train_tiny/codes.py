"""Encodes a whole corpus with a trained codec encoder, for the training of Code2Wav and the Talker.

    python -m antiphon.scripts.train_tiny.codes CORPUS CODEC_RUN OUT.npz --checkpoint START [--variation SEED]

`--variation` shifts every recording by a part of a frame and makes it a little faster or slower: the same
speech as other codes. A Talker that sees only one code sequence per text memorises it (measured: 98 % of the
first codes right in training, 22 % on held-out texts).

OUT.npz holds `codes` uint8 [frames of all items, codebooks] and `ends` int64 [items], the end of every item's
rows. An item has ceil(samples / 1920) frames.
"""

from __future__ import annotations

import argparse
import zipfile
from pathlib import Path

import numpy as np
import torch

from ...graphs.config import CodecEncoderConfig
from ...runtime.bundle.errors import AntiphonError
from ..console import progress_bar
from .codec_training import FRAME, trainable_encoder
from .command import command
from .corpus import Corpus
from .differentiable import differentiable
from .run import trained

BATCH_FRAMES = 400
LARGEST_TEMPO = 0.06


def encode_corpus(run: Path, clips: list[np.ndarray], config: CodecEncoderConfig) -> list[np.ndarray]:
    """Codes uint8 [frames, codebooks] of every clip, float32 [samples] at 24 kHz, by the encoder of the
    training `run`.

    Does not change the run.
    """
    encoder = trainable_encoder(config)
    trained(run, {"encoder": encoder})
    encoder.eval()
    frames = np.array([-(-len(clip) // FRAME) for clip in clips])
    codes: list[np.ndarray] = [np.empty(0)] * len(frames)
    with torch.no_grad(), differentiable(), progress_bar() as report:
        for done, numbers in enumerate(groups := _of_similar_length(frames)):
            waveform = np.zeros((len(numbers), frames[numbers].max() * FRAME), np.float32)
            for row, number in zip(waveform, numbers, strict=True):
                row[: len(clips[number])] = clips[number]
            samples = torch.tensor([len(clips[number]) for number in numbers])
            chosen = encoder(torch.from_numpy(waveform), samples)[0].to(torch.uint8).numpy()
            for row, number in zip(chosen, numbers, strict=True):
                codes[number] = row[: frames[number]]
            report("codes", done + 1, len(groups), None)
    return codes


def save_codes(path: Path, codes: list[np.ndarray]) -> None:
    """Write the codes of `encode_corpus`: complete, or not at all."""
    part = path.with_suffix(".part.npz")
    np.savez(part, codes=np.concatenate(codes), ends=np.cumsum([len(rows) for rows in codes]))
    part.rename(path)


def load_codes(path: Path, corpus: Corpus) -> list[np.ndarray]:
    """Codes uint8 [frames, codebooks] of every item. Raises AntiphonError for a file of another corpus."""
    try:
        with np.load(path) as stored:
            codes = np.split(stored["codes"], stored["ends"][:-1])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        make = f"python -m antiphon.scripts.train_tiny.codes CORPUS CODEC_RUN {path} --checkpoint START"
        raise AntiphonError(f"{path} holds no codes; make them with {make}.") from None
    expected = np.array([-(-item.samples // FRAME) for item in corpus.items])
    # A variation has a slightly different length, and a shift adds up to one frame.
    if (
        len(codes) != len(expected)
        or (
            np.abs(np.array([len(rows) for rows in codes]) - expected)
            > 2 + expected * LARGEST_TEMPO / (1 - LARGEST_TEMPO)
        ).any()
    ):
        raise AntiphonError(
            f"{path} holds codes of {len(codes)} items, not those of this corpus ({len(expected)} items); "
            "make them anew from this corpus."
        )
    return codes


def varied(clip: np.ndarray, noise: np.random.Generator) -> np.ndarray:
    """A variation of `clip` float32 [samples].

    It starts with up to a frame of silence, is up to LARGEST_TEMPO faster or slower (with its pitch), and
    slightly louder or softer.
    """
    import soxr

    tempo = 1 + noise.uniform(-LARGEST_TEMPO, LARGEST_TEMPO)
    turned = soxr.resample(clip, 24_000 * tempo, 24_000, quality="QQ").astype(np.float32) * noise.uniform(
        0.8, 1.2
    )
    return np.concatenate([np.zeros(int(noise.integers(FRAME)), np.float32), turned])


def _of_similar_length(frames: np.ndarray) -> list[np.ndarray]:
    """Item numbers in groups of at most BATCH_FRAMES frames, including padding."""
    groups: list[np.ndarray] = []
    group: list[int] = []
    for number in np.argsort(frames, kind="stable"):
        if group and (len(group) + 1) * frames[number] > BATCH_FRAMES:
            groups.append(np.array(group))
            group = []
        group.append(number)
    return [*groups, np.array(group)]


def main() -> None:
    """Encode from the command line."""
    from ...graphs.checkpoints.read_config import read_config

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("run", type=Path, help="folder of codec_training")
    parser.add_argument("output", type=Path)
    parser.add_argument("--checkpoint", type=Path, required=True, help="from train_tiny.shape: configuration")
    parser.add_argument(
        "--variation", type=int, metavar="SEED", help="shift and stretch every recording at random"
    )
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = read_config(arguments.checkpoint).codec_encoder
    assert config is not None
    corpus = Corpus(arguments.corpus)
    clips = [corpus.audio(number) for number in range(len(corpus.items))]
    if arguments.variation is not None:
        noise = np.random.default_rng(arguments.variation)
        clips = [varied(clip, noise) for clip in clips]
    codes = encode_corpus(arguments.run, clips, config)
    save_codes(arguments.output, codes)
    rows = np.concatenate(codes)
    used = [len(np.unique(rows[:, column])) for column in range(rows.shape[1])]
    print(f"{len(codes)} items, {len(rows)} frames; entries used of each codebook: {used}")


if __name__ == "__main__":
    command(main)
