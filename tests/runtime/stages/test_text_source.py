"""The two sources of a reply's text."""

from __future__ import annotations

from antiphon.runtime.bundle.sampling import SamplingParameters
from antiphon.runtime.stages.text_source import GivenText, ThinkerText

NORMAL = 1


def queued(fakes, text: str):
    model = fakes.omni().model
    context = model.thinker.new_context()
    context.queue_prompt(model.front_end.prompt([{"role": "user", "content": text}]))
    return model.thinker, context


def test_the_thinker_answers_what_is_queued(fakes):
    source = ThinkerText(*queued(fakes, "abc"), SamplingParameters(temperature=0.0), seed=0)
    assert source.prompt_tokens == 11
    assert [token.id for token in source.tokens(lambda: NORMAL, lambda seconds: None)] == fakes.letters("abc")


def test_a_given_text_is_spoken_whole_behind_the_prompt_that_the_thinker_has_read(fakes):
    thinker, context = queued(fakes, "abc")
    source, steps = GivenText(thinker, context, fakes.letters("xyz")), []
    assert source.prompt_tokens == 11
    tokens = list(source.tokens(lambda: NORMAL, steps.append))
    assert [(token.id, token.spoken, token.is_last) for token in tokens] == [
        (token, True, False) for token in fakes.letters("xyz")
    ]
    assert (
        context.answer_row == len(context.token_ids) == 11
        and steps == []
        and len(fakes.engines["thinker"].feeds) == 1
    )


def test_a_given_text_without_a_prompt_runs_no_engine(fakes):
    model = fakes.omni().model
    source = GivenText(model.thinker, model.thinker.new_context(), fakes.letters("xyz"))
    assert source.prompt_tokens == 0 and len(list(source.tokens(lambda: NORMAL, lambda seconds: None))) == 3
    assert not fakes.engines["thinker"].feeds
