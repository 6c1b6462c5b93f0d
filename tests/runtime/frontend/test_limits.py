"""Absurd input is refused in one sentence within a second, within 100 MiB, silently,
and no other file is opened. Measured in a process of its own.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.frontend.media.media_policy import MediaPolicy
from antiphon.runtime.frontend.prompt.front_end import FrontEnd

from . import absurd_media as absurd

CHILD = """
import json, sys, time
from pathlib import Path
from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.frontend.prompt.front_end import FrontEnd
import PIL.Image, PIL.ImageOps, av

def peak():  # of this program alone, in KiB; ru_maxrss would begin with that of the process that started it
    status = Path("/proc/self/status")
    return int(status.read_text().partition("VmHWM:")[2].split()[0]) if status.exists() else 0

front_end = FrontEnd(sys.argv[1], context=262144)
opened = []
front_end.prompt([{"role": "user", "content": "Hello"}])
sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == "open" else None)
before = peak()
found = {}
for path in sorted(Path(sys.argv[2]).iterdir()):
    kind = path.name.partition("-")[0]
    opened.clear()
    part = {"type": kind, kind: str(path)}
    try:
        began = time.perf_counter()
        front_end.prompt([{"role": "user", "content": [part]}])
        sentence = "accepted"
    except AntiphonError as error:
        sentence = str(error)
    found[path.name] = sentence, time.perf_counter() - began, sorted(set(opened) - {str(path)})
    del part
words = {"text": "a" * 15_000_000, "words": "The quick brown fox. " * 700_000}
words["parts"] = [{"type": "text", "text": "a"}] * 20_000
tiny = Path(sys.argv[3]).read_bytes()
words["images"] = [{"type": "image", "image": tiny}] * 9_000
before_text = peak()
for name, content in words.items():
    try:
        began = time.perf_counter()
        front_end.prompt([{"role": "user", "content": content}])
        sentence = "accepted"
    except AntiphonError as error:
        sentence = str(error)
    found[name] = sentence, time.perf_counter() - began, []
