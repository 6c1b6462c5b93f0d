"""What decides a portable graph and an engine: an edit elsewhere rebuilds nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("torch")

from antiphon.export import sources, stage_keys
from antiphon.export.engines.registry import find_builder
from antiphon.export.sources import ROOT, imported_sources
from antiphon.export.stage_keys import StageFacts, engine_parts, portable_parts, stage_facts
from antiphon.graphs.checkpoints.read_config import read_config
from antiphon.graphs.families.registry import stages
from antiphon.runtime.bundle.specs import Precision


@pytest.fixture(scope="module")
def facts(hybrid_checkpoint: Path) -> dict[str, StageFacts]:
    """The stages of a checkpoint of Qwen3.5-Omni, which uses every op that ONNX Runtime lowers."""
    return {stage.name: stage_facts(stage) for stage in stages(read_config(hybrid_checkpoint))}


def parts(facts: dict[str, StageFacts]) -> dict[str, tuple[dict[str, str], dict[str, str]]]:
    builder = find_builder("onnxruntime")
    found = {}
    for name, fact in facts.items():
        graph = portable_parts(fact)
        found[name] = graph, engine_parts(fact, graph, "w", builder, "onnxruntime", "cpu", Precision())
    return found


@contextmanager
def edited(place: str) -> Iterator[None]:
    """As if the file at `place` had been another when the code was loaded."""
    file = ROOT / place
    assert file.is_file()
    before = sources._DIGESTS.get(file)
    sources._DIGESTS[file] = "edited"
    try:
        yield
    finally:
        sources._DIGESTS.pop(file) if before is None else sources._DIGESTS.update({file: before})


def changed_by(facts: dict[str, StageFacts], place: str) -> tuple[set[str], set[str]]:
    """Stages whose portable graph, and whose engine, an edit of `place` makes anew."""
    before = parts(facts)
    with edited(place):
        after = parts(facts)
    graphs = {name for name in facts if before[name][0] != after[name][0]}
    return graphs, {name for name in facts if before[name][1] != after[name][1]}


def users(facts: dict[str, StageFacts], op: str) -> set[str]:
    return {name for name, fact in facts.items() if any(form.op == op for form in fact.forms)}


@pytest.mark.parametrize(
    ("folder", "op"),
    [
        ("moe", "MoE"),
        ("gated_delta_rule", "GatedDeltaRule"),
        ("attention", "Attention"),
        ("sample_token", "SampleToken"),
    ],
)
def test_an_edit_of_a_lowering_rebuilds_the_engines_with_that_op_and_exports_nothing(
    facts, folder: str, op: str
) -> None:
    assert changed_by(facts, f"plugins/{folder}/lower_onnxruntime.py") == (set(), users(facts, op))


def test_an_edit_of_an_op_exports_the_stages_that_use_it(facts) -> None:
    assert changed_by(facts, "plugins/moe/torch_op.py") == (users(facts, "MoE"), users(facts, "MoE"))
    assert changed_by(facts, "plugins/causal_conv_state/function.py")[0] == users(facts, "CausalConvState")


@pytest.mark.parametrize(
    "place",
    [
        "scripts/build.py",
        "scripts/benchmarks/bound.py",
        "runtime/reply.py",
        "runtime/bundle/said.py",
        "plugins/tools/compile.py",
        "plugins/moe/kernels.py",
        "plugins/aria_step/torch_op.py",
        "plugins/tensorrt_plugins.py",
        "export/manifest.py",
        "export/build.py",
        "graphs/random/writer.py",
        "export/verify/verify.py",
        "runtime/engines/onnxruntime/engine.py",
    ],
)
def test_an_edit_elsewhere_rebuilds_nothing(facts, place: str) -> None:
    assert changed_by(facts, place) == (set(), set())


def test_an_edit_of_how_weights_are_read_exports_nothing_and_rebuilds_every_engine(facts) -> None:
    for name in ("checkpoint", "torch_archive", "safetensors_folder"):
        assert changed_by(facts, f"graphs/checkpoints/{name}.py") == (set(), set(facts))


def test_the_version_of_the_domain_decides_every_graph(facts, monkeypatch: pytest.MonkeyPatch) -> None:
    before = parts(facts)
    monkeypatch.setattr(stage_keys, "DOMAIN_VERSION", 2)
    assert all(before[name][0] != after[0] for name, after in parts(facts).items())


def test_modules_from_outside_count_and_a_name_without_a_file_is_a_mistake(tmp_path: Path) -> None:
    assert [file.name for file in imported_sources(["json.decoder"])] == ["decoder.py"]
    with pytest.raises(AssertionError, match="names no source file"):
        imported_sources(["antiphon.export.nothing"])


def test_an_edit_of_a_stage_or_of_a_kind_rebuilds_what_they_make(facts) -> None:
    assert changed_by(facts, "graphs/stages/code2wav/module.py")[0] == {"code2wav"}
    assert changed_by(facts, "graphs/stages/predictor.py")[0] == {"predictor"}
    assert changed_by(facts, "export/portable.py")[0] == set(facts)
    assert changed_by(facts, "export/engines/onnxruntime/passes/unroll_loop.py") == (set(), set(facts))


def test_a_stage_is_described_by_its_configuration(facts, tiny_checkpoint: Path) -> None:
    import dataclasses

    predictor = facts["predictor"]
    other = dataclasses.replace(predictor, stage=dataclasses.replace(predictor.stage, configuration="other"))
    before, after = portable_parts(predictor), portable_parts(other)
    assert {name for name in before if before[name] != after[name]} == {"configuration"}


def test_sources_are_followed_through_imports_inside_functions_and_packages() -> None:
    found = {
        file.relative_to(ROOT).as_posix()
        for file in imported_sources(["antiphon.export.engines.registry"], stop=["antiphon.graphs"])
    }
    assert {
        "export/engines/registry.py",
        "export/engines/base.py",
        "plugins/op_form.py",
        "runtime/bundle/specs.py",
    } <= found
    assert not any(name.startswith("graphs/") for name in found)
