"""Tests whether TensorRT-RTX runs engines that were built without a GPU, and builds plugin layers.

    python -m antiphon.scripts.benchmarks.device_tensorrt_rtx prepare FOLDER
        (on a machine without a GPU: builds two engines into FOLDER)
    python -m antiphon.scripts.benchmarks.device_tensorrt_rtx run FOLDER [--output FILE]

FOLDER holds two unpacked wheels: tensorrt-rtx-cu13-bindings for the Python that runs this, and
tensorrt-rtx-cu13-libs. Libraries packed as FILE.xz are unpacked first. Each question runs in its own process,
because TensorRT-RTX may abort it. The answers are one JSON document.
"""

from __future__ import annotations

import argparse
import json
import lzma
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROWS, WIDTH = 16, 64
TIMEOUT = 120
"""Seconds per question."""


def main() -> None:
    """Prepare the engines, ask all questions, or answer one of them (how this file calls itself)."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("action", choices=("prepare", "run", *PREPARATIONS, *QUESTIONS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    sys.path.insert(0, str(arguments.folder.resolve()))
    steps = {**PREPARATIONS, **QUESTIONS}
    if arguments.action in steps:
        print(json.dumps(steps[arguments.action](arguments.folder)))
        return
    unpack(arguments.folder)
    answers = {
        name: ask(name, arguments.folder)
        for name in (PREPARATIONS if arguments.action == "prepare" else QUESTIONS)
    }
    text = json.dumps(answers, indent=1)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n")


def unpack(folder: Path) -> None:
    """Unpack every FILE.xz under `folder` next to it, unless FILE exists."""
    for packed in folder.rglob("*.xz"):
        target = packed.with_suffix("")
        if not target.exists():
            with lzma.open(packed) as source:
                target.write_bytes(source.read())


def ask(question: str, folder: Path) -> dict[str, Any]:
    """The answer of a separate process: `answer`, or its exit code (negative: a signal) and its last
    output."""
    command = [sys.executable, "-m", __spec__.name if __spec__ else __name__, question, str(folder)]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return {"code": None, "words": f"no end after {TIMEOUT} s"}
    if run.returncode:
        return {"code": run.returncode, "words": run.stderr.strip()[-1500:]}
    return {
        "code": 0,
        "answer": json.loads(run.stdout.strip().splitlines()[-1]),
        "words": run.stderr.strip()[-1500:],
    }


def build(folder: Path, capability: str | None) -> dict[str, Any]:
    """Build a float16 matrix product and ReLU into FOLDER, for SM80 or with the builder's default."""
    trt, builder, network = _network()
    x = network.add_input("x", trt.float16, (-1, WIDTH))
    weight = network.add_constant((WIDTH, WIDTH), trt.Weights(_weight()))
    product = network.add_matrix_multiply(
        x, trt.MatrixOperation.NONE, weight.get_output(0), trt.MatrixOperation.NONE
    )
    y = network.add_activation(product.get_output(0), trt.ActivationType.RELU).get_output(0)
    y.name = "y"
    network.mark_output(y)
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    profile.set_shape("x", (1, WIDTH), (ROWS, WIDTH), (4 * ROWS, WIDTH))
    config.add_optimization_profile(profile)
    if capability:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, capability), 0)
    plan = _serialized(builder, network, config)
    _plan(folder, capability).write_bytes(plan)
    return {"built": True, "bytes": len(plan), "version": trt.__version__}


def execute(folder: Path, capability: str | None) -> dict[str, Any]:
    """Load the engine in FOLDER and run it once: whether it loads, and its error against NumPy."""
    from ...runtime.kernels.cuda_device import CudaDevice
    from ...runtime.kernels.device_array import DeviceArray

    trt = _module()
    device = CudaDevice()
    engine = trt.Runtime(trt.Logger(trt.Logger.WARNING)).deserialize_cuda_engine(
        _plan(folder, capability).read_bytes()
    )
    if engine is None:
        return {"device": device.name, "loads": False}
    context = engine.create_execution_context()
    x = np.random.default_rng(1).standard_normal((ROWS, WIDTH)).astype(np.float16)
    given, found = DeviceArray.from_numpy(x, device), DeviceArray.empty(x.shape, "float16", device)
    context.set_input_shape("x", x.shape)
    context.set_tensor_address("x", given.pointer)
    context.set_tensor_address("y", found.pointer)
    ran = bool(context.execute_async_v3(0))
    expected = np.maximum(x.astype(np.float64) @ _weight().astype(np.float64), 0)
    error = float(np.abs(found.to_numpy(device).astype(np.float64) - expected).max() / expected.max())
    return {
        "device": device.name,
        "loads": True,
        "runs": ran,
        "error": error if np.isfinite(error) else None,
        "right": ran and error < 2e-3,
    }


