"""The record of what a Talker is fed: it decides alone, and what disagrees with it is a broken bundle."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.bundle.files import hash_folder
from antiphon.runtime.bundle.manifest import Manifest, read_manifest, write_manifest
from antiphon.runtime.bundle.talker_contract import PROMPTS
from antiphon.runtime.check_manifest import check_manifest
from antiphon.runtime.omni import Omni, load
from antiphon.runtime.stages.voices import read_voice_table

QUESTION = [{"role": "user", "content": "Hello?"}]
SHORT = {"greedy": True, "max_text_tokens": 4, "max_frames": 6}


def contract(manifest: Manifest, **changes: Any) -> Manifest:
    assert manifest.talker is not None
    return dataclasses.replace(manifest, talker=dataclasses.replace(manifest.talker, **changes))


def rewritten(bundle: Path, folder: Path, manifest: Manifest, without: str = "") -> Path:
    """A copy of `bundle`, of links, whole but for the file `without`."""
    shutil.copytree(bundle, folder, copy_function=os.link)
    for name in filter(None, (without, "manifest.json")):
        (folder / name).unlink()
    write_manifest(
        folder,
        dataclasses.replace(
            manifest,
            hashes={name: entry for name, entry in hash_folder(folder).items() if name != "manifest.json"},
        ),
    )
    return folder


@pytest.fixture(scope="module")
def dual_track_bundle(hybrid_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Talker that embeds text itself and was trained for the dual track."""
    manifest = dataclasses.replace(
        contract(read_manifest(hybrid_bundle), layout="summed"), interleave="dual_track"
    )
    return rewritten(hybrid_bundle, tmp_path_factory.mktemp("dual") / "bundle", manifest)


@pytest.fixture(scope="module")
def dual_track(dual_track_bundle: Path) -> Iterator[Omni]:
    with load(dual_track_bundle, threads=1) as omni:
        yield omni


@pytest.mark.parametrize("style", ["whisper", "Slowly, with a smile."])
def test_a_style_is_taken_on_the_dual_track_where_the_prompt_has_a_place_for_it(
    dual_track: Omni, style: str
) -> None:
    plain, styled = (
        dual_track.generate(QUESTION, **SHORT),
        dual_track.generate(QUESTION, style=style, **SHORT),
    )
    assert styled.token_ids == plain.token_ids and not np.array_equal(styled.codes, plain.codes)


def test_a_language_and_a_voice_are_taken_on_the_dual_track(dual_track: Omni) -> None:
    plain = dual_track.generate(QUESTION, **SHORT).codes
    assert not np.array_equal(dual_track.generate(QUESTION, language="german", **SHORT).codes, plain)
    assert not np.array_equal(dual_track.generate(QUESTION, voice="aiden", **SHORT).codes, plain)


def test_the_dual_track_is_not_interleaved(dual_track: Omni) -> None:
    with pytest.raises(AntiphonError, match="cannot follow the interleave 'chunked:4,4'; use dual_track"):
        dual_track.generate(QUESTION, interleave="chunked:4,4", **SHORT)


def test_a_style_is_refused_where_the_contract_takes_none(tiny_bundle: Path) -> None:
    with load(tiny_bundle, threads=1) as omni:
        for options, message in (
            ({"style": "whisper"}, "takes no style"),
            ({"language": "german"}, "takes no language"),
        ):
            with pytest.raises(AntiphonError, match=message):
                omni.generate(QUESTION, **SHORT, **options)
        # nothing is spoken
        assert omni.generate(QUESTION, modalities=("text",), style="whisper", **SHORT).text


def test_a_bundle_that_lacks_its_table_of_voices_is_broken_and_no_voice_is_blamed(
    hybrid_bundle: Path, tmp_path: Path
) -> None:
    broken = rewritten(
        hybrid_bundle, tmp_path / "bundle", read_manifest(hybrid_bundle), without="frontend/voices.npy"
    )
    with pytest.raises(
        AntiphonError, match=r"^The bundle lacks frontend/voices.npy.*build the bundle again\.$"
    ):
        load(broken, threads=1)


