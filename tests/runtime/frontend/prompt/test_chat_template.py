from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.frontend.prompt.chat_template import LARGEST_TEMPLATE, ChatTemplate

HELLO: dict[str, Any] = {
    "messages": [{"role": "user", "content": "hello"}],
    "tools": None,
    "add_generation_prompt": True,
}

GROW = "{% set ns = namespace(x=FIRST, y=FIRST) %}{% for i in range(20) %}{% set ns.x = STEP %}{% endfor %}"
DAG = GROW.replace("FIRST", "(1,)").replace("STEP", "(ns.x, ns.x)")
LONG = "{% set a = 'a' * 10000 %}"

# Each finishes in a moment without bounds, too, and takes more than a plain conversation can need.
TOO_MUCH = {
    "loops in loops": "{% for i in range(1000) %}{% for j in range(1000) %}{% endfor %}{% endfor %}",
    "a loop whose condition is never true": (
        "{% for i in range(1000) %}{% for j in range(1000) if false %}{% endfor %}{% endfor %}"
    ),
    "a loop within itself": "{% for i in [[1]] recursive %}{{ loop([i]) }}{% endfor %}",
    "a macro that calls itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a macro that calls itself twice": (
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(18) }}"
    ),
    "a block within itself": "{% block a %}{{ self.a() }}{% endblock %}",
    "a call block in loops": (
        "{% macro f() %}{{ caller() }}{% endmacro %}{% for i in range(90000) %}{% call f() %}x{% "
        "endcall %}{% endfor %}"
    ),
    "text times a number": "{{ 'a' * 10000000 }}",
    "a number times text": "{{ 10000000 * 'a' }}",
    "a list times a number": "{{ [1] * 10000000 }}",
    "text that doubles by +": GROW.replace("FIRST", "'abcd'").replace("STEP", "ns.x + ns.x"),
    "text that doubles by ~": GROW.replace("FIRST", "'abcd'").replace("STEP", "ns.x ~ ns.x"),
    "a list that doubles": GROW.replace("FIRST", "[1, 2, 3]").replace("STEP", "ns.x + ns.x"),
    "a block of text that doubles": GROW.replace("FIRST", "'abcd'").replace(
        "{% set ns.x = STEP %}", "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}"
    ),
    "a list of itself, written": DAG + "{{ ns.x }}",
    "a list of itself, as JSON": DAG + "{{ ns.x | tojson }}",
    "a list of itself, compared": DAG + "{{ ns.x == [ns.x] }}",
    "a list of itself, as a key": DAG + "{{ {ns.x: 1} }}",
    "a list of itself, looked up": DAG + "{{ {}.get(ns.x) }}",
    "a list of itself, searched": DAG + "{{ ns.x in {} }}",
    "a list of itself, as an index": DAG + "{{ {}[ns.x] }}",
    "arguments of itself": (
        "{% macro m(n) %}{% if n %}{{ m(n - 1, varargs, varargs) }}{% else %}{{ varargs }}{% endif %}{% "
        "endmacro %}{{ m(20) }}"
    ),
    "a deep list": GROW.replace("20", "9000").replace("FIRST", "[1]").replace("STEP", "[ns.x]")
    + "{{ ns.x }}",
    "a list that gets longer": GROW.replace("20", "5000")
    .replace("FIRST", "[1]")
    .replace("STEP", "ns.x + [i]"),
    "a list that gets deeper and longer": GROW.replace("20", "90000")
    .replace("FIRST", "[1]")
    .replace("STEP", "[ns.x, [i, [i]]]"),
    "a large power": "{{ 10 ** 10000 }}",
    "a tower of powers": "{{ 9 ** 99 ** 9 }}",
    "a number that is squared": GROW.replace("FIRST", "3").replace("STEP", "ns.x * ns.x"),
    "a wide number": "{{ '%10000000d' % 5 }}",
    "a number as wide as an argument": "{{ '%*d' % (10000000, 5) }}",
    "a wide number under a key in parentheses": "{{ '%(a(b))10000000d' % {'a(b)': 5} }}",
    "a precise number": "{{ '%.10000000f' % 5 }}",
    "a wide number of a filter": "{{ '%10000000d' | format(5) }}",
    "a wide field": "{{ '{:10000000}'.format(5) }}",
    "a field as wide as another": "{{ '{:{w}}'.format(5, w=10000000) }}",
    "a wide field of a map": "{{ '{a:10000000}'.format_map({'a': 5}) }}",
    "center": "{{ 'a'.center(10000000) }}",
    "the filter center": "{{ 'a' | center(10000000) }}",
    "ljust": "{{ 'a'.ljust(10000000) }}",
    "rjust": "{{ 'a'.rjust(10000000) }}",
    "zfill": "{{ 'a'.zfill(10000000) }}",
    "expandtabs": "{{ '\\t'.expandtabs(tabsize=10000000) }}",
    "replace": LONG + "{{ a.replace('a', a) }}",
    "replace nothing": LONG + "{{ a.replace('', a) }}",
    "the filter replace": LONG + "{{ a | replace('a', a) }}",
    "join": LONG + "{{ a.join([a] * 1000) }}",
    "the filter join": LONG + "{{ ([a] * 1000) | join(a) }}",
    "the filter indent": "{{ ('\\n' * 1000) | indent(10000) }}",
    "the filter indent, by text": LONG + "{{ ('\\n' * 10000) | indent(a) }}",
    "the filter wordwrap": "{{ ('a' * 80000) | wordwrap(1) }}",
    "the filter wordwrap, by text": LONG + "{{ a | wordwrap(1, wrapstring=a) }}",
    "the filter batch": "{{ [1] | batch(10000000, 'x') | list }}",
    "the filter slice": "{{ [1] | slice(1000000) | list }}",
    "the filter tojson, indented": "{{ [1, [2]] | tojson(indent=10000000) }}",
    "the filter round": "{{ 1.5 | round(1000, 'ceil') }}",
    "the filter int": LONG + "{{ a | int(0, 16) }}",
    "the filter sum": "{{ ([[1] * 1000] * 200) | sum(start=[]) }}",
    "the filter map": LONG + "{{ range(9000) | map('replace', 0, a) | join }}",
    "the filter sort in a loop": "{% for i in range(10) %}{% set x = range(90000) | sort %}{% endfor %}",
    "the filter select in a loop": (
        "{% for i in range(10) %}{% set x = range(90000) | select('none') | list %}{% endfor %}"
    ),
    "the filter list in a loop": "{% for i in range(10) %}{% set x = range(90000) | list %}{% endfor %}",
    "the filter urlize": "{{ ('a.com ' * 100000) | urlize }}",
    "the filter pprint": "{{ range(20000) | list | pprint }}",
    "the rest of a loop": (
        "{% for x in range(1000) %}{% for y in range(1000) %}{{ loop | list | length "
        "}}{% endfor %}{% endfor %}"
    ),
    "a slice in a loop": LONG + "{% for i in range(9000) %}{% set x = a[1:] %}{% endfor %}",
    "a search in a loop": LONG + "{% for i in range(9000) %}{{ 'b' in a }}{% endfor %}",
    "a comparison in a loop": LONG
    + "{% set b = a[1:] + 'a' %}{% for i in range(9000) %}{% if a == b %}{% endif %}{% endfor %}",
    "capitals in a loop": LONG + "{% for i in range(9000) %}{% set x = a.upper() %}{% endfor %}",
    "a split in a loop": LONG + "{% for i in range(9000) %}{% set x = a.split('a') %}{% endfor %}",
    "a long search": "{% set a = 'a' * 40000 %}{{ a.rfind('b' + a[:20000]) }}",
    "output in a loop": LONG + "{% for i in range(9000) %}{{ a }}{% endfor %}",
    "fixed output in a loop": "{% for i in range(2000) %}" + "hello" * 1000 + "{% endfor %}",
    "a width at compile time": "{% autoescape 'a' | center(10000000) %}{% endautoescape %}",
}

