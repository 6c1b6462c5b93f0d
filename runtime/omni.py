"""The public runtime: a bundle, loaded, that answers."""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .bundle.errors import BrokenBundle, Closed, InvalidInput
from .bundle.manifest import Manifest
from .bundle.numeric import as_float, whole
from .bundle.said import short
from .conversation import Conversation
from .engines.base import Engine
from .engines.onnxruntime.sessions import MOST_THREADS
from .events import AudioDelta, Done, Event, Reply
from .frontend.media.media_policy import LOCAL, MediaPolicy
from .open_bundle import open_bundle
from .options import read_options
from .reply import ReplyStream, Workers
from .scheduling.admission import Place, Places
from .scheduling.async_reader import AsyncReader, end_all
from .scheduling.channels import Cancelled
from .scheduling.engine_lock import EngineLock
from .scheduling.forks import check_process
from .stages.thinker import Thinker
from .stages.voices import Voice, check_voice, find_voice

DEFAULT_SAMPLE_RATE = 24000


def load(
    bundle_path: str | Path,
    max_streams: int = 4,
    threads: int | None = None,
    check_hashes: bool = False,
    prefill_chunk: int = 512,
    admission_seconds: float | None = None,
    media: MediaPolicy = LOCAL,
) -> Omni:
    """Load the bundle at `bundle_path`. The result is a context manager.

    `max_streams` replies run at once; a further one waits for a free place, at most `admission_seconds` (None: as long as it takes) and
    then raises. `threads` work on one run of an engine (default: ANTIPHON_THREADS, else all cores); runs take turns. `check_hashes` reads
    every file and compares its SHA-256; without it a changed byte of the weights, and of nothing else, goes unnoticed. `prefill_chunk`: the most prompt
    tokens of one run. `media`: what media messages may bring, from where and how much: `MediaPolicy()` opens local files, `MediaPolicy.for_server()`
    takes data only. Raises AntiphonError in one sentence for anything that does not fit.
    """
    _check_settings(bundle_path, max_streams, threads, prefill_chunk, admission_seconds)
    if not isinstance(media, MediaPolicy):
        raise InvalidInput(f"media is {short(media)}, expected a MediaPolicy, for example MediaPolicy.for_server().")
    opened = open_bundle(Path(bundle_path), threads, check_hashes, media)
    return Omni(opened.manifest, opened.engines, opened.front_end, max_streams, prefill_chunk, admission_seconds, opened.voice_table, media)


