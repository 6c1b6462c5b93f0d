"""Inputs that put every path of a stage to work: several calls in a row with the states carried along."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ...graphs.layers.decoder_specs import greedy_sampling
from ...graphs.stage import Stage
from ...runtime.frontend.audio.audio_layout import audio_layout
from ...runtime.frontend.vision.vision_layout import vision_feeds

Feeds = dict[str, np.ndarray]
CALLS = (24, 5, 1, 8)
"""Rows of the calls to a decoder stage: a prefill, a further chunk, one step,
and a chunk whose tokens are drawn, not the most likely.
"""
CLIPS = ((100, 37), (8,))
"""Mel frames of the clips in further calls to the audio encoder: whole and cut chunks together,
and one chunk shorter than any window.
"""
GRIDS = ((1, 2, 3), (3, 2, 2))
"""Frames, and rows and columns of merged patches, in further calls to the vision encoder:
a picture and a video.
"""
PACKETS = (1, 2, 5)
"""Frames of the calls to Code2Wav."""
RECORDINGS = ((25, 0), (13, 777), (1, 1919))
"""Frames of the calls to the codec encoder, and the samples that its recordings lack at
the end of the last one.
"""


def probes(stage: Stage, seed: int = 0) -> list[Feeds]:
    """Feeds of successive calls to `stage`, one stream, from `seed`.

    Decoder stages ask for the logits of every row. A stage without probes of its own gets its example once.
    """
    make = _MAKERS.get(stage.name)
    return [stage.example()] if make is None else make(stage, np.random.default_rng(seed))


def _audio_encoder(stage: Stage, noise: np.random.Generator) -> list[Feeds]:
    mel, window, window_infer, convolutions = (
        stage.size(name) for name in ("num_mel_bins", "n_window", "n_window_infer", "convolutions")
    )
    further = ([noise.standard_normal((mel, frames), np.float32) for frames in clips] for clips in CLIPS)
    return [
        _example(stage, "chunks", noise),
        *(audio_layout(clips, window, window_infer, convolutions=convolutions)[0] for clips in further),
    ]


def _vision_encoder(stage: Stage, noise: np.random.Generator) -> list[Feeds]:
    merge, table = stage.size("spatial_merge_size"), stage.size("num_position_embeddings")
    calls = [_example(stage, "pixels", noise)]
    for frames, rows, columns in GRIDS:
        grid = (frames, rows * merge, columns * merge)
        patches = noise.standard_normal((math.prod(grid), calls[0]["pixels"].shape[-1]), np.float32)
        calls.append(vision_feeds(patches, grid, merge, table))
    return calls


def _example(stage: Stage, signal: str, noise: np.random.Generator) -> Feeds:
    """The stage's own example with other values of `signal`."""
    example = stage.example()
    return example | {signal: noise.standard_normal(example[signal].shape, np.float32)}


def _thinker(stage: Stage, noise: np.random.Generator) -> list[Feeds]:
    size, vocab, layers = (stage.size(name) for name in ("hidden_size", "vocab_size", "deepstack_layers"))
    calls = []
    for feeds, rows in _decoder_calls(vocab, noise):
        features = rows // 4
        feeds |= {
            "input_ids": noise.integers(0, vocab, (1, rows)),
            "features": noise.standard_normal((features, size)).astype(np.float32),
            "feature_index": np.arange(1, 1 + features),
        }
        if layers:
            visuals = features // 2
            feeds |= {
                "deepstack": noise.standard_normal((layers, visuals, size)).astype(np.float32),
                "deepstack_index": np.arange(1, 1 + visuals),
            }
        calls.append(feeds)
    return calls


