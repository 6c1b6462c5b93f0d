"""The launcher, from a call to arguments and grids, on a device whose memory is the host's and whose launches
the Triton interpreter runs.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("triton")

from antiphon.plugins.causal_conv_state.reference import causal_conv_state
from antiphon.plugins.tools.programs import programs
from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.kernels.contract import Launch, Operand, Program, Scalar
from antiphon.runtime.kernels.device_array import DeviceArray
from antiphon.runtime.kernels.driver import Launcher, fits, stream_handle, target_for
from antiphon.runtime.kernels.library import KernelLibrary

from .host_device import HostDevice, write_library

OP = "CausalConvState"
BATCH, TOKENS, CHANNELS = 2, 3, 32
PROGRAM = Program(
    op="Sum",
    name="two-launches",
    inputs=(Operand("x", "float32", ("*rows", "width")),),
    outputs=(Operand("y", "float32", ("rows",)), Operand("present", "float32", ("rows", "width"), alias="x")),
    launches=(
        Launch("sum.first", ("x",), (Scalar("width", "width"),), ("partial",), ("rows", "1", "1")),
        Launch(
            "sum.second",
            ("partial",),
            (Scalar("offset", "offset", dtype="int64"),),
            ("y",),
            ("ceil_div(rows, 4)", "1", "1"),
        ),
    ),
    attributes=("offset",),
    scratch=(Operand("partial", "float32", ("rows", "8")),),
)


class SilentDevice(HostDevice):
    """A HostDevice without memory, whose launches do nothing: for contracts that name no real kernel."""

    def allocate(self, size: int, stream: int) -> tuple[int, object]:
        self.allocated.append(size)
        return 4096 * len(self.allocated), None

    def launch(
        self, kernel: str, image: Any, grid: tuple[int, int, int], arguments: list[int], stream: int
    ) -> None:
        self.launched.append((kernel, grid, arguments, stream))


@pytest.fixture
def launcher(tmp_path: Path) -> Launcher:
    known = programs("sm80", [OP])
    return Launcher.open(write_library(tmp_path / "kernels", "sm80", known), HostDevice(known))


@pytest.fixture
def silent(tmp_path: Path) -> Launcher:
    return Launcher.open(write_library(tmp_path / "kernels", "sm80", [PROGRAM]), SilentDevice([PROGRAM]))


def call(dtype: str = "float32", tokens: int = TOKENS) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    shapes = {"x": (BATCH, tokens, CHANNELS), "weight": (CHANNELS, 1, 4), "past": (BATCH, 3, CHANNELS)}
    values = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    if dtype == "bfloat16":  # to numbers that bfloat16 has
        values = {
            name: (value.view(np.uint32) & 0xFFFF0000).view(np.float32) for name, value in values.items()
        }
    return values | {"query_length": np.array([tokens, max(tokens - 2, 0)])}


def placed(
    launcher: Launcher, values: dict[str, np.ndarray], dtype: str = "float32"
) -> dict[str, DeviceArray]:
    return {
        name: launcher.array(value, None if name == "query_length" else dtype)
        for name, value in values.items()
    }


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 2e-3), ("bfloat16", 8e-3)])
@pytest.mark.parametrize("tokens", [1, 3])
def test_an_op_runs_from_its_contract_as_the_reference_says(
    launcher: Launcher, dtype: str, tolerance: float, tokens: int
) -> None:
    values = call(dtype, tokens)
    if dtype == "float16":
        values = {
            name: value.astype(np.float16).astype(np.float32) if name != "query_length" else value
            for name, value in values.items()
        }
    outputs = launcher.run(OP, placed(launcher, values, dtype), {})
    expected = causal_conv_state(
        *(np.asarray(values[name], np.int64 if name == "query_length" else np.float64) for name in values)
    )
    for found, wanted in zip(
        (launcher.numpy(outputs["y"]), launcher.numpy(outputs["present"])), expected, strict=True
    ):
        assert np.abs(found.astype(np.float64) - wanted).max() <= tolerance * np.abs(wanted).max()


def test_the_driver_is_given_addresses_and_integers_of_the_contracts_width(launcher: Launcher) -> None:
    inputs = placed(launcher, call())
    outputs = launcher.run(OP, inputs, {}, stream=7)
    [(key, grid, arguments, stream)] = launcher.device.launched  # type: ignore[attr-defined]
    names = ("x", "weight", "past", "query_length")
    assert arguments == [
        *(inputs[name].pointer for name in names),
        TOKENS,
        CHANNELS,
        outputs["y"].pointer,
        outputs["present"].pointer,
    ]
    assert [type(value) for value in arguments] == [int] * 4 + [np.int32] * 2 + [int] * 2
    assert (key.split("-")[0], grid, stream) == ("causal_conv_state.causal_conv", (1, 1, BATCH), 7)


def test_given_outputs_are_written_and_nothing_is_allocated(launcher: Launcher) -> None:
    inputs = placed(launcher, call())
    first = launcher.run(OP, inputs, {})
    device: Any = launcher.device
    before = len(device.allocated)
    given = {"y": first["y"], "present": first["present"]}
    assert launcher.run(OP, inputs, {}, given) == given
    assert len(device.allocated) == before


def test_an_image_is_loaded_once(launcher: Launcher) -> None:
    inputs = placed(launcher, call())
    for _ in range(3):
        launcher.run(OP, inputs, {})
    assert len(launcher.device.loaded) == 1  # type: ignore[attr-defined]


def test_scratch_is_kept_per_stream_and_grows(silent: Launcher) -> None:
    device: Any = silent.device
    few, more = (DeviceArray.empty((rows, 8), "float32", device) for rows in (3, 4))
    y = {rows: DeviceArray.empty((rows,), "float32", device) for rows in (3, 4)}
    partial = []
    for x, stream in ((few, 0), (few, 0), (more, 0), (few, 0), (few, 5)):
        silent.run("Sum", {"x": x}, {"offset": 2**40}, {"y": y[x.shape[0]], "present": x}, stream)
        partial.append(device.launched[-1][2][0])
    assert partial[0] == partial[1] and partial[2] == partial[3] and len(set(partial)) == 3
    # doubled, so that what is outgrown stays less than what is in use
    assert device.allocated[-3:] == [3 * 8 * 4, 2 * 3 * 8 * 4, 3 * 8 * 4]
    assert device.launched[-1][1:] == ((1, 1, 1), [partial[-1], 2**40, y[3].pointer], 5)


def test_scratch_of_ever_other_shapes_stays_below_twice_the_largest(silent: Launcher) -> None:
    device: Any = silent.device
    before, rows = 0, 64
    for count in range(1, rows + 1):
        x, y = (
            DeviceArray.empty((count, 8), "float32", device),
            DeviceArray.empty((count,), "float32", device),
        )
        known = len(device.allocated)
        silent.run("Sum", {"x": x}, {"offset": 1}, {"y": y, "present": x})
        before += sum(device.allocated[known:])
    assert before < 4 * rows * 8 * 4


def test_an_output_in_place_is_its_inputs_memory(silent: Launcher) -> None:
    x = DeviceArray.empty((3, 8), "float32", silent.device)
    assert silent.run("Sum", {"x": x}, {"offset": 1})["present"] is x


def test_a_grid_with_no_blocks_is_not_launched(silent: Launcher) -> None:
    silent.run("Sum", {"x": DeviceArray.empty((0, 8), "float32", silent.device)}, {"offset": 1})
    assert silent.device.launched == []  # type: ignore[attr-defined]


def bad_outputs(silent: Launcher, x: DeviceArray) -> list[tuple[dict[str, DeviceArray], str]]:
    return [
        ({"z": x}, "has the outputs y, present; found z"),
        ({"y": x}, r"y is float32 \[3\]; the memory given is float32 \[3, 8\]"),
        ({"y": DeviceArray(x.pointer + 4, (3,), "float32")}, "no multiple of 16 bytes"),
        ({"present": DeviceArray.empty((3, 8), "float32", silent.device)}, "writes present where x lies"),
    ]


def test_outputs_that_do_not_fit_are_one_sentence(silent: Launcher) -> None:
    x = DeviceArray.empty((3, 8), "float32", silent.device)
    for outputs, message in bad_outputs(silent, x):
        with pytest.raises(AntiphonError, match=message):
            silent.run("Sum", {"x": x}, {"offset": 1}, outputs)


def test_inputs_that_no_program_takes_are_one_sentence(launcher: Launcher, silent: Launcher) -> None:
    inputs = placed(launcher, call())
    with pytest.raises(AntiphonError, match="No compiled kernel of CausalConvState fits"):
        launcher.run(OP, {**inputs, "x": launcher.array(call()["x"], "float16")}, {})
    with pytest.raises(AntiphonError, match="No kernels of MoE are compiled here"):
        launcher.run("MoE", {}, {})
    with pytest.raises(AntiphonError, match="x is float32; found int32"):
        silent.run_program(PROGRAM, {"x": DeviceArray.empty((3, 8), "int32", silent.device)}, {"offset": 1})


def test_sizes_that_the_driver_cannot_take_are_one_sentence(silent: Launcher) -> None:
    big = DeviceArray(16, (1, 2**31), "float32")
    with pytest.raises(AntiphonError, match="width = 2147483648 does not fit int32"):
        silent.run("Sum", {"x": big}, {"offset": 1})
    with pytest.raises(AntiphonError, match="more than the"):
        silent.run(
            "Sum",
            {"x": DeviceArray(16, (2**31, 1), "float32")},
            {"offset": 1},
            {"y": DeviceArray(16, (2**31,), "float32")},
        )


@pytest.mark.parametrize(
    ("target", "capability", "runs"),
    [
        ("sm80", (8, 0), True),
        ("sm80", (8, 6), True),
        ("sm80", (8, 9), True),
        ("sm86", (8, 0), False),
        ("sm89", (8, 9), True),
        ("sm80", (9, 0), False),
        ("sm90", (9, 0), True),
        ("sm90", (10, 0), False),
        ("sm100", (10, 0), True),
        ("sm100", (10, 3), False),
        ("sm120", (12, 0), True),
        ("sm120", (12, 1), False),
    ],
)
def test_machine_code_runs_where_the_architecture_allows(
    target: str, capability: tuple[int, int], runs: bool
) -> None:
    assert fits(target, capability) == runs


@pytest.mark.parametrize(
    ("capability", "target"),
    [
        ((8, 0), "sm80"),
        ((8, 6), "sm86"),
        ((8, 7), "sm86"),
        ((8, 9), "sm89"),
        ((9, 0), "sm90"),
        ((12, 0), "sm120"),
    ],
)
def test_the_best_target_is_taken(capability: tuple[int, int], target: str) -> None:
    assert target_for(SimpleNamespace(name="G", capability=capability)) == target  # type: ignore[arg-type]


def test_a_gpu_that_no_target_fits_is_one_sentence() -> None:
    with pytest.raises(AntiphonError, match="G has compute capability 7.5, which none of them fits"):
        target_for(SimpleNamespace(name="G", capability=(7, 5)))  # type: ignore[arg-type]


def test_a_library_for_another_gpu_is_refused(tmp_path: Path) -> None:
    library = KernelLibrary.open(write_library(tmp_path, "sm90", [PROGRAM]), "sm90")
    with pytest.raises(
        AntiphonError, match=r"Kernels for sm90 do not run on the host \(compute capability 8.0\)"
    ):
        Launcher(library, HostDevice([]))
    with pytest.raises(AntiphonError, match="holds no kernels for sm80"):
        Launcher.open(tmp_path, HostDevice([]))


def test_closing_lets_go_of_the_memory_between_launches(silent: Launcher) -> None:
    with silent:
        silent.run("Sum", {"x": DeviceArray.empty((3, 8), "float32", silent.device)}, {"offset": 1})
        assert silent._scratch
    assert not silent._scratch


def test_streams_of_other_libraries_are_taken() -> None:
    assert [
        stream_handle(stream) for stream in (None, 3, SimpleNamespace(cuda_stream=4), SimpleNamespace(ptr=5))
    ] == [0, 3, 4, 5]

    class Spoken:
        def __cuda_stream__(self) -> tuple[int, int]:
            return 0, 6

    assert stream_handle(Spoken()) == 6
    with pytest.raises(AntiphonError, match="found str"):
        stream_handle("main")