def build_plugin(folder: Path) -> dict[str, Any]:
    """Build a plugin layer (IPluginV3 in Python) by an ONNX node of its name; the API has no other way."""
    from onnx import TensorProto, helper

    trt = _module()

    class Copy(trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            for base in (trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime):
                base.__init__(self)
            self.plugin_name, self.plugin_version, self.plugin_namespace, self.num_outputs = (
                "AntiphonCopy",
                "1",
                "",
                1,
            )

        def get_capability_interface(self, kind: Any) -> Any:
            return self

        def get_output_data_types(self, kinds: Any) -> Any:
            return [kinds[0]]

        def get_output_shapes(self, inputs: Any, shapes: Any, expressions: Any) -> Any:
            return [trt.DimsExprs(inputs[0])]

        def supports_format_combination(self, place: int, tensors: Any, count: int) -> bool:
            return True

        def configure_plugin(self, inputs: Any, outputs: Any) -> None:
            pass

        def on_shape_change(self, inputs: Any, outputs: Any) -> None:
            pass

        def attach_to_context(self, context: Any) -> Any:
            return self

        def get_fields_to_serialize(self) -> Any:
            return trt.PluginFieldCollection([])

        def set_tactic(self, tactic: int) -> None:
            pass

        def enqueue(self, *given: Any) -> int:
            return 0

        def clone(self) -> Any:
            return Copy()

    class Creator(trt.IPluginCreatorV3One):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IPluginCreatorV3One.__init__(self)
            self.name, self.plugin_version, self.plugin_namespace, self.field_names = (
                "AntiphonCopy",
                "1",
                "",
                trt.PluginFieldCollection([]),
            )

        def create_plugin(self, name: str, fields: Any, phase: Any) -> Any:
            print("the parser asks for the plugin", file=sys.stderr, flush=True)
            return Copy()

    creator = Creator()
    registered = bool(trt.get_plugin_registry().register_creator(creator, ""))
    node = helper.make_node("AntiphonCopy", ["x"], ["y"], domain="antiphon")
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 8]) for name in "xy")
    graph = helper.make_graph([node], "one", [x], [y])
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 16), helper.make_opsetid("antiphon", 1)], ir_version=9
    )
    _, builder, network = _network()
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.WARNING))
    if not (registered and parser.parse(model.SerializeToString())):
        return {
            "registered": registered,
            "parsed": False,
            "why": [parser.get_error(place).desc() for place in range(parser.num_errors)],
        }
    print(
        "parsed; building",
        [network.get_layer(place).type.name for place in range(network.num_layers)],
        file=sys.stderr,
        flush=True,
    )
    return {
        "registered": True,
        "parsed": True,
        "built": True,
        "bytes": len(_serialized(builder, network, builder.create_builder_config())),
    }


def _module() -> Any:
    import tensorrt_rtx_bindings

    return tensorrt_rtx_bindings


def _network() -> tuple[Any, Any, Any]:
    trt = _module()
    builder = trt.Builder(trt.Logger(trt.Logger.WARNING))
    return trt, builder, builder.create_network(0)


def _serialized(builder: Any, network: Any, config: Any) -> bytes:
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise SystemExit("TensorRT-RTX built no engine")
    return bytes(plan)


def _weight() -> np.ndarray:
    return (np.random.default_rng(0).standard_normal((WIDTH, WIDTH)) / 8).astype(np.float16)


def _plan(folder: Path, capability: str | None) -> Path:
    """The file of the engine for `capability`, or for the builder's default."""
    return folder / f"{(capability or 'default').lower()}.engine"


def _built_here(capability: str | None) -> Callable[[Path], dict[str, Any]]:
    def question(folder: Path) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as fresh:
            return build(Path(fresh), capability) | execute(Path(fresh), capability)

    return question


QUESTIONS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "run-sm80": lambda folder: execute(folder, "SM80"),
    "run-default": lambda folder: execute(folder, None),
    "build-and-run-default": _built_here(None),
    "build-and-run-sm80": _built_here("SM80"),
    "build-plugin": build_plugin,
}
PREPARATIONS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "build-sm80": lambda folder: build(folder, "SM80"),
    "build-default": lambda folder: build(folder, None),
}


if __name__ == "__main__":
    main()
