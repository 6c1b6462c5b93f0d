"""Every kind of error is raised where its documentation says,
and nothing is imported to find that an extra is missing.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import antiphon
from antiphon.runtime.bundle import errors
from antiphon.runtime.bundle.errors import (
    EXTRAS,
    AntiphonError,
    BrokenBundle,
    Busy,
    Closed,
    ContextFull,
    InvalidInput,
    MissingExtra,
    UnsupportedTarget,
    as_broken_bundle,
    is_installed,
    require_extra,
)

ROOT = Path(__file__).resolve().parents[3]
KINDS = (InvalidInput, ContextFull, Busy, Closed, BrokenBundle, UnsupportedTarget, MissingExtra)
IMPORT_NAMES = {
    "pyyaml": "yaml",
    "pillow": "PIL",
    "cuda-core": "cuda.core",
    "cuda-bindings": "cuda.bindings",
    "tensorrt-cu13": "tensorrt",
}


def asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_every_kind_is_an_antiphon_error_and_public_and_documented() -> None:
    documented = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    found = {
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, AntiphonError) and kind is not AntiphonError
    }
    assert found == set(KINDS)
    for kind in KINDS:
        assert (
            kind.__base__ is AntiphonError
            and getattr(antiphon, kind.__name__) is kind
            and f"| `{kind.__name__}` |" in documented
        )


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -1},
        {"voice": "nobody"},
        {"style": "softly"},
        {"interleave": "sideways"},
        {"colour": 1},
        {"seed": "x"},
    ],
)
def test_an_option_that_does_not_fit_is_invalid_input(fakes: Any, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        fakes.omni().generate(asked("ab"), **options)


def test_calls_out_of_order_are_invalid_input(fakes: Any) -> None:
    conversation = fakes.omni().conversation()
    for call in (conversation.reply, lambda: conversation.truncate(5), conversation.append):
        with pytest.raises(InvalidInput):
            call()


@pytest.mark.parametrize(
    "content",
    [
        5,
        [{"type": "smell"}],
        [{"type": "input_audio", "input_audio": {"data": "AAAA"}}],
        [{"type": "image_url"}],
    ],
)
def test_messages_and_media_that_are_none_are_invalid_input(tiny_bundle: Path, content: Any) -> None:
    with antiphon.load(tiny_bundle, threads=1) as omni, pytest.raises(InvalidInput):
        omni.generate([{"role": "user", "content": content}])


def test_what_does_not_fit_into_a_context_is_its_own_kind(fakes: Any) -> None:
    fakes.constants["thinker_context"] = 20
    with pytest.raises(ContextFull):
        fakes.omni().generate(asked("a" * 40))
    fakes.constants |= {"thinker_context": 2000, "talker_context": 20}
    with pytest.raises(ContextFull):
        fakes.omni().generate(asked("a" * 40))


def test_text_longer_than_the_context_is_refused_as_that(tiny_bundle: Path) -> None:
    with antiphon.load(tiny_bundle, threads=1) as omni, pytest.raises(ContextFull):
        omni.generate(asked("word " * 100_000))


def test_no_free_place_and_a_reply_in_flight_are_busy(fakes: Any) -> None:
    fakes.engines["talker"].tail = None
    omni = fakes.omni(max_streams=1, admission_seconds=0.05)
    conversation = omni.conversation()
    conversation.append(text="abc")
    with conversation.reply():
        with pytest.raises(Busy, match="All 1 streams were busy"):
            omni.generate(asked("ab"))
        with pytest.raises(Busy, match="in flight"):
            conversation.append(text="de")


def test_after_close_everything_is_closed(fakes: Any) -> None:
    omni = fakes.omni()
    conversation = omni.conversation()
    omni.close()
    for call in (
        lambda: omni.generate(asked("ab")),
        lambda: conversation.append(text="ab"),
        omni.conversation,
    ):
        with pytest.raises(Closed):
            call()


def test_in_a_fork_an_omni_is_closed(fakes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    omni, process = fakes.omni(), os.getpid()
    with monkeypatch.context() as forked:
        forked.setattr(os, "getpid", lambda: process + 1)
        with pytest.raises(Closed, match="fork"):
            omni.generate(asked("ab"))


def test_what_is_no_whole_bundle_is_a_broken_one(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BrokenBundle):
        antiphon.load(tmp_path / "nowhere")
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle", copy_function=os.link))
    for name, content in (
        ("frontend/tokenizer.json", b"{}"),
        ("stages/thinker/engine.onnx", b"no graph"),
        ("manifest.json", b"{"),
        ("manifest.json", b'{"a": 1}'),
    ):
        before = (bundle / name).read_bytes()
        (bundle / name).unlink()
        (bundle / name).write_bytes(content)
        with pytest.raises(BrokenBundle):
            antiphon.load(bundle)
        (bundle / name).write_bytes(before)


def test_an_invalid_argument_of_load_is_not_the_bundles_fault(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidInput):
        antiphon.load(tiny_bundle, max_streams=0)
    monkeypatch.setenv("ANTIPHON_THREADS", "none")
    with pytest.raises(InvalidInput, match="ANTIPHON_THREADS"):
        antiphon.load(tiny_bundle)


def test_only_what_has_no_kind_of_its_own_becomes_the_bundles_fault() -> None:
    for kind, expected in (
        (AntiphonError, BrokenBundle),
        (InvalidInput, BrokenBundle),
        (UnsupportedTarget, UnsupportedTarget),
        (MissingExtra, MissingExtra),
    ):
        with pytest.raises(AntiphonError, match="^said once$") as raised, as_broken_bundle():
            raise kind("said once")
        assert type(raised.value) is expected


def test_a_target_an_engine_or_a_precision_that_is_not_there_is_unsupported(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    from antiphon.export.plan import plan
    from antiphon.runtime.bundle.manifest import read_manifest, write_manifest

    wrong: list[dict[str, Any]] = [{"target": "abacus"}, {"engine": "steam"}, {"precision": "fp3"}]
    for options in wrong:
        with pytest.raises(UnsupportedTarget):
            antiphon.build(tmp_path, tmp_path / "bundle", **options)
    with pytest.raises(UnsupportedTarget):
        plan(tmp_path, "fp3")
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "other", copy_function=os.link))
    manifest = read_manifest(bundle)
    (bundle / "manifest.json").unlink()
    stages = {name: dataclasses.replace(entry, kind="steam") for name, entry in manifest.stages.items()}
    write_manifest(bundle, dataclasses.replace(manifest, stages=stages))
    with pytest.raises(UnsupportedTarget, match="the engine 'steam'"):
        antiphon.load(bundle)
    write_manifest(bundle, dataclasses.replace(manifest, target="sm90"))
    with pytest.raises(UnsupportedTarget, match="built for sm90, not for cpu; build it again"):
        antiphon.load(bundle)


def test_a_missing_extra_is_looked_for_by_its_name() -> None:
    with pytest.raises(
        MissingExtra,
        match=(
            r"^Weighing needs the package no_such_package, which is not installed; run: "
            r'pip install "antiphon\[build\]"$'
        ),
    ):
        require_extra("build", "Weighing", "json", "no_such_package")
    require_extra("build", "Weighing", "json", "xml.dom")
    assert not is_installed("no_such_package.part") and is_installed("json")


def test_a_package_that_is_there_and_fails_to_import_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing_package.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    require_extra("media", "Seeing", "failing_package")
    assert "failing_package" not in sys.modules


@pytest.mark.parametrize("name", ["build", "verify"])
def test_a_function_that_needs_an_extra_names_it(name: str) -> None:
    code = (
        f"import sys; sys.modules['torch'] = None\nimport antiphon\ntry:\n    antiphon.{name}\n"
        "except antiphon.MissingExtra as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == (
        f"antiphon.{name} needs the package torch, which is not installed; run: "
        'pip install "antiphon[build]"\n'
    ), done.stderr


def test_the_packages_of_an_extra_are_those_of_pyproject() -> None:
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    for extra, packages in EXTRAS.items():
        names = [re.split(r"[=<>;! ]", requirement)[0] for requirement in stated[extra]]
        assert {IMPORT_NAMES.get(name, name) for name in names} == set(packages)


def test_a_recording_that_is_no_voice_is_invalid_input(hybrid_bundle: Path) -> None:
    with antiphon.load(hybrid_bundle, threads=1) as omni:
        for samples in (np.zeros(24000, np.float32), np.ones(10, np.float32)):
            with pytest.raises(InvalidInput):
                omni.voice(samples, 24000)
