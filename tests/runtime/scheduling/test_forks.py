"""A process forked in the midst of replies: the copy gets one sentence or loads anew,
ends by itself, and the parent goes on.
"""

from __future__ import annotations

import os
import sys

import pytest

from ..child import run_child

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")

FORKED = """
def forked(action, leave=os._exit, status=0):
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        signal.alarm(30)  # a hang ends it with a status that is not 0
        try:
            action()
        except antiphon.AntiphonError as error:
            print(str(error).replace(str(os.getppid()), "P"))
        sys.stdout.flush()
        leave(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == status
"""

SENTENCE = (
    "{} belongs to process P, and this is a fork of it, which has none of its threads; "
    "load the bundle in this process, "
    'or start processes with multiprocessing.get_context("spawn").'
)


def child(program: str, *arguments: object) -> list[str]:
    # Python 3.12 and later warn of every fork beside threads
    return run_child(
        FORKED + program,
        *arguments,
        seconds=90,
        watched=False,
        ignored=r".*DeprecationWarning: .*fork.*\n.*\n",
    )


def test_what_was_loaded_before_a_fork_is_refused_after_it_and_the_parent_goes_on():
    lines = child("""
fakes.engines["talker"].tail = None
omni = fakes.omni(max_streams=4)
streams = [omni.stream(QUESTION, max_frames=100_000) for _ in range(3)]
conversation = omni.conversation()
conversation.append(text="abc")
uses = [
    lambda: omni.generate(QUESTION), lambda: next(streams[0]), conversation.reply,
    lambda: conversation.append(text="de"), omni.conversation, omni.voice,
    lambda: asyncio.run(anext(omni.astream(QUESTION))),
]
for use in uses:
    forked(use)
def leave():
    streams[0].cancel()
    streams[1].close()
    del streams[2]
    gc.collect()
    omni.close()
    omni.close()
forked(leave)
forked(lambda: None, leave=sys.exit)
for stream in streams:
    stream.close()
print(list(conversation.reply(max_frames=2))[-1].text)
""")
    assert lines == [SENTENCE.format("This reply" if place == 1 else "This Omni") for place in range(7)] + [
        "abc"
    ]


def test_a_fork_while_locks_are_held_hangs_nobody():
    lines = child("""
omni = fakes.omni(max_streams=2)
stop = False
def work():
    while not stop:
        omni.generate(QUESTION, max_frames=20)
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
def use():
    omni.close()
    gc.collect()
for _ in range(40):
    forked(use)
stop = True
for thread in threads:
    thread.join()
print(omni.generate(QUESTION).text)
""")
    assert lines == ["hello"]


def test_multiprocessing_by_fork_gets_the_sentence():
    lines = child("""
import multiprocessing
omni = fakes.omni()
stream = omni.stream(QUESTION)
def use(connection):
    try:
        connection.send(omni.generate(QUESTION).text)
    except antiphon.AntiphonError as error:
        connection.send(str(error).replace(str(os.getppid()), "P"))
context = multiprocessing.get_context("fork")
here, there = context.Pipe()
process = context.Process(target=use, args=(there,))
process.start()
print(here.recv())
process.join(20)
print(process.exitcode, list(stream)[-1].text)
""")
    assert lines == [SENTENCE.format("This Omni"), "0 hello"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc hands the exit status on")
def test_a_fork_of_a_loaded_bundle_may_load_it_anew_drop_it_and_end(tiny_bundle):
    lines = child(
        """
omni = antiphon.load(sys.argv[1], threads=2)
omni.generate(QUESTION, max_text_tokens=2, max_frames=2)
stream = omni.stream(QUESTION, max_text_tokens=500, max_frames=500)
def anew():
    with antiphon.load(sys.argv[1], threads=2) as mine:
        print(len(mine.generate(QUESTION, max_text_tokens=2, max_frames=2).codes))
def drop():
    global omni, stream
    del omni, stream
    gc.collect()
forked(anew)
forked(drop)
forked(drop, leave=sys.exit)
forked(lambda: None, leave=sys.exit, status=7)
next(stream)
omni.close()
print("parent")
""",
        tiny_bundle,
    )
    assert lines == ["2", "parent"]