FAILS = {
    "ZeroDivisionError": "{{ 1 / 0 }}",
    "TypeError: can only concatenate": "{{ 'a' + 1 }}",
    "TypeError: the test odd is for numbers": "{{ '%d' is odd }}",
    "UndefinedError: 'a' is undefined": "{{ a.b }}",
    "UndefinedError: 'lipsum' is undefined": "{{ lipsum() }}",
    "TypeError: no loader": "{% include 'a' %}",
    "OverflowError: Range too big": "{{ range(1000000000) }}",
    "SecurityError: access to attribute 'encode'": "{{ 'a'.encode() }}",
    "SecurityError: access to attribute 'to_bytes'": "{{ (1).to_bytes(1) }}",
    "SecurityError: access to attribute 'append'": "{{ messages.append(1) }}",
    "SecurityError: a name in a namespace begins with an underscore": "{{ namespace(_a=1) }}",
    "ValueError": "{{ 'a'.index('b') }}",
}


@pytest.mark.parametrize("template", TOO_MUCH.values(), ids=TOO_MUCH)
def test_a_template_that_wants_too_much_is_one_sentence_at_once(template: str) -> None:
    compiled = ChatTemplate(template)
    began = time.process_time()
    with pytest.raises(
        AntiphonError,
        match=r"^The chat template cannot be rendered: it .*; use the chat template of the checkpoint\.$",
    ):
        compiled.render(HELLO)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "name",
    [
        "loops in loops",
        "a list of itself, written",
        "a list that gets deeper and longer",
        "output in a loop",
        "the filter join",
    ],
)
def test_a_template_that_wants_too_much_takes_little_memory(name: str) -> None:
    compiled = ChatTemplate(TOO_MUCH[name])
    tracemalloc.start()
    try:
        with pytest.raises(AntiphonError):
            compiled.render(HELLO)
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("sentence", "template"), FAILS.items())
def test_a_failure_is_one_sentence_that_names_it(sentence: str, template: str) -> None:
    with pytest.raises(AntiphonError, match=f"^The chat template fails on these messages .{sentence}"):
        ChatTemplate(template).render(HELLO)


