"""Voices: what makes a Talker sound like someone, by a name of the bundle or from a recording.

A Talker of Qwen3-Omni has one codec id per voice. One of Qwen3.5-Omni is prompted with codec frames of the
voice: those of a table in the bundle, or what the stage codec_encoder hears in a recording.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle.errors import BrokenBundle, InvalidInput
from ..bundle.manifest import Manifest
from ..bundle.numeric import is_whole
from ..bundle.said import reason, short, short_path
from ..bundle.talker_contract import VoiceKind
from ..engines.base import Engine
from ..frontend.audio.long_audio import header_seconds
from ..frontend.audio.recording import read_audio
from ..frontend.media.file_objects import is_file_object
from ..frontend.media.media_policy import LOCAL, MediaPolicy
from ..frontend.media.media_source import resolve_source
from ..scheduling.engine_lock import NORMAL, EngineLock

VOICES_FILE = "voices.npy"
"""In the bundle's front-end folder."""
NO_TABLE = (
    f"The bundle lacks frontend/{VOICES_FILE}, the frames of the voices that its Talker is prompted with; "
    "build the bundle again."
)
SHORTEST, LONGEST = 1.0, 30.0
"""Seconds of a recording: less says little of a voice, more fills the Talker's context."""
SILENCE = 1e-4
"""A recording whose samples are all nearer to zero holds no voice."""
LONGEST_NAME = 200
"""Longer text is a recording in base64, not a voice that does not exist."""


@dataclass(frozen=True, eq=False)
class Voice:
    """How a Talker is told whom to sound like."""

    codec_id: int | None
    """The voice's codec id (Qwen3-Omni), else None."""
    codes: np.ndarray | None
    """Codec frames of the voice, int64 [frames, codebooks] (Qwen3.5-Omni), else None."""
    prompt_ids: tuple[int, ...] = ()
    """Text ids that go before the frames."""
    name: str = ""


def find_voice(
    manifest: Manifest,
    wanted: Any = None,
    table: np.ndarray | None = None,
    encoder: Engine | None = None,
    engine_lock: EngineLock | None = None,
    sample_rate: int | None = None,
    policy: MediaPolicy = LOCAL,
) -> Voice:
    """The voice that `wanted` names, or of the recording that it is; None takes the bundle's default.

    `table`: of read_voice_table; the other arguments: see voice_from_recording. A name goes before a file of
    that name, in upper or lower case. Raises AntiphonError that lists the voices, or says what is wrong with
    the recording or with the table.
    """
    voices = {known.lower(): known for known in manifest.voices}
    name = (manifest.default_voice or next(iter(manifest.voices), None)) if wanted is None else wanted
    if isinstance(name, str) and name.lower() in voices:
        return _named(manifest, voices[name.lower()], table)
    if not _is_recording(name, policy):
        raise InvalidInput(f"There is no voice {short(name)}; {_known(manifest)}.")
    if encoder is None:
        raise InvalidInput(
            "This bundle cannot take a voice from a recording: it has no stage codec_encoder; "
            f"{_known(manifest)}."
        )
    return voice_from_recording(name, encoder, sample_rate, engine_lock, policy)