def _talker(stage: Stage, noise: np.random.Generator) -> list[Feeds]:
    vocab, thinker_size = stage.size("vocab_size"), stage.size("thinker_hidden_size")
    words = min(vocab, stage.size("text_vocab_size")) if "text_vocab_size" in stage.constants else vocab
    calls = []
    for feeds, rows in _decoder_calls(vocab, noise):
        hiddens = rows // 3
        text, codec = noise.integers(0, words, (1, rows)), noise.integers(0, vocab, (1, rows))
        text[0, 1 : 1 + hiddens] = codec[0, : rows // 2] = -1
        feeds |= {
            "text_ids": text,
            "codec_ids": codec,
            "hidden": noise.standard_normal((hiddens, thinker_size)).astype(np.float32),
            "hidden_index": np.arange(1, 1 + hiddens),
            **_frame(stage, noise),
            "frame_index": np.array([rows - 1]),
        }
        calls.append(feeds)
    return calls


def _frame(stage: Stage, noise: np.random.Generator) -> Feeds:
    """One frame for the Talker: its row, or its codes where the Talker makes the row itself."""
    frames = next(spec for spec in stage.inputs if spec.shape[0] == "frames" and len(spec.shape) == 2)
    shape = (1, int(frames.shape[1]))
    return {
        frames.name: noise.integers(0, stage.size("codebook_size"), shape)
        if frames.dtype == "int64"
        else noise.standard_normal(shape).astype(np.float32)
    }


def _mtp(stage: Stage, noise: np.random.Generator) -> list[Feeds]:
    size, vocab = stage.size("hidden_size"), stage.size("vocab_size")
    calls = []
    for feeds, rows in _decoder_calls(vocab, noise):
        own: Feeds = {
            "input_ids": noise.integers(0, vocab, (1, rows)),
            "hidden": noise.standard_normal((1, rows, size)).astype(np.float32),
        }
        # A draft head samples nothing.
        calls.append(own | {spec.name: feeds[spec.name] for spec in stage.inputs if spec.name in feeds})
    return calls


def _decoder_calls(vocab: int, noise: np.random.Generator) -> list[tuple[Feeds, int]]:
    calls, past = [], 0
    for number, rows in enumerate(CALLS):
        positions = np.broadcast_to((past + np.arange(rows)).astype(np.float32), (3, 1, rows)).copy()
        positions[1:] *= np.float32(0.5)  # height and width of a picture differ from its time
        feeds = {
            "positions": positions,
            "query_length": np.array([rows]),
            "past_length": np.array([past]),
            "output_index": np.arange(rows),
        } | (_drawn(rows, vocab, noise) if number == len(CALLS) - 1 else greedy_sampling(rows, vocab))
        calls.append((feeds, rows))
        past += rows
    return calls


def _drawn(rows: int, vocab: int, noise: np.random.Generator) -> Feeds:
    """Values for `sampling_inputs` that use all of them."""
    return {
        "noise": noise.random(rows, np.float32),
        "temperature": np.full(rows, 0.8, np.float32),
        "top_k": np.full(rows, 20),
        "top_p": np.full(rows, 0.9, np.float32),
        "repetition_penalty": np.full(rows, 1.1, np.float32),
        "penalised": noise.random((rows, vocab)) < 0.3,
        "suppressed": noise.random((rows, vocab)) < 0.3,
    }


def _predictor(stage: Stage, noise: np.random.Generator) -> list[Feeds]:
    """Feeds of the frame engine, one frame of the most likely codes and one of drawn ones;
    the module's steps follow from the codes it returns.
    """
    size, codebook, groups = (stage.size(name) for name in ("hidden_size", "codebook_size", "code_groups"))
    return [
        {
            "hidden": noise.standard_normal((1, size)).astype(np.float32),
            "code0": noise.integers(0, codebook, 1),
            "noise": noise.random((1, groups - 1), dtype=np.float32),
            "temperature": np.full(1, temperature, np.float32),
            "top_k": np.full(1, 20),
            "top_p": np.full(1, 0.9, np.float32),
        }
        for temperature in (0.0, 0.8)
    ]


def _code2wav(stage: Stage, noise: np.random.Generator) -> list[Feeds]:
    codebook, groups = stage.size("codebook_size"), stage.size("num_quantizers")
    calls, past = [], 0
    for frames in PACKETS:
        calls.append(
            {"codes": noise.integers(0, codebook, (1, frames, groups)), "past_length": np.array([past])}
        )
        past += frames
    return calls


def _codec_encoder(stage: Stage, noise: np.random.Generator) -> list[Feeds]:
    """Recordings that end with a frame, within one, and at once."""
    calls = []
    for frames, missing in RECORDINGS:
        waveform = noise.normal(0, 0.1, (1, frames * stage.size("samples_per_frame"))).astype(np.float32)
        calls.append(
            {"waveform": waveform, "waveform_length": np.array([max(1, waveform.shape[1] - missing)])}
        )
    return calls


_MAKERS: dict[str, Callable[[Stage, np.random.Generator], list[Feeds]]] = {
    "audio_encoder": _audio_encoder,
    "vision_encoder": _vision_encoder,
    "thinker": _thinker,
    "mtp": _mtp,
    "talker": _talker,
    "predictor": _predictor,
    "code2wav": _code2wav,
    "codec_encoder": _codec_encoder,
}