print(json.dumps([found, before_text - before, peak() - before_text]))
"""

EXPECTED = {
    "audio-4GHz.wav": "sample rate of 4,000,000,000 Hz",
    "audio-1Hz.wav": "sample rate of 1 Hz",
    "audio-channels.wav": "has 1000 channels",
    "audio-hours.wav": r"is 54,000.0 s long, expected at most",
    "audio-list.mp3": "cannot be read as audio: it is a play list; give WAV",
    "audio-concat.mp3": "it is a list of files to be joined",
    "audio-session.wav": "it is a session description",
    "audio-picture.wav": "cannot be read as audio: it is PNG",
    "image-page.png": "it is a page description; give PNG",
    "image-drawing.png": "it is a document of XML or HTML",
    "image-huge.png": "60000 x 60000 pixels, expected at most",
    "image-huge.jpeg": "65500 x 65500 pixels",
    "image-huge.gif": "65535 x 65535 pixels",
    "image-huge.bmp": "100000 x 100000 pixels",
    "image-huge.webp": "16383 x 16383 pixels",
    "image-frames.webp": "animation of more than 10,000 frames",
    "image-huge.tiff": "100000 x 100000 pixels",
    "image-tile.tiff": "A tile of the image is 65536 x 65536 pixels",
    "image-short.tiff": "header is broken",
    "video-list.mp4": "it is a play list",
    "video-samples.mp4": "claims 2,000,000,000 samples in",
    "video-elsewhere.mp4": "refers to media in another file",
    "text": "too many tokens, the model's context holds",
    "words": "too many tokens, the model's context holds",
    "parts": "20,000 content parts, expected at most 10,000",
    "images": "The media need .* tokens or more",
}


@pytest.fixture(scope="module")
def refusals(frontend_folder: Path, front_end: FrontEnd, tmp_path_factory: pytest.TempPathFactory) -> list:
    pil = pytest.importorskip("PIL.Image")
    pytest.importorskip("av")
    folder, tiny = tmp_path_factory.mktemp("absurd"), tmp_path_factory.mktemp("tiny") / "a.png"
    pil.new("RGB", (512, 512)).save(tiny)
    absurd.sparse_wav(folder / "audio-hours.wav", 15 * 3600)
    for name, content in {
        "audio-4GHz.wav": absurd.wav(4_000_000_000),
        "audio-1Hz.wav": absurd.wav(1),
        "audio-channels.wav": absurd.wav(16000, 1000, 4),
        "audio-list.mp3": b"#EXTM3U\nelsewhere\n",
        "audio-concat.mp3": b"ffconcat version 1.0\n",
        "audio-session.wav": b"v=0\r\ns=nothing\r\n",
        "audio-picture.wav": absurd.png(1, 1),
        "image-page.png": b"%!PS-Adobe-3.0\n",
        "image-drawing.png": b"<svg/>",
        "image-huge.png": absurd.png(60000, 60000),
        "image-huge.jpeg": absurd.jpeg(65500, 65500),
        "image-huge.gif": absurd.gif(65535, 65535),
        "image-huge.bmp": absurd.bmp(100_000, 100_000),
        "image-huge.webp": absurd.webp(16383, 16383),
        "image-frames.webp": absurd.webp(16, 16, 1_000_000),
        "image-huge.tiff": absurd.tiff(100_000, 100_000),
        "image-tile.tiff": absurd.tiff(16, 16, 65536),
        "image-short.tiff": absurd.tiff(16, 16)[:12],
        "video-list.mp4": b"\xef\xbb\xbf\n#extm3u\n",
        "video-samples.mp4": absurd.mp4_of_samples(2_000_000_000),
        "video-elsewhere.mp4": absurd.mp4_of_another_file(),
    }.items():
        (folder / name).write_bytes(content)
    command = [sys.executable, "-c", CHILD, str(frontend_folder), str(folder), str(tiny)]
    child = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert (child.returncode, child.stderr) == (0, ""), child.stderr[-2000:]
    return json.loads(child.stdout)


@pytest.mark.parametrize("name", EXPECTED)
def test_absurd_input_is_refused_in_a_sentence_at_once(refusals: list, name: str) -> None:
    sentence, seconds, others = refusals[0][name]
    assert re.search(EXPECTED[name], sentence), sentence
    assert sentence.endswith(".") and "\n" not in sentence and seconds < 1 and others == []


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_refusing_takes_little_memory(refusals: list) -> None:
    # KiB: media; texts, parts and pictures of the messages
    assert refusals[1] < 100 * 1024 and refusals[2] < 100 * 1024


def test_what_the_context_cannot_hold_is_refused_before_anything_is_decoded(
    frontend_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = FrontEnd(frontend_folder, context=100)
    for name in ("read_audio", "read_image", "AudioStream"):
        monkeypatch.setattr(
            f"antiphon.runtime.frontend.prompt.media_loading.{name}", lambda *_, **__: pytest.fail("decoded")
        )
    minute, photograph = np.zeros(16000 * 60, np.float32), np.zeros((2000, 2000, 3), np.uint8)
    for part, sentence in [
        ({"type": "audio", "audio": minute}, "The audio is 60.0 s long, expected at most"),
        (
            {"type": "image", "image": photograph},
            "The media need .* tokens or more, the model's context holds 100",
        ),
        ({"type": "text", "text": "word " * 1000}, "The text has 5,000 bytes and too many tokens"),
    ]:
        for call in (small.prompt, small.continuation, small.open_turn):
            with pytest.raises(AntiphonError, match=sentence):
                call([{"role": "user", "content": [part]}])
    for call in (lambda: small.close_turn(1, "word " * 1000), lambda: small.encode_text("word " * 1000)):
        with pytest.raises(AntiphonError, match="too many tokens, the model's context holds"):
            call()
    with pytest.raises(AntiphonError, match="sample rate of 1 Hz"):
        small.live_audio(1)


def test_a_server_opens_no_local_file_for_any_part(frontend_folder: Path, tmp_path: Path) -> None:
    served, path = FrontEnd(frontend_folder, MediaPolicy.for_server()), tmp_path / "a.wav"
    path.write_bytes(absurd.wav(16000))
    assert (
        len(
            served.prompt(
                [{"role": "user", "content": [{"type": "audio", "audio": path.read_bytes()}]}]
            ).calls
        )
        == 1
    )
    for kind in ("audio", "image", "video", "input_audio", "image_url", "video_url"):
        for source in (str(path), path, f"file://{path}"):
            part = {
                "type": kind,
                kind: {"data" if kind == "input_audio" else "url": source} if "_" in kind else source,
            }
            with pytest.raises(AntiphonError, match="encode its content as base64 or give a data URL"):
                served.prompt([{"role": "user", "content": [part]}])
