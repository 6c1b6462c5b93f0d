"""Where the tensors of a checkpoint folder lie: one `model.safetensors`, or shards with an index; only headers are read."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...runtime.bundle.errors import AntiphonError
from ...runtime.bundle.json_file import parse_json_object, read_json_object
from .config_bounds import unusable_name
from .stored_tensor import ITEM_BYTES, StoredTensor, is_shape

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
LARGEST_HEADER = 100 * 2**20
"""Bytes; of the format description."""
LONGEST_FILE_NAME = 255
REPAIR = "download the file again"
METADATA = "__metadata__"


@dataclass(frozen=True)
class TensorList:
    """The tensors that a folder lists, before their places are known: `shards` maps each name to its file, `headers` the files that were read so far."""

    folder: Path
    shards: dict[str, str]
    headers: dict[str, dict[str, Any]] = field(default_factory=dict)

    def tensors(self) -> dict[str, StoredTensor]:
        """Every tensor by name. Raises AntiphonError for a file that is missing, cut off, broken or of an unsupported dtype, or lacks a listed tensor."""
        places: dict[str, dict[str, StoredTensor]] = {}
        for shard in sorted(set(self.shards.values())):
            path = self.folder / shard
            if shard not in self.headers and not path.is_file():
                raise AntiphonError(f"{path} is missing but {INDEX_NAME} lists it; download this shard into the folder.")
            places[shard] = _places(path, self.headers.get(shard) or _read_header(path))
        tensors = {}
        for name, shard in self.shards.items():
            if name not in places[shard]:
                index = self.folder / INDEX_NAME
                raise AntiphonError(f"{index} places tensor {name} in {shard}, which does not hold it; download the index and this shard again.")
            tensors[name] = places[shard][name]
        return tensors


def has_weights(folder: Path) -> bool:
    """Whether `folder` holds an index of shards or a single file of weights."""
    return (folder / INDEX_NAME).is_file() or (folder / SINGLE_NAME).is_file()


def find_tensors(folder: Path) -> TensorList:
    """The tensors in `folder`, from the index if there is one, else from the header of the single file. Raises AntiphonError where there is neither."""
    index, single = folder / INDEX_NAME, folder / SINGLE_NAME
    if index.is_file():
        return TensorList(folder, _read_index(index))
    if not single.is_file():
        raise AntiphonError(f"{folder} holds no weights: expected {SINGLE_NAME} or {INDEX_NAME} with its shards; give the complete checkpoint.")
    header = _read_header(single)
    return TensorList(folder, {name: SINGLE_NAME for name in header if name != METADATA}, {SINGLE_NAME: header})


def _read_index(index: Path) -> dict[str, str]:
    """The file of every tensor, by `weight_map`."""
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise AntiphonError(f"{index} is not an index of shards (a JSON object with weight_map was expected); {REPAIR}.")
    _check_names(index, weight_map)
    for shard in set(map(str, weight_map.values())):
        if len(os.fsencode(shard)) > LONGEST_FILE_NAME or not shard.isprintable() or Path(shard).name != shard:
            raise AntiphonError(f"{index} lists the file {shard!r:.60}, expected the name of a file beside it; {REPAIR}.")
    if not all(isinstance(shard, str) for shard in weight_map.values()):
        raise AntiphonError(f"{index} is not an index of shards (file names were expected in weight_map); {REPAIR}.")
    return weight_map


def _read_header(shard: Path) -> dict[str, Any]:
    """The JSON header of one safetensors file: eight bytes of length, the header, then the data.

    Source: the format description of the safetensors project. Raises AntiphonError for a broken header.
    """
    try:
        with open(shard, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(LARGEST_HEADER, size - 8):
                raise AntiphonError(f"{shard} is truncated or not a safetensors file (its {size} bytes cannot hold the header it announces); {REPAIR}.")
            content = file.read(length)
    except OSError as error:
        raise AntiphonError(f"{shard} cannot be read ({error.strerror or error}); make it readable or {REPAIR}.") from None
    header = parse_json_object(content, f"{shard}: the safetensors header", REPAIR, unique=True)
    _check_names(shard, header)
    return {**header, METADATA: 8 + length}


def _check_names(path: Path, names: Any) -> None:
    found = unusable_name(names)
    if found is not None:
        raise AntiphonError(f"{path} holds the tensor {found}, which no tensor is called; {REPAIR}.")


def _places(shard: Path, header: dict[str, Any]) -> dict[str, StoredTensor]:
    """The tensors of one file by its header; they must lie one after the other, as the format demands."""
    data, size = header[METADATA], shard.stat().st_size
    try:
        tensors = {name: _entry(shard, name, data, entry) for name, entry in header.items() if name != METADATA}
    except (ValueError, KeyError, TypeError):
        raise AntiphonError(f"{shard}: the safetensors header is broken; {REPAIR}.") from None
    end = data
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin != end:
            raise AntiphonError(f"{shard}: the safetensors header is broken (tensor {name} does not begin where the one before it ends); {REPAIR}.")
        end = tensor.end
    if size < end:
        raise AntiphonError(f"{shard} is truncated: {size} bytes found, {end} expected by its header; {REPAIR}.")
    return tensors


def _entry(shard: Path, name: str, data: int, entry: dict[str, Any]) -> StoredTensor:
    """One header entry; raises ValueError when its numbers contradict each other, AntiphonError for an unsupported dtype."""
    (begin, end), shape, dtype = entry["data_offsets"], entry["shape"], entry["dtype"]
    if not is_shape((begin, end)) or not isinstance(shape, list) or not is_shape(shape) or not isinstance(dtype, str) or not dtype.isprintable():
        raise ValueError("offsets, shape or dtype are of another type")
    if dtype not in ITEM_BYTES:
        raise AntiphonError(
            f"{shard}: tensor {name} is stored as {dtype:.20}, expected one of {', '.join(ITEM_BYTES)}; "
            "use the checkpoint before quantisation, or save it in one of these."
        )
    if end - begin != ITEM_BYTES[dtype] * math.prod(shape):
        raise ValueError("offsets, shape and dtype do not agree")
    return StoredTensor(shard, dtype, tuple(shape), data + begin, data + end)