def voice_from_recording(
    source: Any,
    encoder: Engine,
    sample_rate: int | None = None,
    engine_lock: EngineLock | None = None,
    policy: MediaPolicy = LOCAL,
) -> Voice:
    """The voice in a recording of 1 to 30 s, of any rate and any number of channels.

    `source`: what audio.read_audio takes: a path, bytes, an open file, base64, a data URL, or an array (see
    samples.whole_array) at `sample_rate` hertz, which only an array needs. `encoder`: the engine of the stage
    codec_encoder. `engine_lock`: of the Omni whose engines run meanwhile. `policy`: where a recording may
    come from. Returns a Voice whose codes are int64 [frames, codebooks], one frame for every begun 1 /
    12.5 s. Raises AntiphonError for what is no audio, too short, too long or silent.
    """
    rate, frame = encoder.entry.constant("sample_rate"), encoder.entry.constant("samples_per_frame")
    array_rate = _array_rate(source, sample_rate)
    recording = source if isinstance(source, np.ndarray) else resolve_source(source, "audio", policy)
    claimed = header_seconds(recording, array_rate, policy)
    if claimed > LONGEST + 1:
        raise _wrong_length(round(claimed, 3))
    # Longer than its header says: decoding stops a little above the most.
    samples = read_audio(
        recording, array_rate, rate, replace(policy, max_seconds=min(policy.max_seconds, 2 * LONGEST))
    )
    seconds = round(len(samples) / rate, 3)  # resampling may yield a sample more than the recording is long
    if not SHORTEST <= seconds <= LONGEST:
        raise _wrong_length(seconds)
    if np.abs(samples).max() < SILENCE:
        raise InvalidInput(
            f"The recording of the voice is silent: no sample beyond {SILENCE:g}; "
            "give one with a voice in it."
        )
    frames = -(-len(samples) // frame)
    feeds = {
        "waveform": np.zeros((1, frames * frame), np.float32),
        "waveform_length": np.array([len(samples)]),
    }
    feeds["waveform"][0, : len(samples)] = samples
    run = partial(encoder.run, feeds, outputs=("codes",))
    codes = (run() if engine_lock is None else engine_lock.run(NORMAL, run)[0])["codes"]
    return Voice(
        None,
        np.array(codes[0], np.int64),
        name=Path(source).stem if isinstance(source, os.PathLike) else "recording",
    )


def _wrong_length(seconds: float) -> InvalidInput:
    change = "longer" if seconds < SHORTEST else "shorter"
    return InvalidInput(
        f"The recording of the voice is {seconds:g} s long, expected {SHORTEST:g} to {LONGEST:g} s; "
        f"give a {change} one."
    )


def check_voice(voice: Voice, kind: VoiceKind, codebooks: int, codebook_size: float | None = None) -> Voice:
    """`voice`, where a Talker can take it whose voices are of `kind`;
    frames have `codebooks` codes below `codebook_size`.

    Raises AntiphonError for a voice of another bundle, and where the bundle's own table
    does not fit its Talker.
    """
    if (voice.codes is None) != (kind == "codec_id"):
        found, expected = ("frames", "a codec id") if kind == "codec_id" else ("a codec id", "frames")
        raise InvalidInput(
            f"The voice {short(voice.name)} is {found}, the bundle's Talker expects {expected}; "
            "take a voice of this bundle."
        )
    if voice.codes is not None:
        codes = voice.codes
        is_whole = (
            codes.ndim == 2
            and codes.shape[1] == codebooks
            and len(codes) > 0
            and np.issubdtype(codes.dtype, np.integer)
        )
        if not is_whole or codes.min() < 0 or codebook_size is not None and codes.max() >= codebook_size:
            below = "" if codebook_size is None else f" below {codebook_size:g}"
            raise InvalidInput(
                f"The voice {short(voice.name)} is {codes.dtype} {list(codes.shape)}, "
                f"expected int64 [frames, {codebooks}] of codes from 0{below}; "
                "take a voice of this bundle or a recording, or build the bundle again."
            )
    return voice


def read_voice_table(folder: str | Path) -> np.ndarray | None:
    """The voices of the front-end folder `folder`: int64 [voices, codebooks, frames],
    each padded with -1 at its end; None where it has no such file.

    Raises AntiphonError for a file that is no such table.
    """
    path = Path(folder) / VOICES_FILE
    if not path.exists():
        return None
    try:
        table = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BrokenBundle(
            f"{short_path(path)} cannot be read as a table of voices ({reason(error)}); "
            "build the bundle again."
        ) from None
    if not isinstance(table, np.ndarray) or table.ndim != 3 or table.dtype != np.int64 or 0 in table.shape:
        found = f"{table.dtype} {list(table.shape)}" if isinstance(table, np.ndarray) else "an archive"
        raise BrokenBundle(
            f"{short_path(path)} is {found}, expected int64 [voices, codebooks, frames]; "
            "build the bundle again."
        )
    return table


def _named(manifest: Manifest, name: str, table: np.ndarray | None) -> Voice:
    row = manifest.voices[name]
    if manifest.talker is None or manifest.talker.voice == "codec_id":
        return Voice(row, None, name=name)
    if table is None:
        raise BrokenBundle(NO_TABLE)
    prompts = {known.lower(): tuple(ids) for known, ids in manifest.speech_prompts.voice_prompts.items()}
    return Voice(
        None,
        _frames(table, row, name, manifest.constants.codebook_size or None),
        prompts.get(name.lower(), ()),
        name,
    )


def _frames(table: np.ndarray, row: int, name: str, codebook_size: float | None) -> np.ndarray:
    """Row `row` of the table as int64 [frames, codebooks] without its padding."""
    stored = table[row].T if 0 <= row < len(table) else table[:0, 0]
    frames = int((stored >= 0).all(axis=1).sum()) if stored.size else 0
    whole = (
        frames
        and (stored[:frames] >= 0).all()
        and (stored[frames:] == -1).all()
        and (codebook_size is None or stored.max() < codebook_size)
    )
    if not whole:
        raise BrokenBundle(
            f"The frames of the voice {short(name)} (row {row} of {VOICES_FILE}) are missing or broken; "
            "build the bundle again."
        )
    return np.ascontiguousarray(stored[:frames])


def _is_recording(wanted: Any, policy: MediaPolicy) -> bool:
    """Whether `wanted` is media rather than a name: no string, or one that names a file,
    has the look of a path, or is base64.
    """
    if not isinstance(wanted, str):
        return isinstance(
            wanted, bytes | bytearray | memoryview | os.PathLike | np.ndarray
        ) or is_file_object(wanted)
    if len(wanted) > LONGEST_NAME or wanted.lower().startswith(("data:", "file:", "http:", "https:")):
        return True
    looks_like_path = "/" in wanted or os.sep in wanted or Path(wanted).suffix != ""
    return looks_like_path or (policy.local_files and "\0" not in wanted and Path(wanted).is_file())


def _array_rate(source: Any, sample_rate: int | None) -> int:
    """The rate of an array, which must be known; files know their own."""
    if not isinstance(source, np.ndarray):
        return 1
    if not is_whole(sample_rate) or sample_rate is None or sample_rate < 1:
        raise InvalidInput(
            f"The recording of the voice is an array with the sample_rate {short(sample_rate)}; "
            "give omni.voice its whole samples a second."
        )
    return int(sample_rate)


def _known(manifest: Manifest) -> str:
    return f"the bundle's voices are {', '.join(sorted(manifest.voices)) or 'none'}"