class Omni:
    """Engines and front end of one bundle, shared by all its conversations; made by `load`. Safe to use from several threads."""

    def __init__(
        self,
        manifest: Manifest,
        engines: Mapping[str, Engine],
        front_end: Any,
        max_streams: int = 4,
        prefill_chunk: int = 512,
        admission_seconds: float | None = None,
        voice_table: np.ndarray | None = None,
        media: MediaPolicy = LOCAL,
    ) -> None:
        """`front_end`: a FrontEnd. `voice_table`: see voices.read_voice_table. See `load` for the rest."""
        if "thinker" not in engines:
            raise BrokenBundle("The bundle has no stage thinker; build it again.")
        self.manifest, self.engines, self.front_end = manifest, engines, front_end
        self.engine_lock = EngineLock()
        self.prefill_chunk = prefill_chunk
        self.thinker = Thinker(engines, manifest, self.engine_lock, prefill_chunk)
        self.places = Places(max_streams, admission_seconds)
        self._replies: weakref.WeakValueDictionary[int, Workers] = weakref.WeakValueDictionary()
        self._process = os.getpid()
        self._closed = False
        _omnis[id(self)] = self
        self._voice_table, self._media = voice_table, media
        self.frames_per_token = manifest.constants.frames_per_token
        self.sample_rate = engines["code2wav"].entry.constant("sample_rate") if "code2wav" in engines else DEFAULT_SAMPLE_RATE

    def conversation(self, system: str | None = None, voice: Any = None, style: str | None = None, tools: Any = None) -> Conversation:
        """A conversation that has not begun. `voice` and `style` are its defaults; `tools` are the functions that the model may call in it (OpenAI
        shape). Raises AntiphonError for an unknown voice, a style that is no text, or tools that are none."""
        self.check_open()
        read_options({"style": style})
        return Conversation(self, system, None if voice is None else self.voice(voice), style, tools)

    def voice(self, wanted: Any = None, sample_rate: int | None = None) -> Voice:
        """The voice called `wanted` (None: the bundle's default), or that of a recording: a path, bytes or an array at `sample_rate` hertz.

        A recording is encoded once; keep the Voice for further replies. Raises AntiphonError that lists the voices, or says what is wrong
        with the recording, or with a Voice of another bundle.
        """
        self.check_open()
        given = isinstance(wanted, Voice)
        encoder = self.engines.get("codec_encoder")
        voice = wanted if given else find_voice(self.manifest, wanted, self._voice_table, encoder, self.engine_lock, sample_rate, self._media)
        contract = self.manifest.talker
        if contract is not None:
            check_voice(voice, contract.voice, self.input_sizes("talker")[contract.frame_input], self.manifest.constants.codebook_size or None)
        return voice

    def input_sizes(self, stage: str) -> dict[str, int]:
        """The size of the last axis of every input of `stage`, where it is fixed."""
        return {spec.name: spec.shape[-1] for spec in self.engines[stage].entry.inputs if spec.shape and isinstance(spec.shape[-1], int)}

    def stream(self, messages: Sequence[Any], *, tools: Any = None, **options: Any) -> ReplyStream:
        """Answer `messages` (OpenAI chat shape) as events in the order they happen; for the options see ReplyOptions.

        `tools` are the functions that the model may call (OpenAI shape); a call is text of the answer.

        The reply runs from this call on; bad input raises here, a failure during the reply raises from the iterator. Close the iterator
        (or leave its `with` block) to stop the reply. When `max_streams` replies are running, the call waits.
        """
        return self._open(messages, tools, options, Place())

    def generate(self, messages: Sequence[Any], *, tools: Any = None, **options: Any) -> Reply:
        """The whole answer to `messages`; tools, options and errors as for `stream`."""
        place = Place()
        try:
            return collect(self._open(messages, tools, options, place), self.sample_rate)
        finally:
            place.withdraw()  # an interrupt may have come before anyone else could close the reply

    async def astream(self, messages: Sequence[Any], *, tools: Any = None, **options: Any) -> AsyncIterator[Event]:
        """`stream` for asyncio: the event loop is never blocked, and cancelling the task stops the reply, or its wait for a place."""
        reader = AsyncReader(partial(self._open, messages, tools, options))
        try:
            while (event := await reader.next()) is not None:
                yield event
        finally:
            await reader.close()

    def close(self) -> None:
        """Stop all replies in flight, wait until their workers have ended, and refuse new ones.

        In a finaliser, and in the handler of a signal that came in the midst of a call on this Omni, it does not wait. In a fork of the process that
        loaded the bundle it only refuses: the replies are those of the other process.
        """
        self._closed = True
        if os.getpid() != self._process:
            return
        self.places.close()
        replies = [reference() for reference in self._replies.valuerefs()]
        for workers in replies:
            if workers is not None:
                workers.control.stop()
        for workers in replies:
            if workers is not None:
                workers.close()

    def keep_still(self) -> None:
        """After `close`: let no engine run any more, not even for an append in another thread."""
        if os.getpid() == self._process:
            self.engine_lock.keep()

    def __enter__(self) -> Omni:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check_open(self) -> None:
        """Raise AntiphonError after `close`, and in a fork of the process that loaded the bundle."""
        check_process(self._process, "This Omni")
        if self._closed:
            raise Closed("This Omni is closed; load the bundle again.")

    def register(self, place: Place, workers: Workers) -> None:
        """Let `close` and the withdrawal of `place` stop `workers`. Raises AntiphonError after `close`, Cancelled after the withdrawal."""
        self._replies[id(workers)] = place.workers = workers
        self.check_open()
        if place.withdrawn:
            raise Cancelled

    def _open(self, messages: Sequence[Any], tools: Any, options: Mapping[str, Any], place: Place) -> ReplyStream:
        began = time.perf_counter()
        self.check_open()
        chosen = read_options(options)
        conversation = Conversation(self, tools=tools)
        conversation.queue(messages, chosen, add_generation_prompt=True)
        return conversation.start(chosen, began, True, place)


def collect(stream: ReplyStream, sample_rate: int) -> Reply:
    """Read `stream` to its end and join its events."""
    pieces: list[np.ndarray] = []
    with stream:
        for event in stream:
            if isinstance(event, AudioDelta):
                pieces.append(event.samples)
            elif isinstance(event, Done):
                audio = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
                return Reply(event.text, event.token_ids, event.codes, audio, sample_rate, event.finish_reason, event.timings)
    raise Closed("The reply was closed before its end; ask again.")


def _check_settings(bundle_path: Any, max_streams: Any, threads: Any, prefill_chunk: Any, admission_seconds: Any) -> None:
    """Raise AntiphonError for an argument of `load` that can not be meant."""
    if not isinstance(bundle_path, (str, Path)):
        raise InvalidInput(f"bundle_path is {short(bundle_path)}, expected the path of a folder made by antiphon build.")
    whole(max_streams, "max_streams", 1)
    whole(prefill_chunk, "prefill_chunk", 1)
    if threads is not None:
        whole(threads, "threads", 1, MOST_THREADS)
    if admission_seconds is not None:
        seconds = as_float(admission_seconds)
        if seconds is None or not 0 < seconds <= threading.TIMEOUT_MAX:  # also false for NaN
            raise InvalidInput(f"admission_seconds is {short(admission_seconds)}, expected a positive number of seconds, or None to wait as long as it takes.")


_omnis: weakref.WeakValueDictionary[int, Omni] = weakref.WeakValueDictionary()


@atexit.register
def _close_all() -> None:
    """No thread may be inside an engine or the front end when the interpreter ends."""
    omnis = [omni for reference in _omnis.valuerefs() if (omni := reference()) is not None]
    for omni in omnis:
        omni.close()
    end_all()
    for omni in omnis:
        omni.keep_still()