def test_a_refusal_of_the_template_is_said_in_its_words_and_no_more_than_200_letters() -> None:
    with pytest.raises(
        AntiphonError, match="^The chat template refuses these messages: roles must alternate; change"
    ):
        ChatTemplate("{{ raise_exception('roles must alternate.') }}").render(HELLO)
    with pytest.raises(AntiphonError) as caught:
        ChatTemplate("{{ raise_exception('roles ' * 1000) }}").render(HELLO)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "source",
    [
        "{% if %}",
        "{{ '",
        "{% nothing %}",
        "{{ 'a' | nothing }}",
        "{% break %}",
        "(" * 3,
        "{{ " + "(" * 10_000 + "1" + ")" * 10_000 + " }}",
        "{% if 1 %}" * 5000 + "{% endif %}" * 5000,
        "{{ 1" + "9" * 5000 + " }}",
        "{{ " + "-" * 10_000 + "1 }}",
    ],
    ids=lambda source: source[:12],
)
def test_a_template_that_does_not_compile_is_one_sentence(source: str) -> None:
    if source.startswith("((("):
        assert ChatTemplate(source).render(HELLO) == source  # text is no Jinja
        return
    with pytest.raises(
        AntiphonError,
        match=(
            r"^The chat template in x (is not valid Jinja \(.*\)|cannot be compiled: .*); "
            r"use the chat template of the checkpoint\.$"
        ),
    ):
        ChatTemplate(source, "The chat template in x")


def test_a_template_of_10_megabytes_is_refused_before_it_is_read() -> None:
    with pytest.raises(
        AntiphonError, match=f"has 10,000,000 characters, expected at most {LARGEST_TEMPLATE:,}"
    ):
        ChatTemplate("a" * 10_000_000)


