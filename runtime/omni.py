"""The public runtime: a bundle, loaded, that answers."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .bundle.errors import Closed, InvalidInput
from .bundle.manifest import Manifest
from .bundle.numeric import as_float, whole
from .bundle.said import short
from .conversation import Conversation
from .engines.base import Engine
from .engines.checks import MOST_THREADS
from .events import AudioDelta, Done, Event, Reply
from .frontend.media.media_policy import LOCAL, MediaPolicy
from .model import LoadedModel
from .open_bundle import open_bundle
from .options import check_words, read_options, read_speech_options
from .reply import ReplyStream
from .scheduling.admission import Admission, Place
from .scheduling.async_reader import AsyncReader, end_all
from .scheduling.engine_lock import EngineLock
from .stages.voices import Voice


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

    `max_streams` replies run at once; a further one waits for a free place, at most `admission_seconds`
    (None: as long as it takes) and then raises. `threads` work on one run of an engine (default:
    ANTIPHON_THREADS, else all cores); runs take turns. `check_hashes` reads every file and compares its
    SHA-256; without it a changed byte of the weights, and of nothing else, goes unnoticed. `prefill_chunk`:
    the most prompt tokens of one run. `media`: what media messages may bring, from where and how much:
    `MediaPolicy()` opens local files, `MediaPolicy.for_server()` takes data only. Raises AntiphonError in one
    sentence for anything that does not fit.
    """
    _check_settings(bundle_path, max_streams, threads, prefill_chunk, admission_seconds)
    if not isinstance(media, MediaPolicy):
        raise InvalidInput(
            f"media is {short(media)}, expected a MediaPolicy, for example MediaPolicy.for_server()."
        )
    opened = open_bundle(Path(bundle_path), threads, check_hashes, media)
    return Omni(
        opened.manifest,
        opened.engines,
        opened.front_end,
        max_streams,
        prefill_chunk,
        admission_seconds,
        opened.voice_table,
        media,
    )


class Omni:
    """Engines and front end of one bundle, shared by all its conversations; made by `load`.

    Safe to use from several threads.
    """

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
        """See LoadedModel, Admission and `load` for the arguments."""
        self.model = LoadedModel(manifest, engines, front_end, prefill_chunk, voice_table, media)
        self._admission = Admission(max_streams, admission_seconds)
        _loaded[self._admission] = self.model.engine_lock

    @property
    def manifest(self) -> Manifest:
        """What the bundle says about itself."""
        return self.model.manifest

    @property
    def engines(self) -> Mapping[str, Engine]:
        """The engines by stage."""
        return self.model.engines

    @property
    def front_end(self) -> Any:
        """The FrontEnd: messages in, text out."""
        return self.model.front_end

    @property
    def sample_rate(self) -> int:
        """Of the speech, in hertz."""
        return self.model.sample_rate

    def conversation(
        self, system: str | None = None, voice: Any = None, style: str | None = None, tools: Any = None
    ) -> Conversation:
        """A conversation that has not begun.

        `voice` and `style` are its defaults; `tools` are the functions that the model may call in it (OpenAI
        shape). Raises AntiphonError for an unknown voice, a style that is no text, or tools that are none.
        """
        self._admission.check_open()
        read_options({"style": style})
        return Conversation(
            self.model, self._admission, system, None if voice is None else self.voice(voice), style, tools
        )

    def voice(self, wanted: Any = None, sample_rate: int | None = None) -> Voice:
        """The voice called `wanted` (None: the bundle's default), or that of a recording:
        a path, bytes or an array at `sample_rate` hertz.

        A recording is encoded once; keep the Voice for further replies. Raises AntiphonError that lists the
        voices, or says what is wrong with the recording, or with a Voice of another bundle.
        """
        self._admission.check_open()
        return self.model.voice(wanted, sample_rate)

    def stream(self, messages: Sequence[Any], *, tools: Any = None, **options: Any) -> ReplyStream:
        """Answer `messages` (OpenAI chat shape) as events in the order they happen;
        for the options see ReplyOptions.

        `tools` are the functions that the model may call (OpenAI shape); a call is text of the answer.

        The reply runs from this call on; bad input raises here, a failure during the reply raises from the
        iterator. Close the iterator (or leave its `with` block) to stop the reply. When `max_streams` replies
        are running, the call waits.
        """
        return self._open(messages, tools, options, Place())

    def generate(self, messages: Sequence[Any], *, tools: Any = None, **options: Any) -> Reply:
        """The whole answer to `messages`; tools, options and errors as for `stream`."""
        place = Place()
        try:
            return collect(self._open(messages, tools, options, place), self.sample_rate)
        finally:
            place.withdraw()  # an interrupt may have come before anyone else could close the reply

    async def astream(
        self, messages: Sequence[Any], *, tools: Any = None, **options: Any
    ) -> AsyncIterator[Event]:
        """`stream` for asyncio: the event loop is never blocked, and cancelling the task stops the reply,
        or its wait for a place.
        """
        reader = AsyncReader(partial(self._open, messages, tools, options))
        try:
            while (event := await reader.next()) is not None:
                yield event
        finally:
            await reader.close()

    def speak(self, text: str, messages: Sequence[Any] | None = None, **options: Any) -> Reply:
        """The speech of `text`, which the Talker speaks as it would an answer of the Thinker.

        `Reply.text` is the text.

        All of `text` is spoken; what looks like a special token is text, too. With `messages` (OpenAI chat
        shape) it is spoken as the answer to them: the Thinker prefills them, so that the Talker reads the
        same rows before it as in a reply. Without, no user's turn stands before it and the Thinker does not
        run. Options as for `stream`, but those of the text (see options.TEXT_OPTIONS). Raises AntiphonError
        for a text without a word, one that exceeds the Talker's context, and a bundle without speech stages.
        """
        place = Place()
        try:
            return collect(self._open_speech(text, messages, options, place), self.sample_rate)
        finally:
            place.withdraw()  # an interrupt may have come before anyone else could close the reply

    def stream_speech(self, text: str, messages: Sequence[Any] | None = None, **options: Any) -> ReplyStream:
        """`speak` as events in the order they happen, as of `stream`."""
        return self._open_speech(text, messages, options, Place())

    def close(self) -> None:
        """Stop all replies in flight, wait until their workers have ended, and refuse new ones.

        In a finaliser, and in the handler of a signal that came in the midst of a call on this Omni, it
        does not wait. In a fork of the process that loaded the bundle it only refuses: the replies are
        those of the other process.
        """
        self._admission.close()

    def __enter__(self) -> Omni:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(
        self, messages: Sequence[Any], tools: Any, options: Mapping[str, Any], place: Place
    ) -> ReplyStream:
        began = time.perf_counter()
        self._admission.check_open()
        chosen = read_options(options)
        return Conversation(self.model, self._admission, tools=tools).answer(messages, chosen, began, place)

    def _open_speech(
        self, text: str, messages: Sequence[Any] | None, options: Mapping[str, Any], place: Place
    ) -> ReplyStream:
        began = time.perf_counter()
        self._admission.check_open()
        chosen = read_speech_options(options, self.manifest)
        token_ids = self.front_end.encode_text(check_words(text)).tolist()
        return Conversation(self.model, self._admission).recite(token_ids, messages, chosen, began, place)


