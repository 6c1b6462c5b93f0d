"""The worked example of docs/plugins.md, written into a copy of the package and run as it stands."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import antiphon

pytest.importorskip(
    "triton", reason="the worked example is compiled: the extra kernels (triton) is not installed"
)
PAGE = Path(__file__).resolve().parents[1] / "docs" / "plugins.md"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with the page's files put in, the addition to the registry at its end."""
    folder = tmp_path_factory.mktemp("example")
    package = folder / "antiphon"
    here = Path(antiphon.__file__).parent
    names = {path.relative_to(here).parts[0] for path in here.glob("*/*.py")} - {
        "tests",
        "build",
        "dist",
        "demo",
    }
    for name in names:
        shutil.copytree(here / name, package / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in here.glob("*.py"):
        shutil.copy(path, package)
    for name, content in re.findall(
        r"^```py (\S+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S
    ):
        path = package / name if "/" in name else folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(content)
    (package / "plugins" / "snake" / "__init__.py").touch()
    return folder


def run(workplace: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=workplace,
        env=os.environ | {"PYTHONPATH": str(workplace)},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_example_equals_its_reference_in_the_interpreter(workplace: Path) -> None:
    assert len(run(workplace, "check.py").splitlines()) == 9


def test_the_example_compiles_for_every_target(workplace: Path) -> None:
    built = json.loads(
        run(
            workplace,
            "-m",
            "antiphon",
            "plugins",
            "compile",
            "--op",
            "Snake",
            "--library",
            "kernels",
            "--json",
        )
    )["built"]
    assert [one["target"] for one in built] == ["sm80", "sm86", "sm89", "sm90", "sm100", "sm120"]
    assert all(one["images"] == 3 and one["bytes"] > 0 for one in built)
    listed = json.loads(
        run(workplace, "-m", "antiphon", "plugins", "list", "--op", "Snake", "--library", "kernels", "--json")
    )["ops"]
    assert [(one["op"], one["dtypes"], one["stale"]) for one in listed] == [
        ("Snake", ["bfloat16", "float16", "float32"], [])
    ]


def test_the_example_runs_in_onnx_runtime_and_in_torch(workplace: Path) -> None:
    program = """
import numpy, onnx, torch
from antiphon.plugins import onnx_domain
from antiphon.plugins.registry import OPS
from antiphon.plugins.snake.reference import snake
from antiphon.plugins.snake.torch_op import snake as torch_snake
from antiphon.runtime.engines.onnxruntime.library import onnxruntime
x = numpy.random.default_rng(0).uniform(0.5, 2, (2, 3, 5))
alpha, beta = numpy.array([0.5, 1, 2.0]), numpy.array([1, 2, 3.0])
inputs = dict(x=x.astype("f"), alpha=alpha.astype("f"), beta=beta.astype("f"))
onnx_domain.schema(OPS["Snake"])
helper, kind = onnx.helper, onnx.TensorProto.FLOAT
taken = [helper.make_tensor_value_info(name, kind, None) for name in inputs]
given = [helper.make_tensor_value_info("y", kind, None)]
node = helper.make_node("Snake", list(inputs), ["y"], domain="ai.antiphon")
graph = helper.make_graph([node], "snake", taken, given)
opsets = [helper.make_opsetid("", 24), helper.make_opsetid("ai.antiphon", 1)]
functions = [onnx_domain.function("Snake")]
model = helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=10)
found = onnxruntime.InferenceSession(model.SerializeToString()).run(None, inputs)[0]
assert abs(found - snake(x, alpha, beta)).max() < 1e-6
assert abs(torch_snake(*map(torch.from_numpy, inputs.values())).numpy() - snake(x, alpha, beta)).max() < 1e-6
"""
    run(workplace, "-c", program)
