"""Training of the Thinker: its rows are those of inference, its data those of the corpus,
and a few steps of it learn.
"""

import json
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from antiphon.graphs.checkpoints.read_config import read_config
from antiphon.graphs.layers.decoder_specs import decoder_states, greedy_sampling
from antiphon.graphs.stages.audio_encoder import audio_encoder_stage
from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.frontend.audio.mel import normalise
from antiphon.scripts.train_tiny import hearing_data, thinker_training
from antiphon.scripts.train_tiny.corpus import Corpus, texts
from antiphon.scripts.train_tiny.domain import draw, is_held_out
from antiphon.scripts.train_tiny.hearing_data import (
    Recordings,
    augmented,
    plain,
    prompt_answers,
    recorded_power,
)
from antiphon.scripts.train_tiny.thinker_rows import SILENT, Layout, Turn, answer_logits
from antiphon.scripts.train_tiny.thinker_training import (
    KEPT_BACK,
    ctc_loss,
    made_up_word,
    start,
    text_batches,
    text_turn,
    train,
    with_gap,
    worded,
)


@pytest.fixture(scope="module")
def checkpoint(start_checkpoint):
    return start_checkpoint


@pytest.fixture(scope="module")
def layout(checkpoint):
    return Layout(checkpoint, read_config(checkpoint))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A folder as scripts.train_tiny.corpus makes it, of noise instead of voices."""
    folder = tmp_path_factory.mktemp("corpus")
    noise = np.random.default_rng(0)
    lines, pieces, begin = [], [], 0
    for role, voice, count in (("answer", "joe", 6), ("prompt", "joe", 6), ("prompt", "many", 6)):
        stream = texts(role, voice)
        for _ in range(count):
            item = next(stream)
            samples = (noise.standard_normal(int(noise.integers(20_000, 60_000))) * 3000).astype(np.int16)
            lines.append(json.dumps(vars(item) | {"start": begin, "samples": len(samples)}))
            pieces.append(samples)
            begin += len(samples)
    (folder / "items.jsonl").write_text("\n".join(lines) + "\n")
    np.concatenate(pieces).tofile(folder / "audio.i16")
    return folder


def voice_like(seconds: float, rate: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(int(seconds * rate)) * 0.1).astype(np.float32)


def test_typed_rows_are_those_of_the_runtime(layout):
    turns = [
        ("What is 23 plus 45?", "Twenty three plus forty five is sixty eight."),
        ("Spell cat.", "C, A, T."),
    ]
    ids, wanted = layout.ids([Turn(layout.encode(asked), layout.encode(answer)) for asked, answer in turns])
    messages = [
        {"role": role, "content": text}
        for turn in turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
    for known in (1, 3):
        prompt = layout.frontend.prompt(messages[:known])
        assert ids[: len(prompt.token_ids)] == prompt.token_ids.tolist()
        assert prompt.positions.tolist() == [list(range(len(prompt.token_ids)))] * 3
        answer = [*layout.encode(turns[known // 2][1]), layout.frontend.im_end]
        first = len(prompt.token_ids) - 1
        # the prompt's last row foretells the answer's first token
        assert wanted[first : first + len(answer)] == answer
    assert sum(index != SILENT for index in wanted) == sum(
        len(layout.encode(answer)) + 1 for _, answer in turns
    )


@pytest.mark.parametrize("words", ["", "Repeat what I said."])
@pytest.mark.parametrize("seconds", [0.7, 2.34])
def test_spoken_rows_are_those_of_the_runtime(layout, checkpoint, words, seconds):
    samples = voice_like(seconds, 24_000)
    content = [
        {"type": "audio", "audio": samples, "sample_rate": 24_000},
        *([{"type": "text", "text": words}] if words else []),
    ]
    prompt = layout.frontend.prompt([{"role": "user", "content": content}])
    power = recorded_power(samples)
    sound = normalise(power, power.max())
    batch = layout.batch([[Turn(layout.encode(words), layout.encode("Good."), sound)]])
    length = len(prompt.token_ids)
    assert batch.ids[0, :length].tolist() == prompt.token_ids.tolist()
    assert prompt.positions.tolist() == [list(range(length))] * 3
    assert (
        prompt.calls[0].rows.tolist() == torch.nonzero(batch.ids[0] == layout.frontend.audio)[:, 0].tolist()
    )

    torch.manual_seed(0)
    _, encoder = start(read_config(checkpoint))
    stage = audio_encoder_stage(read_config(checkpoint))
    feeds = prompt.calls[0].feeds()
    with torch.no_grad():
        inference = encoder(*(torch.from_numpy(feeds[spec.name]) for spec in stage.inputs))[0]
        training, tokens = layout.features(encoder, batch.sounds)
    assert tokens == [len(prompt.calls[0].rows)]
    torch.testing.assert_close(training, inference, rtol=0, atol=1e-5)


def test_a_new_model_guesses_evenly(layout, checkpoint):
    torch.manual_seed(0)
    thinker, _ = start(read_config(checkpoint))
    with thinker_training.differentiable(), torch.no_grad():
        logits, targets = answer_logits(
            thinker, next(text_batches(layout, random.Random(0))), layout.frontend.audio, None
        )
    assert torch.nn.functional.cross_entropy(logits, targets).item() == pytest.approx(np.log(1024), abs=0.2)


def test_the_logits_are_those_of_the_stage(layout, checkpoint):
    torch.manual_seed(0)
    config = read_config(checkpoint)
    thinker, _ = start(config)
    batch = layout.batch(
        [
            [
                Turn(layout.encode("Say 7."), layout.encode("Seven.")),
                Turn(layout.encode("Say 8."), layout.encode("Eight.")),
            ]
        ]
    )
    tokens = batch.ids.shape[1]
    wanted = torch.nonzero(batch.targets[0] != SILENT)[:, 0]
    sizes = {"batch": 1, "capacity": tokens}
    past = [
        torch.zeros([sizes.get(size, size) for size in state.shape])
        for state in decoder_states(config.thinker.text)
    ]
    sampling = [
        torch.from_numpy(value)
        for value in greedy_sampling(len(wanted), config.thinker.text.vocab_size).values()
    ]
    positions = torch.arange(tokens, dtype=torch.float32).expand(3, 1, tokens)
    lengths = torch.tensor([tokens]), torch.tensor([0])
    nothing = torch.zeros(0, config.thinker.text.hidden_size), torch.zeros(0, dtype=torch.int64)
    with torch.no_grad():
        _, expected, *_ = thinker(batch.ids, positions, *lengths, *nothing, wanted, *sampling, *past)
        with thinker_training.differentiable():
            found, _ = answer_logits(thinker, batch, layout.frontend.audio, None)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_no_other_conversation_of_the_batch_and_no_padding_counts(layout, checkpoint):
    torch.manual_seed(0)
    thinker, encoder = start(read_config(checkpoint))
    power = recorded_power(voice_like(1.5, 24_000))
    turns = [
        [Turn(layout.encode("Say 7."), layout.encode("Seven."))],
        [Turn([], layout.encode("Three plus four is seven."), normalise(power, power.max()))],
    ]
    with thinker_training.differentiable(), torch.no_grad():

        def logits(conversations):
            batch = layout.batch(conversations)
            features = layout.features(encoder, batch.sounds)[0] if batch.sounds else None
            return answer_logits(thinker, batch, layout.frontend.audio, features)[0]

        torch.testing.assert_close(
            logits(turns), torch.cat([logits([turn]) for turn in turns]), rtol=0, atol=1e-4
        )


def test_careless_prompts_keep_their_content():
    choice = random.Random(0)
    for _ in range(300):
        exchange = draw(choice, held_out=False)
        text = worded(exchange, choice).lower()
        if exchange.kind == "sum":
            digits, words = exchange.key.split("+"), exchange.answer.lower().split(" is ")[0].split(" plus ")
            assert all(number in text for number in digits) or all(number in text for number in words)
        else:
            assert text.rstrip(".?!") in (
                exchange.typed.lower().rstrip(".?!"),
                exchange.spoken.lower().rstrip(".?!"),
            )


def test_made_up_words_are_never_held_out():
    choice = random.Random(0)
    words = {made_up_word(choice) for _ in range(2000)}
    assert len(words) > 500
    assert all(3 <= len(word) <= 6 and not is_held_out(f"spelling:{word}") for word in words)


def test_a_gap_takes_one_word_of_those_that_may_go():
    for seed in range(30):
        words = with_gap("What color is the sky?", random.Random(seed), ["what", "is"]).split()
        assert {"color", "the", "sky?"} <= set(words)
        assert {"What", "is"} & set(words)
    assert with_gap("Hello.", random.Random(0), None) == "Hello."


def test_the_corpus_prompts_get_their_answers(corpus):
    items = Corpus(corpus).items
    answers = prompt_answers(items)
    assert len(answers) == 12
    assert items[6].role == "prompt" and answers[6]
    with pytest.raises(AntiphonError, match="make the corpus again"):
        prompt_answers(items[7:])


def test_no_gap_makes_a_wording_that_is_evaluated():
    assert "bye" in KEPT_BACK
    assert with_gap("Bye bye.", random.Random(1), None) == "bye."  # what must not be learnt
    tokenizer = SimpleNamespace(encode=lambda text: text)
    choice = random.Random(0)
    typed = {text_turn(tokenizer, choice).prompt for _ in range(3000)}
    assert not {plain(text).lower() for text in typed} & KEPT_BACK


def test_recordings_are_read_once(corpus, tmp_path):
    recordings = Recordings(corpus, tmp_path / "mels.npy")
    assert [clip.answer is None for clip in recordings.clips] == [True] * 6 + [False] * 12
    whole = recorded_power(Corpus(corpus).audio(4))
    assert recordings.power(4).shape == whole.shape
    np.testing.assert_allclose(recordings.power(4), whole, atol=0.01)
    again = Recordings(corpus, tmp_path / "mels.npy")
    assert (again.power(17) == recordings.power(17)).all()


def test_variations_stay_in_the_range_of_features():
    power = recorded_power(voice_like(1.0, 24_000))
    noise = np.random.default_rng(0)
    for _ in range(20):
        sound = augmented(power, noise)
        assert sound.shape[0] == 128 and 80 <= sound.shape[1] <= 200
        assert np.isfinite(sound).all() and sound.max() - sound.min() <= 2.0 + 1e-5


def test_only_what_is_heard_is_recognised():
    assert plain("It is 7. What o'clock, please?") == "It is 7 What o'clock please"


def test_a_perfect_recognition_has_no_loss():
    scores = torch.full((3, 5), -20.0)
    scores[0, 1] = scores[1, 4] = scores[2, 2] = 20.0
    assert ctc_loss(scores.log_softmax(1), [3], [[1, 2]]).item() == pytest.approx(0, abs=1e-4)


def test_a_training_goes_on_where_it_stopped(checkpoint, corpus, tmp_path, monkeypatch):
    power = recorded_power(voice_like(1.0, 24_000))
    sound = normalise(power, power.max())
    monkeypatch.setattr(thinker_training, "TEXT_TOKENS", 256)
    monkeypatch.setattr(thinker_training, "CLIPS", 4)
    monkeypatch.setattr(thinker_training, "EVALUATE_EVERY", 2)
    monkeypatch.setattr(thinker_training, "held_out_recordings", lambda cache: [("joe", "Seven.", sound)])
    assert train(checkpoint, None, tmp_path / "run", 2, None).step == 2
    run = train(checkpoint, corpus, tmp_path / "run", 4, None)
    assert run.step == 4
    assert all(
        torch.isfinite(parameter).all()
        for module in run.modules.values()
        for parameter in module.parameters()
    )


def test_held_out_recordings_of_other_prompts_are_refused(tmp_path, monkeypatch):
    sound = voice_like(0.5, 24_000)
    monkeypatch.setattr(hearing_data, "synthesise", lambda text, voice, seed: sound)
    monkeypatch.setattr(hearing_data, "HELD_OUT", (("joe", 2), ("new", 1)))
    first = hearing_data.held_out_recordings(tmp_path / "held_out.npz")
    assert [voice for voice, _, _ in first] == ["joe", "joe", "new"]
    again = hearing_data.held_out_recordings(tmp_path / "held_out.npz")
    np.testing.assert_array_equal(first[2][2], again[2][2])
    monkeypatch.setattr(hearing_data, "HELD_OUT", (("many", 3),))
    with pytest.raises(AntiphonError, match="holds other held-out prompts than this version draws"):
        hearing_data.held_out_recordings(tmp_path / "held_out.npz")
    assert [file.name for file in tmp_path.iterdir()] == ["held_out.npz"]