def collect(stream: ReplyStream, sample_rate: int) -> Reply:
    """Read `stream` to its end and join its events."""
    pieces: list[np.ndarray] = []
    with stream:
        for event in stream:
            if isinstance(event, AudioDelta):
                pieces.append(event.samples)
            elif isinstance(event, Done):
                audio = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
                return Reply(
                    event.text,
                    event.token_ids,
                    event.codes,
                    audio,
                    sample_rate,
                    event.finish_reason,
                    event.timings,
                )
    raise Closed("The reply was closed before its end; ask again.")


def _check_settings(
    bundle_path: Any, max_streams: Any, threads: Any, prefill_chunk: Any, admission_seconds: Any
) -> None:
    """Raise AntiphonError for an invalid argument of `load`."""
    if not isinstance(bundle_path, (str, Path)):
        raise InvalidInput(
            f"bundle_path is {short(bundle_path)}, expected the path of a folder made by antiphon build."
        )
    whole(max_streams, "max_streams", 1)
    whole(prefill_chunk, "prefill_chunk", 1)
    if threads is not None:
        whole(threads, "threads", 1, MOST_THREADS)
    if admission_seconds is not None:
        seconds = as_float(admission_seconds)
        if seconds is None or not 0 < seconds <= threading.TIMEOUT_MAX:  # also false for NaN
            raise InvalidInput(
                f"admission_seconds is {short(admission_seconds)}, expected a positive number of seconds, "
                "or None to wait as long as it takes."
            )


_loaded: weakref.WeakKeyDictionary[Admission, EngineLock] = weakref.WeakKeyDictionary()
"""Of every loaded bundle that an Omni, a conversation or a reply still uses:
who admits its replies, and the lock of its engines.
"""


@atexit.register
def _close_all() -> None:
    """End all engine runs and all work of front ends before the interpreter ends.

    A thread inside native code then aborts the process.
    """
    loaded = [
        (admission, _loaded[admission])
        for reference in _loaded.keyrefs()
        if (admission := reference()) is not None
    ]
    for admission, _ in loaded:
        admission.close()
    end_all()
    for admission, engine_lock in loaded:
        # from now on no engine runs, not even for an append in another thread
        if admission.is_of_this_process:
            engine_lock.keep()
