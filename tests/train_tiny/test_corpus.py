"""The corpus: what is written is read back, nothing held out is in it,
and a folder without one is one sentence.
"""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("soundfile")

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.scripts.train_tiny import corpus as module
from antiphon.scripts.train_tiny.corpus import SHARES, Corpus, Item, texts
from antiphon.scripts.train_tiny.domain import KINDS, draw

HOURS = 0.05
RATE = 24_000


def spoken(text: str, voice: str, seed: int) -> np.ndarray:
    """Stands for a synthesiser: 0.1 s a word, another sound for every text."""
    samples = RATE // 10 * len(text.split())
    return np.random.default_rng([seed, len(text)]).uniform(-0.5, 0.5, samples).astype(np.float32)


class OwnProcess:
    """Stands for a pool of processes."""

    def __enter__(self) -> OwnProcess:
        return self

    def __exit__(self, *_: object) -> None: ...

    def map(
        self, function: Callable[[Item], np.ndarray], items: Iterable[Item], chunksize: int
    ) -> list[np.ndarray]:
        return [function(item) for item in items]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A corpus as the command writes it, of synthesisers that only make noise."""
    monkeypatch.setattr(module, "synthesise", spoken)
    monkeypatch.setattr(
        module, "get_context", lambda kind: SimpleNamespace(Pool=lambda processes: OwnProcess())
    )
    monkeypatch.setattr(sys, "argv", ["corpus", str(tmp_path / "corpus"), "--hours", str(HOURS)])
    module.main()
    return tmp_path / "corpus"


def test_every_utterance_is_read_back_as_it_was_spoken(folder: Path) -> None:
    corpus = Corpus(folder)
    assert not list(folder.glob("*.part"))
    for number, item in enumerate(corpus.items):
        audio = corpus.audio(number)
        assert audio.dtype == np.float32 and len(audio) == item.samples
        np.testing.assert_allclose(audio, spoken(item.text, item.voice, item.seed), atol=1e-4)


def test_every_role_and_voice_has_its_share_of_the_hours(folder: Path) -> None:
    corpus = Corpus(folder)
    for (role, voice), share in SHARES.items():
        many = [
            number for number in corpus.where(role) if corpus.items[number].voice not in ("joe", "espeak")
        ]
        numbers = many if voice == "many" else corpus.where(role, voice)
        seconds = sum(corpus.items[number].samples for number in numbers) / RATE
        wanted = share * HOURS * 3600
        assert wanted <= seconds < wanted + module.BATCH * 10, (role, voice)


@pytest.mark.parametrize(("role", "voice"), SHARES)
def test_nothing_held_out_is_spoken(role: str, voice: str) -> None:
    items = list(itertools.islice(texts(role, voice), 2000))
    choice = random.Random(0)
    kept = {kind: {draw(choice, True, kind).spoken for _ in range(200)} for kind in KINDS}
    assert not any(item.text in kept[item.kind] for item in items if item.role == "prompt")
    assert {item.kind for item in items} == set(KINDS)


def test_the_texts_are_always_the_same_and_others_for_every_voice() -> None:
    first, again, other = (
        list(itertools.islice(texts("prompt", voice), 20)) for voice in ("many", "many", "joe")
    )
    assert first == again
    assert [item.text for item in first] != [item.text for item in other]


def test_a_folder_without_a_corpus_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        AntiphonError, match=r"holds no corpus \(No such file or directory\); make one with python -m"
    ):
        Corpus(tmp_path / "missing")