def test_a_bundle_of_this_schema_without_a_contract_is_refused(
    hybrid_bundle: Path, tiny_bundle: Path
) -> None:
    for bundle in (tiny_bundle, hybrid_bundle):
        manifest = read_manifest(bundle)
        with pytest.raises(AntiphonError, match="has no talker, what its Talker is fed; build it again"):
            check_manifest(dataclasses.replace(manifest, talker=None))
        speechless = {
            name: entry
            for name, entry in manifest.stages.items()
            if name not in ("talker", "predictor", "code2wav")
        }
        with pytest.raises(AntiphonError, match="has a talker, but no stages of speech; build it again"):
            check_manifest(dataclasses.replace(manifest, stages=speechless))


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        (
            "tiny_bundle",
            {"voice": "frames"},
            "talker.frame_input is 'frame_rows', expected frame_codes, "
            "as a Talker is fed whose voices are of the kind frames",
        ),
        ("tiny_bundle", {"layout": "interleaved"}, "talker.layout is 'interleaved', expected summed"),
        (
            "tiny_bundle",
            {"frame_input": "frame_codes"},
            "talker.frame_input is 'frame_codes', expected frame_rows",
        ),
        ("tiny_bundle", {"hidden_taps": "content"}, "talker.hidden_taps is 'content', expected media"),
        ("tiny_bundle", {"hidden_rows": 4}, "talker.hidden_rows is 4, expected 0"),
        ("tiny_bundle", {"takes_style": True}, "talker.takes_style is True, expected False"),
        (
            "tiny_bundle",
            {"embeds_text": True},
            "talker.embeds_text is True, expected what the constant text_vocab_size of the stage says",
        ),
        ("hybrid_bundle", {"voice": "codec_id"}, "talker.layout is 'interleaved', expected summed"),
        (
            "hybrid_bundle",
            {"layout": "summed"},
            "interleave is 'chunked:4,4', expected dual_track, which this Talker can follow",
        ),
        (
            "hybrid_bundle",
            {"frame_input": "frame_rows"},
            "talker.frame_input is 'frame_rows', expected frame_codes",
        ),
        ("hybrid_bundle", {"hidden_taps": "media"}, "talker.hidden_taps is 'media', expected content"),
        ("hybrid_bundle", {"hidden_rows": -1}, "talker.hidden_rows is -1, expected an integer of at least 0"),
        (
            "hybrid_bundle",
            {"takes_style": False},
            "talker.takes_style is False, expected true where speech_prompts has styles",
        ),
        (
            "hybrid_bundle",
            {"takes_language": False},
            "talker.takes_language is False, expected true where speech_prompts has languages",
        ),
        ("hybrid_bundle", {"embeds_text": False}, "talker.embeds_text is False"),
    ],
)
def test_a_contract_that_the_stages_contradict_is_refused(
    family: str, changes: dict[str, Any], message: str, request: pytest.FixtureRequest
) -> None:
    bundle = request.getfixturevalue(family)
    with pytest.raises(AntiphonError, match="build it again") as raised:
        check_manifest(contract(read_manifest(bundle), **changes), read_voice_table(bundle / "frontend"))
    assert message in str(raised.value)


def test_the_stage_must_have_the_input_that_the_contract_names(tiny_bundle: Path) -> None:
    manifest = read_manifest(tiny_bundle)
    talker = manifest.stages["talker"]
    renamed = tuple(
        dataclasses.replace(spec, name="frame_codes", dtype="int64", shape=("frames", 16))
        if spec.name == "frame_rows"
        else spec
        for spec in talker.inputs
    )
    changed = dataclasses.replace(
        manifest,
        stages=manifest.stages
        | {
            "talker": dataclasses.replace(
                talker, interface=dataclasses.replace(talker.interface, inputs=renamed)
            )
        },
    )
    with pytest.raises(
        AntiphonError,
        match="talker.frame_input is 'frame_rows', expected frame_codes, the stage's input for frames",
    ):
        check_manifest(changed)


def test_the_manifest_holds_every_field_by_its_name(hybrid_bundle: Path) -> None:
    stored = json.loads((hybrid_bundle / "manifest.json").read_text(encoding="utf-8"))["talker"]
    assert list(stored) == [
        "layout",
        "embeds_text",
        "frame_input",
        "hidden_taps",
        "hidden_rows",
        "takes_style",
        "takes_language",
        "voice",
    ]
    assert all(set(others) <= set(stored) for others in PROMPTS.values())
