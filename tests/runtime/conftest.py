"""Scripted engines in NumPy that stand behind the engine interface,
so that the pipeline's rules are seen without a model.

The Thinker echoes the letters of the last user turn; the Talker's codes depend on every row it was fed,
so that a wrong, missing or early row changes them; the vocoder has states and a lead, so that a wrong
packet boundary is heard.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from antiphon.runtime.bundle.manifest import Manifest, ModelConstants
from antiphon.runtime.bundle.sampling import SamplingParameters
from antiphon.runtime.bundle.specs import StageEntry, StageInterface, StateSpec, TensorSpec
from antiphon.runtime.bundle.talker_contract import TalkerContract
from antiphon.runtime.frontend.prompt.front_end import EncoderCall, Prompt
from antiphon.runtime.frontend.prompt.positions import MediaItem
from antiphon.runtime.omni import Omni
from antiphon.runtime.states.pool import UNLIMITED, StatePool

IDS = {
    "im_start": 1,
    "im_end": 2,
    "newline": 3,
    "system": 4,
    "user": 5,
    "assistant": 6,
    "audio": 7,
    "image": 8,
    "video": 9,
    "tts_pad": 10,
    "tts_bos": 11,
    "tts_eos": 12,
    "eos": [2],
    "codec_pad": 33,
    "codec_bos": 34,
    "codec_nothink": 35,
    "codec_think_bos": 36,
    "codec_think_eos": 37,
    "codec_eos": 40,
}
CONTRACT = TalkerContract("summed", False, "frame_rows", "media", 0, False, False, "codec_id")
VOCABULARY, CODEC_VOCABULARY, CODEBOOK, GROUPS, HIDDEN = 64, 48, 32, 4, 2
SAMPLES, LEAD, RATE = 8, 3, 100


def letters(text: str) -> list[int]:
    return [20 + ord(letter) - ord("a") for letter in text]


def _inputs(**shapes: tuple) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, dtype, shape) for name, (dtype, shape) in shapes.items())


def _sampling(vocabulary: int) -> dict[str, tuple]:
    rows = {
        "noise": "float32",
        "temperature": "float32",
        "top_k": "int64",
        "top_p": "float32",
        "repetition_penalty": "float32",
    }
    masks = {name: ("bool", ("rows", vocabulary)) for name in ("penalised", "suppressed")}
    return {name: (dtype, ("rows",)) for name, dtype in rows.items()} | masks


class FakeEngine:
    """Records its feeds, may be slowed down or made to fail, and notices when two engines run at once."""

    running: list[FakeEngine] = []

    def __init__(self, name: str, inputs: tuple, states: tuple = (), constants: dict | None = None) -> None:
        self.entry = StageEntry(name, "fake", "cpu", (), StageInterface(inputs, (), states, constants or {}))
        self.feeds: list[dict[str, np.ndarray]] = []
        self.pause = lambda: 0.0
        self.fail_at: int | None = None

    def new_states(self, rows=1, capacity=UNLIMITED):
        return StatePool(self.entry.states, rows, capacity)

    def run(self, feeds, slots=(), outputs=None):
        try:
            self.running.append(self)
            assert len(self.running) == 1, "two engines ran at once"
            assert set(feeds) == {spec.name for spec in self.entry.inputs}
            for spec in self.entry.inputs:
                assert feeds[spec.name].dtype == np.dtype(spec.dtype), spec.name
                assert feeds[spec.name].ndim == len(spec.shape), spec.name
            self.feeds.append({name: np.array(array) for name, array in feeds.items()})
            if self.fail_at == len(self.feeds):
                raise RuntimeError(f"{self.entry.name} broke")
            time.sleep(self.pause())
            states = slots[0] if slots else None
            result = self.compute(feeds, states)
            if states is not None:
                states.flip()
            return result
        finally:
            self.running.remove(self)


class FakeThinker(FakeEngine):
    """Answers with the letters of the last user turn, then im_end.

    Its cache holds the ids it was fed, its recurrent state their weighted sum.
    """

    def __init__(self) -> None:
        inputs = _inputs(
            input_ids=("int64", ("batch", "tokens")),
            positions=("float32", (3, "batch", "tokens")),
            query_length=("int64", ("batch",)),
            past_length=("int64", ("batch",)),
            features=("float32", ("features", HIDDEN)),
            feature_index=("int64", ("features",)),
            output_index=("int64", ("rows",)),
            **_sampling(VOCABULARY),
        )
        states = (
            StateSpec("ids", "kv", "float32", ("batch", 1, "capacity", 1)),
            StateSpec("sum", "recurrent", "float32", ("batch", 1)),
        )
        super().__init__("thinker", inputs, states)

    def compute(self, feeds, states):
        past, ids = int(feeds["past_length"][0]), feeds["input_ids"][0]
        assert past == states.length and past + len(ids) <= states.capacity
        cache = states.past("ids")[0, 0, :, 0]
        cache[past : past + len(ids)] = ids
        states.present("sum")[0, 0] = (
            states.past("sum")[0, 0] + (ids * np.arange(past + 1, past + len(ids) + 1)).sum()
        )
        history = cache[: past + len(ids)].astype(int).tolist()
        assistant = max(
            (place for place in range(len(history)) if history[place : place + 2] == [1, 6]), default=-1
        )
        answered = history[assistant + 3 :]
        user = max((place for place in range(assistant) if history[place : place + 2] == [1, 5]), default=0)
        script = [token for token in history[user:assistant] if token >= 20]
        token = script[len(answered)] if len(answered) < len(script) else IDS["im_end"]
        if feeds["suppressed"][0, token]:
            token = 63
        hidden = np.stack([feeds["positions"][0, 0], ids.astype(np.float32)], axis=-1)[None]  # [1, tokens, 2]
        return {"token": np.array([token]), "hidden": hidden}


class FakeTalker(FakeEngine):
    """Ends `tail` rows after tts_eos came in; `tail` None never ends.

    Its cache holds the value of every row and its text id.
    """

    def __init__(self) -> None:
        inputs = _inputs(
            text_ids=("int64", ("batch", "tokens")),
            hidden=("float32", ("hiddens", HIDDEN)),
            hidden_index=("int64", ("hiddens",)),
            codec_ids=("int64", ("batch", "tokens")),
            frame_rows=("float32", ("frames", 1)),
            frame_index=("int64", ("frames",)),
            positions=("float32", (3, "batch", "tokens")),
            query_length=("int64", ("batch",)),
            past_length=("int64", ("batch",)),
            output_index=("int64", ("rows",)),
            **_sampling(CODEC_VOCABULARY),
        )
        super().__init__("talker", inputs, (StateSpec("rows", "kv", "float32", ("batch", 2, "capacity", 1)),))
        self.tail: int | None = 3

    def compute(self, feeds, states):
        past, ids = int(feeds["past_length"][0]), feeds["text_ids"][0]
        values = ids + 100.0 * feeds["codec_ids"][0] + feeds["positions"][0, 0]
        values[feeds["hidden_index"]] += feeds["hidden"].sum(-1)
        values[feeds["frame_index"]] += 7 * feeds["frame_rows"][:, 0]
        cache = states.past("rows")[0, :, :, 0]
        cache[0, past : past + len(ids)], cache[1, past : past + len(ids)] = values, ids
        end = past + len(ids)
        code0 = int((cache[0, :end] * np.arange(1, end + 1)).sum() + feeds["noise"][0] * 1000) % CODEBOOK
        ends = np.flatnonzero(cache[1, :end] == IDS["tts_eos"])
        may_end = not feeds["suppressed"][0, IDS["codec_eos"]]
        if self.tail is not None and len(ends) and end - ends[0] > self.tail and may_end:
            code0 = IDS["codec_eos"]
        return {"token": np.array([code0]), "output_hidden": np.array([[code0 + 0.5]], np.float32)}


class FakePredictor(FakeEngine):
    def __init__(self) -> None:
        inputs = _inputs(
            hidden=("float32", ("batch", 1)),
            code0=("int64", ("batch",)),
            noise=("float32", ("batch", GROUPS - 1)),
            temperature=("float32", ("batch",)),
            top_k=("int64", ("batch",)),
            top_p=("float32", ("batch",)),
        )
        super().__init__("predictor", inputs)

    def compute(self, feeds, states):
        rest = (
            feeds["code0"][0] * np.arange(2, GROUPS + 1)
            + (feeds["noise"][0] * CODEBOOK).astype(int) * (feeds["temperature"][0] > 0)
        ) % CODEBOOK
        codes = np.concatenate([feeds["code0"], rest])[None].astype(np.int64)
        return {"codes": codes, "frame_row": codes.sum(1, keepdims=True).astype(np.float32)}


class FakeVocoder(FakeEngine):
    """A running sum of the codes, late by LEAD samples: the sound of a frame depends on all before it."""

    def __init__(self) -> None:
        inputs = _inputs(codes=("int64", ("batch", "frames", GROUPS)), past_length=("int64", ("batch",)))
        states = (
            StateSpec("sum", "recurrent", "float32", ("batch", 1)),
            StateSpec("late", "overlap", "float32", ("batch", LEAD)),
        )
        super().__init__(
            "code2wav",
            inputs,
            states,
            {"samples_per_frame": SAMPLES, "lead_samples": LEAD, "sample_rate": RATE},
        )
        self.frames = 0

    def compute(self, feeds, states):
        sums = np.cumsum(feeds["codes"][0].sum(1)) + states.past("sum")[0, 0]
        sound = (sums[:, None] + np.arange(SAMPLES) / 10).reshape(-1).astype(np.float32)
        line = np.concatenate([states.past("late")[0], sound])
        states.present("sum")[0, 0], states.present("late")[0] = sums[-1], line[len(sound) :]
        return {"audio": line[None, : len(sound)]}


class FakeEncoder(FakeEngine):
    def __init__(self) -> None:
        super().__init__("audio_encoder", _inputs(chunks=("float32", ("tokens", HIDDEN))))

    def compute(self, feeds, states):
        return {"features": feeds["chunks"] * 2}


class FakeDecoder:
    def push(self, token_id: int) -> str:
        return chr(token_id - 20 + ord("a"))

    def flush(self) -> str:
        return ""


class FakeFrontEnd:
    """Letters are tokens; an `input_audio` part of n samples is n audio tokens."""

    turn_end, answer_opening = np.array([2, 3]), np.array([1, 6, 3])

    def prompt(
        self, messages, *, add_generation_prompt=True, use_audio_in_video=False, video_fps=2.0, tools=None
    ):
        self.tools = tools
        ids, rows, media = [], [], []
        for message in messages:
            content = message["content"]
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            ids += [1, IDS[message["role"]], 3]
            for part in parts:
                if part["type"] == "text":
                    ids += letters(part["text"])
                else:
                    clip = part["input_audio"]["data"]
                    rows += range(len(ids), len(ids) + len(clip))
                    ids += [7] * len(clip)
                    media.append(MediaItem("audio", audio_tokens=len(clip), role=message["role"]))
            ids += [2, 3]
        ids += [1, 6, 3] if add_generation_prompt else []
        calls = (
            (
                EncoderCall(
                    "audio_encoder",
                    lambda: {"chunks": np.ones((len(rows), HIDDEN), np.float32)},
                    np.array(rows),
                ),
            )
            if rows
            else ()
        )
        positions = np.broadcast_to(np.arange(len(ids), dtype=np.float32), (3, len(ids)))
        return Prompt(np.array(ids), positions, float(len(ids)), calls, tuple(media))

    continuation = prompt

    def talker_positions(self, token_ids_user, media, trailing=9):
        rows = len(token_ids_user) + trailing
        return np.broadcast_to(np.arange(rows, dtype=np.float32), (3, rows)), float(rows)

    def decoder(self):
        return FakeDecoder()

    def decode(self, ids):
        return "".join(chr(token - 20 + ord("a")) for token in ids)


@contextmanager
def make_fakes() -> Iterator[SimpleNamespace]:
    """The fake engines by stage, and `omni(**options)`, which builds an Omni on them.

    Also for programs that run in a process of their own.
    """
    engines = {
        "thinker": FakeThinker(),
        "talker": FakeTalker(),
        "predictor": FakePredictor(),
        "code2wav": FakeVocoder(),
        "audio_encoder": FakeEncoder(),
    }
    FakeEngine.running = []
    constants = {"thinker_context": 2000, "talker_context": 3000, "codebook_size": CODEBOOK}
    opened: list[Omni] = []

    def omni(stages=tuple(engines), **options) -> Omni:
        manifest = Manifest(
            "fake",
            "0",
            "cpu",
            "fp32",
            {name: engines[name].entry for name in stages},
            IDS,
            ModelConstants(**constants),
            {"talker": SamplingParameters(0.9, 50, 1.0, 1.05), "thinker": SamplingParameters(0.0)},
            {"Ethan": 38, "aiden": 39},
            "Ethan",
            interleave="dual_track" if "talker" in stages else None,
            talker=CONTRACT if "talker" in stages else None,
        )
        opened.append(Omni(manifest, {name: engines[name] for name in stages}, FakeFrontEnd(), **options))
        return opened[-1]

    yield SimpleNamespace(
        engines=engines,
        omni=omni,
        ids=IDS,
        letters=letters,
        constants=constants,
        lead=LEAD,
        samples=SAMPLES,
        rate=RATE,
        front_end=FakeFrontEnd,
        contract=CONTRACT,
    )
    for one in opened:
        one.close()


@pytest.fixture
def fakes() -> Iterator[SimpleNamespace]:
    """See make_fakes."""
    with make_fakes() as made:
        yield made


@pytest.fixture(autouse=True)
def _watch_threads(no_leaked_threads):
    """Every test here runs workers."""
