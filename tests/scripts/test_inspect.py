"""antiphon inspect."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from antiphon.runtime.bundle.specs import StageEntry, StageInterface, StateSpec
from antiphon.runtime.states.pool import StatePool
from antiphon.scripts.inspect import state_bytes


def test_the_tables_name_stages_voices_ids_and_versions(antiphon, tiny_bundle: Path) -> None:
    code, output, error = antiphon("inspect", tiny_bundle)
    assert (code, error) == (0, "")
    for word in (
        "thinker",
        "talker",
        "predictor",
        "code2wav",
        "audio_encoder",
        "vision_encoder",
        "ethan (default)",
        "codec_eos",
        "onnxruntime 1.",
        "fp32",
    ):
        assert word in output


def test_json_is_the_manifest_with_the_memory_of_a_stream(antiphon, tiny_bundle: Path) -> None:
    described = json.loads(antiphon("inspect", tiny_bundle, "--json")[1])
    manifest = json.loads((tiny_bundle / "manifest.json").read_text(encoding="utf-8"))
    assert described["ids"] == manifest["ids"] and described["hashes_checked"] is False
    assert (
        described["stages"]["thinker"]["state_bytes_per_row"] > 0
        and described["stages"]["code2wav"]["state_bytes"] > 0
    )


def test_hashes_are_checked_when_asked_for(antiphon, tiny_bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_bundle, copy)
    assert "match their SHA-256" in antiphon("inspect", copy, "--hashes")[1]
    weights = copy / "stages" / "thinker" / "weights.bin"
    content = bytearray(weights.read_bytes())
    content[100] ^= 1
    weights.write_bytes(content)
    assert antiphon("inspect", copy)[0] == 0
    code, _, error = antiphon("inspect", copy, "--hashes")
    assert code == 2 and str(weights) in error


def test_the_memory_of_a_stream_is_what_the_runtime_allocates() -> None:
    specs = (
        StateSpec("key.0", "kv", "float32", ("batch", 2, "capacity", 8)),
        StateSpec("left", "conv", "float32", ("batch", 4, 6)),
    )
    fixed, growing = state_bytes(
        StageEntry("thinker", "onnxruntime", "cpu", (), StageInterface((), (), specs))
    )
    states = StatePool(specs).allocate()
    pair = {id(array): array.nbytes for array in (states.past("left"), states.present("left"))}
    assert fixed == sum(pair.values())
    assert growing * states.capacity == states.past("key.0").nbytes


def test_the_second_family_shows_its_manners_and_its_states_by_kind(antiphon, hybrid_bundle: Path) -> None:
    output = antiphon("inspect", hybrid_bundle)[1]
    for line in (
        "voices: chelsie (default), ethan, aiden",
        "languages: english, german, ",
        "styles: news, whisper",
        "interleave: chunked:4,4",
        "talker: interleaved rows, its own text",
    ):
        assert f"\n{line}" in output
    assert re.search(
        r"\nstates of a stream: conv [\d.]+ KiB, recurrent [\d.]+ KiB, "
        r"window [\d.]+ KiB, kv 3.0 KiB per row\n",
        output,
    )
    assert "codec_encoder" in output and "None" not in output
    described = json.loads(antiphon("inspect", hybrid_bundle, "--json")[1])
    assert described["interleave"] == "chunked:4,4" and list(described["speech_prompts"]["styles"]) == [
        "news",
        "whisper",
    ]
    assert (
        described["stages"]["thinker"]["state_bytes"]
        > 0
        < described["stages"]["thinker"]["state_bytes_per_row"]
    )
