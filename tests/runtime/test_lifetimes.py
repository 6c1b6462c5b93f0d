"""Who may close what, when and how often; and what happens to who still holds something of it."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.events import Done
from antiphon.runtime.scheduling import threads

from .child import run_child

QUESTION = [{"role": "user", "content": "hello"}]


@pytest.fixture
def omni(fakes):
    fakes.engines["talker"].tail = None
    return fakes.omni(max_streams=2)


@pytest.mark.parametrize("refused", [0, 1, 2])
def test_a_thread_that_cannot_start_is_one_sentence_and_leaves_nothing_behind(omni, monkeypatch, refused):
    started: list[threading.Thread] = []
    start = threading.Thread.start

    def limited(self):
        if len(started) == refused:
            raise RuntimeError("can't start new thread")
        started.append(self)
        start(self)

    conversation = omni.conversation()
    conversation.append(text="abc")
    with monkeypatch.context() as patched:
        patched.setattr(threads.threading.Thread, "start", limited)
        for ask in (conversation.reply, lambda: omni.stream(QUESTION), lambda: omni.generate(QUESTION)):
            started.clear()
            with pytest.raises(AntiphonError, match="no further thread, which a reply needs"):
                ask()
            assert not any(thread.is_alive() for thread in started)
    # both places are free, and the turn is still to be answered
    both = [omni.stream(QUESTION, max_frames=2), conversation.reply(max_frames=2)]
    assert [list(stream)[-1].text for stream in both] == ["hello", "abc"]


def test_a_reply_closed_from_another_thread_ends_the_loop_that_reads_it(omni, fakes):
    fakes.engines["talker"].pause = lambda: 0.01
    stream = omni.stream(QUESTION, max_frames=100_000)
    threading.Timer(0.05, stream.close).start()
    assert not any(isinstance(event, Done) for event in stream)


def test_closing_twice_at_once_returns_twice(omni):
    streams = [omni.stream(QUESTION, max_frames=100_000) for _ in range(2)]
    closers = [threading.Thread(target=omni.close, daemon=True) for _ in range(2)]
    for thread in closers:
        thread.start()
    for thread in closers:
        thread.join(10)
    assert not any(thread.is_alive() for thread in closers)
    assert [list(stream) for stream in streams] == [[], []]
    omni.close()


def test_closing_while_replies_begin_and_end_stops_them_all(fakes):
    fakes.engines["talker"].tail = None
    for attempt in range(20):
        omni = fakes.omni(max_streams=4)
        kept, sentences = [], []

        def ask(omni=omni, kept=kept, sentences=sentences) -> None:
            try:
                while True:
                    kept.append(omni.stream(QUESTION, max_frames=1 + len(kept)))
                    kept[-1].close() if len(kept) % 2 else None
            except AntiphonError as error:
                sentences.append(str(error))

        askers = [threading.Thread(target=ask, daemon=True) for _ in range(3)]
        for thread in askers:
            thread.start()
        time.sleep(0.002 * attempt)
        omni.close()
        for thread in askers:
            thread.join(10)
        assert len(sentences) == 3 and all("closed" in sentence for sentence in sentences)


def test_a_closed_omni_refuses_every_use_in_one_sentence(omni):
    conversation = omni.conversation()
    conversation.append(text="abc")
    omni.close()
    uses = [
        omni.conversation,
        omni.voice,
        conversation.reply,
        lambda: omni.stream(QUESTION),
        lambda: omni.generate(QUESTION),
        lambda: conversation.append(text="de"),
        lambda: conversation.truncate(0),
    ]
    for use in uses:
        with pytest.raises(AntiphonError, match="This Omni is closed; load the bundle again."):
            use()


def test_a_reply_held_after_its_omni_was_closed_has_no_more_events(omni, fakes):
    fakes.engines["talker"].tail = 3
    streams = [omni.stream(QUESTION, max_frames=100_000), omni.stream(QUESTION, packet_schedule=(1,))]
    time.sleep(0.1)  # the second one is complete and unread
    omni.close()
    assert [list(stream) for stream in streams] == [[], []]
    streams[0].close()


def test_a_complete_reply_that_nobody_reads_ends_with_its_omni(fakes, no_leaked_threads):
    omni = fakes.omni()
    stream = omni.stream([{"role": "user", "content": "a" * 100}], max_frames=100, packet_schedule=(1,))
    time.sleep(0.3)
    omni.close()
    assert list(stream) == []


def test_a_conversation_goes_on_at_once_after_a_reply_that_was_left(omni):
    conversation = omni.conversation()
    for text in ("abc", "de", "fgh"):
        conversation.append(text=text)
        for _ in conversation.reply(max_frames=100_000):
            break


def test_an_append_that_the_close_of_the_omni_cut_is_not_in_the_history(fakes):
    fakes.engines["thinker"].pause = lambda: 0.05
    omni = fakes.omni(prefill_chunk=4)
    conversation = omni.conversation()
    raised: list[BaseException] = []

    def append() -> None:
        try:
            conversation.append(text="a" * 200)
        except AntiphonError as error:
            raised.append(error)

    thread = threading.Thread(target=append)
    thread.start()
    time.sleep(0.1)
    omni.close()
    thread.join(10)
    assert len(raised) == 1 and conversation.token_ids == () and conversation.context.waiting_tokens == 0


def test_a_conversation_dropped_in_the_midst_of_an_append_harms_nobody(fakes):
    fakes.engines["thinker"].pause = lambda: 0.01
    omni = fakes.omni(prefill_chunk=4)
    thread = threading.Thread(target=omni.conversation().append, kwargs={"text": "a" * 40})
    thread.start()
    assert omni.generate(QUESTION, max_frames=2).text == "hello"
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="Linux counts memory, threads and files of a process"
)
def test_loading_and_unloading_again_and_again_keeps_nothing(tiny_bundle):
    """200 loads grow no more than these: what is kept would show with the first ones.

    In a process of its own, whose memory nobody else uses.
    """
    lines = run_child(
        """
        from pathlib import Path

        def once():
            with antiphon.load(sys.argv[1], threads=1) as omni:
                omni.generate(QUESTION, max_text_tokens=2, max_frames=2)
            del omni
            memory = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            return memory, len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))

        for _ in range(4):
            once()
        memory, files, tasks = zip(*(once() for _ in range(12)))
        print(max(memory[-4:]) - max(memory[:4]), files[-1] - files[0], tasks[-1] - tasks[0])
        """,
        tiny_bundle,
        seconds=200,
    )
    memory, files, tasks = map(int, lines[0].split())
    assert memory < 4 * 2**20, "the engines of one load take 20 MiB"
    assert files <= 0 and tasks <= 0
