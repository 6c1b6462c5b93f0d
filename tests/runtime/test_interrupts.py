"""Ctrl-C in the midst of a call: whatever it cut, the place is free, the turn is free,
the next call works and close returns.
"""

from __future__ import annotations

import signal
import textwrap

import pytest

from .child import run_child

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="signals by timer")

INTERRUPTED = """
def interrupt(*_):
    raise KeyboardInterrupt

def interrupted(action, seconds):
    signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        action()
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        return True
    return False
"""


def child(program: str, *arguments: object, **options: object) -> list[str]:
    return run_child(INTERRUPTED + textwrap.dedent(program), *arguments, **options)


def test_an_interrupt_while_a_reply_waits_for_a_place_or_an_event_leaves_everything_usable():
    lines = child("""
        fakes.engines["talker"].tail = None
        omni = fakes.omni(max_streams=1)
        held = omni.stream(QUESTION, max_frames=100_000)
        for ask in (omni.generate, omni.stream):
            print(interrupted(lambda: ask(QUESTION), 0.1))
        conversation = omni.conversation()
        conversation.append(text="abc")
        print(interrupted(conversation.reply, 0.1))
        held.close()
        print(list(conversation.reply(max_frames=2))[-1].text)
        for stage in ("thinker", "talker", "code2wav"):
            fakes.engines[stage].pause = lambda: 0.5
            print(interrupted(lambda: omni.generate(QUESTION), 0.1))
            fakes.engines[stage].pause = lambda: 0
            print(omni.generate(QUESTION, max_frames=2).text)
        omni.close()
    """)
    assert lines == ["True", "True", "True", "abc", *["True", "hello"] * 3]


def test_an_interrupt_of_an_append_leaves_the_conversation_as_it_was():
    lines = child("""
        omni = fakes.omni()
        conversation = omni.conversation()
        conversation.append(text="abc")
        list(conversation.reply(max_frames=2))
        before = conversation.token_ids
        fakes.engines["thinker"].pause = lambda: 0.5
        print(interrupted(lambda: conversation.append(text="never"), 0.1))
        fakes.engines["thinker"].pause = lambda: 0
        print(conversation.token_ids == before)
        conversation.append(text="de")
        print(list(conversation.reply(max_frames=2))[-1].text)
    """)
    assert lines == ["True", "True", "de"]


def test_a_reply_closed_by_the_handler_of_a_signal_ends():
    lines = child("""
        fakes.engines["talker"].tail = None
        omni = fakes.omni(max_streams=1)
        for action in ("close", "cancel"):
            for delay in (0.001, 0.003, 0.01):
                stream = omni.stream(QUESTION, max_frames=100_000)
                signal.signal(signal.SIGALRM, lambda *_: getattr(stream, action)())
                signal.setitimer(signal.ITIMER_REAL, delay)
                events = list(stream)
        print(omni.generate(QUESTION, max_frames=2).text)
        signal.signal(signal.SIGALRM, lambda *_: omni.close())
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        try:
            omni.generate(QUESTION, max_frames=100_000)
        except antiphon.AntiphonError as error:
            print(error)
    """)
    assert lines == ["hello", "The reply was closed before its end; ask again."]


def test_interrupts_at_any_moment_lose_no_place_and_no_turn():
    program = """
        chance = random.Random(0)
        omni = fakes.omni(max_streams=1)
        conversation, hits, end = omni.conversation(), 0, time.monotonic() + 6

        def turn():
            conversation.append(text="abc")
            for event in conversation.reply(max_frames=4):
                pass

        def loop():
            for event in omni.stream(QUESTION, max_frames=4):
                pass

        while time.monotonic() < end:
            if len(conversation.token_ids) > 1000:
                conversation = omni.conversation()
            action = chance.choice([loop, turn, lambda: omni.generate(QUESTION, max_frames=4)])
            try:
                seconds = chance.choice([chance.uniform(1e-5, 6e-4), chance.uniform(1e-5, 0.01)])
                hits += interrupted(action, seconds)
            except antiphon.AntiphonError as error:
                # the turn before was cut between its append and its reply, or the other way round
                signal.setitimer(signal.ITIMER_REAL, 0)
                assert "nothing to answer" in str(error), error
            assert omni.generate(QUESTION, max_frames=2).text == "hello"
        omni.close()
        # Python lists a thread for ever whose start was interrupted before there was one: it is not alive.
        print(hits > 20, [thread.name for thread in threading.enumerate() if thread.is_alive()])
    """
    # Python itself says where an interrupt came into the callback of a weak reference, and drops it
    assert child(program, ignored=r"(?s)Exception ignored in.*?KeyboardInterrupt: \n") == [
        "True ['MainThread']"
    ]
