"""Cases of GatedDeltaRule: calls with known answers for every program."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from ...runtime.kernels.contract import Program
from ...runtime.kernels.expression import evaluate
from ..tools.case import Case, rounded
from .gated_norm import gated_norm
from .programs import INPUTS
from .reference import gated_delta_rule

TOLERANCE = {"bfloat16": 1e-2, "float16": 1.5e-3, "float32": 5e-6}
Inputs = dict[str, np.ndarray]


def cases(program: Program, rng: np.random.Generator) -> Iterator[Case]:
    """Ragged and empty rows, edges of the chunks, extreme gates, and repeated keys."""
    key_dim, is_decode = int(program.tensor("past").shape[2]), "decode" in program.name
    value_dim = key_dim if is_fused(program) else 96 if key_dim == 64 else 32
    if is_decode:
        tokens, calls = 4, {"one token": ([1], 1, 1, 2), "ragged": ([3, 0, 1], 3, 2, 1)}
    elif key_dim == 256:  # slow in the interpreter, and the code is the same
        tokens, calls = 66, {"ragged around one chunk": ([65, 0], 66, 1, 1)}
    else:
        tokens, calls = (
            70,
            {
                "ragged around one chunk": ([63, 64, 65, 0], 66, 1, 1),
                "three chunks with shared keys": ([130], 130, 1, 2),
            },
        )
    for name, (lengths, count, key_heads, group) in calls.items():
        yield make_case(
            program, name, random_inputs(program, rng, lengths, count, key_heads, group, value_dim)
        )
    for name, change in EDGES.items() if key_dim == 64 else ():
        inputs = random_inputs(program, rng, [tokens], tokens, 1, 1, value_dim)
        change(inputs)
        yield make_case(program, name, inputs)


def random_inputs(
    program: Program,
    rng: np.random.Generator,
    lengths: Sequence[int],
    tokens: int,
    key_heads: int,
    group: int,
    value_dim: int,
) -> Inputs:
    """Inputs of `program` by name; padding rows hold large values."""
    sizes = {
        "batch": len(lengths),
        "tokens": tokens,
        "key_heads": key_heads,
        "value_heads": key_heads * group,
        "value_dim": value_dim,
    }
    inputs: Inputs = {}
    for spec in program.inputs:
        if spec.name == "query_length":
            inputs[spec.name] = np.array(lengths, np.int64)
            continue
        values = rng.standard_normal([evaluate(size, sizes) for size in spec.shape])
        if spec.name == "decay_scale":
            values = -np.exp(values)
        if "tokens" in spec.shape:
            values[np.arange(tokens) >= np.array(lengths)[:, None]] = 1000.0
        inputs[spec.name] = values
    return inputs


def make_case(program: Program, name: str, inputs: Inputs) -> Case:
    """The call of `program` on `inputs`, rounded here to their dtypes."""
    dtypes = {spec.name: spec.dtype for spec in program.inputs}
    given = {
        key: value if dtypes[key] == "int64" else rounded(value, dtypes[key]) for key, value in inputs.items()
    }
    heads = given["a"].shape[2]
    attributes = {"key_heads": given["key"].shape[2] // given["past"].shape[2], "value_heads": heads}
    return Case(
        name, program, given, attributes, lambda: expected(given, attributes), TOLERANCE[dtypes["value"]]
    )


def expected(inputs: Mapping[str, np.ndarray], attributes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """y and present in the dtype of the inputs, with the gated norm where its inputs are given."""
    query, key, value, a, b, dt_bias, decay_scale, past, length = (inputs[name] for name in INPUTS)
    y, present = gated_delta_rule(
        query,
        key,
        value,
        a,
        b,
        dt_bias,
        decay_scale,
        past,
        length,
        attributes["key_heads"],
        attributes["value_heads"],
    )
    if "z" in inputs:
        is_row = np.arange(y.shape[1]) < inputs["query_length"][:, None]
        y = np.where(is_row[..., None], gated_norm(y, inputs["z"], inputs["norm_weight"]), 0.0)
    return {"y": y, "present": present}


def is_fused(program: Program) -> bool:
    return any(spec.name == "z" for spec in program.inputs)


def _forget_every_other_token(inputs: Inputs) -> None:
    inputs["a"][:, ::2], inputs["a"][:, 1::2], inputs["decay_scale"][...] = -1000.0, 1000.0, -16.0


def _forget_nothing(inputs: Inputs) -> None:
    inputs["a"][...] = -1000.0


def _forget_without_bound(inputs: Inputs) -> None:
    inputs["a"][...], inputs["decay_scale"][...] = 1e4, -1e4


def _repeat_one_key(inputs: Inputs) -> None:
    """Every token overwrites the write of the token before: the worst conditioned chunk."""
    inputs["key"][...], inputs["b"][...], inputs["a"][...] = inputs["key"][:, :1], 200.0, -1000.0


def _zero_queries_and_keys(inputs: Inputs) -> None:
    inputs["query"][...], inputs["key"][...] = 0.0, 0.0


def _small_keys_and_large_values(inputs: Inputs) -> None:
    """Values divided by the norms of their keys exceed float16."""
    inputs["key"], inputs["value"] = inputs["key"] * 1e-4, inputs["value"] * 300


EDGES: dict[str, Callable[[Inputs], None]] = {
    "every other token forgets all": _forget_every_other_token,
    "no token forgets": _forget_nothing,
    "decays beyond any number": _forget_without_bound,
    "one key over and over": _repeat_one_key,
    "queries and keys of zeros": _zero_queries_and_keys,
    "small keys and large values": _small_keys_and_large_values,
}