def test_a_template_of_very_many_expressions_is_refused_at_once() -> None:
    began = time.process_time()
    with pytest.raises(
        AntiphonError, match="cannot be compiled: it has more than 15,000 expressions and statements; use"
    ):
        ChatTemplate("{{ a + b }}" * (LARGEST_TEMPLATE // 12))
    assert time.process_time() - began < 2


def test_the_bounds_grow_with_the_messages() -> None:
    template = ChatTemplate(
        "{% for m in messages %}<{{ m.role }}>{{ m.content.strip().replace('a', 'bb') + '|' }}{{ "
        "m.content.split('\\n')[0] | trim }}{% endfor %}"
    )
    long = "word \u4f60 \n" * 100_000
    assert len(template.render({"messages": [{"role": "user", "content": long}]})) > len(long)
    many = [{"role": "user", "content": "hello"}] * 20_000
    assert template.render({"messages": many}).count("<user>") == 20_000


def test_a_template_may_look_at_every_message_from_every_message() -> None:
    template = ChatTemplate(
        "{% for m in messages %}{% if messages | selectattr('role', 'equalto', 'user') | list | length "
        "> 1 %}x{% endif %}{% endfor %}"
    )
    assert template.render({"messages": [{"role": "user", "content": "hello"}] * 200}) == "x" * 200


def test_renderings_of_several_threads_do_not_share_what_they_may_spend() -> None:
    template = ChatTemplate("{% for i in range(9000) %}{{ messages[0].content }}{% endfor %}")
    with ThreadPoolExecutor(8) as pool:
        texts = list(
            pool.map(
                lambda word: template.render({"messages": [{"role": "user", "content": word}]}), "abcdefgh"
            )
        )
    assert texts == [word * 9000 for word in "abcdefgh"]


def test_a_template_renders_again_after_it_failed() -> None:
    template = ChatTemplate(
        "{% if messages | length > 1 %}{% for i in range(90000) %}{{ i }}{{ i }}{{ i }}{{ i }}{% "
        "endfor %}{% endif %}ok"
    )
    with pytest.raises(AntiphonError):
        template.render({"messages": [1, 2]})
    assert template.render({"messages": [1]}) == "ok"


def test_the_guard_stays_itself_where_json_is_ascii() -> None:
    text = ChatTemplate("{{ messages | tojson(ensure_ascii=true) }}").render(
        {"messages": ["\ue000 \xe9 \U0001f600 \\ue000"]}, guard="\ue000"
    )
    assert text == json.dumps(["\ue000 \xe9 \U0001f600 \\ue000"]).replace("\\ue000 ", "\ue000 ", 1)


FEATURES = """
{%- set ns = namespace(count=0, names=[]) -%}
{%- macro shout(text, times=2) -%}{{ (text | upper ~ '!') * times }}\
{{ caller() if caller else '' }}{%- endmacro -%}
{%- for m in messages if m.role != 'system' -%}
    {%- if loop.index > 4 %}{% break %}{% endif -%}
    {%- if m.content is none %}{% continue %}{% endif -%}
    {%- set ns.count = ns.count + 1 -%}{%- set ns.names = ns.names + [m['role']] -%}
    {{ loop.index0 }}{{ loop.last }}{{ loop.previtem.role if loop.previtem is defined }}\
{{ loop.cycle('a', 'b') }}|
    {%- generation %}{{ shout(m.content) }}{% endgeneration -%}
    {%- call shout('x', times=1) %}<{{ m.role[:2] }}>{% endcall -%}
{%- else %}none{% endfor -%}
{{ ns.count }}{{ ns.names | join(', ') }}{{ messages | map(attribute='role') | unique | sort | list }}\
{{ messages[::-1][0].role }}
{{ '%5d|%-4s|%s' % (3, 'a', [1]) }}{{ '{:>5}|{!r}|{a.b}'.format(3, 'x', \
a={'b': 1}) }}{{ ('<b>' | safe).format('<') }}{{ '<' | e }}
{{ {'b': 'é<', 'a': [1, 2.5, none]} | tojson }}{{ [1, {'x': 2}] | tojson(indent=2) }}{{ [3, \
1] | sum }}{{ [{'a': 1}] | sum(attribute='a') }}
{{ 3 in [1, 3] }}{{ 'a' not in 'bcd' }}{{ 'k' in {'k': 1} }}{{ 1 < 2 < 3 }}{{ 2 ** 10 }}{{ -7 // 2 }}\
{{ 7 % 3 }}{{ 7 is odd }}{{ 6 is divisibleby(3) }}
{{ 'a b'.split() | map('upper') | list }}{{ 'abc' | reverse }}{{ dict(a=1).items() | list }}\
{{ 'x'.center(5) }}{{ [1, 2, 3] | batch(2) | list }}
{% filter indent(2) %}a
b{% endfilter %}{% set t %}[{{ messages | length }}]{% endset %}{{ t }}\
{{ 'now'[:strftime_now('%Y') | length - 4] }}{{ undefined_name }}
{% for key, value in {'a': 1}.items() %}{{ key ~ value }}{% endfor %}\
{{ messages | groupby('role') | map(attribute='grouper') | list }}
{% for n in [[1, [2]]] recursive %}{{ n if n is not iterable else loop(n) }}{% endfor %}\
{{ 'b' if false else 'c' }}{{ (1, 2) + (3,) }}{{ 'ab' is upper }}
"""
ROLES = st.sampled_from(["system", "user", "assistant"])


@pytest.fixture(scope="module")
def reference() -> Callable[..., str]:
    utilities = pytest.importorskip("transformers.utils.chat_template_utils")
    return lambda source, **variables: utilities._compile_jinja_template(source).render(**variables)


@settings(max_examples=60, deadline=None)
@given(turns=st.lists(st.tuples(ROLES, st.none() | st.text(max_size=6)), min_size=1, max_size=7))
def test_a_template_renders_as_in_transformers(
    reference: Callable[..., str], turns: list[tuple[str, str | None]]
) -> None:
    messages = [{"role": role, "content": content} for role, content in turns]
    assert ChatTemplate(FEATURES).render({"messages": messages}) == reference(FEATURES, messages=messages)


def test_what_a_generation_block_sets_stays_in_it_as_in_transformers(reference: Callable[..., str]) -> None:
    source = "{% set a = 1 %}{% generation %}{% set a = 2 %}{{ a }}{% endgeneration %}{{ a }}"
    assert ChatTemplate(source).render({}) == reference(source) == "21"
