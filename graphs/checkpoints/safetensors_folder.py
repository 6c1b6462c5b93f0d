"""The files and byte positions of a checkpoint's tensors: one `model.safetensors`, or shards with an index.

Only headers are read. The package safetensors reads and checks them but gives no byte positions, which
reading in blocks needs. The positions follow from its order of tensors: it accepts only files without gaps
between tensors.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...runtime.bundle.errors import AntiphonError, require_extra
from ...runtime.bundle.json_file import read_json_object
from ...runtime.bundle.said import reason
from .config_bounds import unusable_name
from .stored_tensor import ITEM_BYTES, MOST_AXES, StoredTensor, is_shape

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
LONGEST_FILE_NAME = 255
LARGEST_HEADER = 2**24
"""Bytes of a header; 100,000 tensors need about 12 million. safetensors accepts 10^8 and needs ten times the
memory."""
REPAIR = "download the file again"


@dataclass(frozen=True)
class Header:
    """The header of one file: position of its data, dtype and shape of each tensor in data order."""

    data: int
    tensors: dict[str, tuple[str, tuple[int, ...]]]


@dataclass(frozen=True)
class TensorList:
    """The tensors that a folder lists, without their positions.

    `shards` maps each tensor name to its file, `headers` each file read so far to its header.
    """

    folder: Path
    shards: dict[str, str]
    headers: dict[str, Header] = field(default_factory=dict)

    def tensors(self) -> dict[str, StoredTensor]:
        """Every tensor by name.

        Raises AntiphonError if a file is missing, truncated or damaged, lacks a listed tensor or has an
        unsupported dtype.
        """
        places: dict[str, dict[str, StoredTensor]] = {}
        for shard in sorted(set(self.shards.values())):
            path = self.folder / shard
            if shard not in self.headers and not path.is_file():
                raise AntiphonError(
                    f"{path} is missing but {INDEX_NAME} lists it; download this shard into the folder."
                )
            places[shard] = _places(path, self.headers.get(shard) or _read_header(path))
        tensors = {}
        for name, shard in self.shards.items():
            if name not in places[shard]:
                index = self.folder / INDEX_NAME
                raise AntiphonError(
                    f"{index} places tensor {name} in {shard}, which does not hold it; "
                    "download the index and this shard again."
                )
            tensors[name] = places[shard][name]
        return tensors


def has_weights(folder: Path) -> bool:
    """Whether `folder` has an index of shards or a single weights file."""
    return (folder / INDEX_NAME).is_file() or (folder / SINGLE_NAME).is_file()


def find_tensors(folder: Path) -> TensorList:
    """The tensors in `folder`, from its index or from the header of its single file.

    Raises AntiphonError if the folder has neither.
    """
    index, single = folder / INDEX_NAME, folder / SINGLE_NAME
    if index.is_file():
        return TensorList(folder, _read_index(index))
    if not single.is_file():
        raise AntiphonError(
            f"{folder} holds no weights: expected {SINGLE_NAME} or {INDEX_NAME} with its shards; "
            "give the complete checkpoint."
        )
    header = _read_header(single)
    return TensorList(folder, dict.fromkeys(sorted(header.tensors), SINGLE_NAME), {SINGLE_NAME: header})


def _read_index(index: Path) -> dict[str, str]:
    """`weight_map` of the index: tensor name -> file."""
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise AntiphonError(
            f"{index} is not an index of shards (a JSON object with weight_map was expected); {REPAIR}."
        )
    _check_names(index, weight_map)
    for shard in set(map(str, weight_map.values())):
        if (
            len(os.fsencode(shard)) > LONGEST_FILE_NAME
            or not shard.isprintable()
            or Path(shard).name != shard
        ):
            raise AntiphonError(
                f"{index} lists the file {shard!r:.60}, expected the name of a file beside it; {REPAIR}."
            )
    if not all(isinstance(shard, str) for shard in weight_map.values()):
        raise AntiphonError(
            f"{index} is not an index of shards (file names were expected in weight_map); {REPAIR}."
        )
    return weight_map


def _read_header(shard: Path) -> Header:
    """The header of a safetensors file. Raises AntiphonError for a truncated, damaged or unreadable file."""
    require_extra("build", "Reading weights", "safetensors")
    # Imported here, because making a checkpoint does not need this extra.
    from safetensors import SafetensorError, safe_open

    tensors = {}
    try:
        with open(shard, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
        if length > LARGEST_HEADER:
            raise AntiphonError(
                f"{shard} is broken or not a safetensors file (it announces a header of {length:,} bytes); "
                f"{REPAIR}."
            )
        with safe_open(shard, framework="numpy") as opened:
            for name in opened.offset_keys():
                view = opened.get_slice(name)
                tensors[name] = view.get_dtype(), tuple(view.get_shape())
    except SafetensorError as error:
        raise AntiphonError(
            f"{shard} is truncated, broken or not a safetensors file ({reason(error)}); {REPAIR}."
        ) from None
    except OSError as error:
        raise AntiphonError(
            f"{shard} cannot be read ({error.strerror or reason(error)}); make it readable or {REPAIR}."
        ) from None
    _check_names(shard, tensors)
    return Header(8 + length, tensors)


def _check_names(path: Path, names: Any) -> None:
    found = unusable_name(names)
    if found is not None:
        raise AntiphonError(f"{path} holds the tensor {found}, which no tensor is called; {REPAIR}.")


def _places(shard: Path, header: Header) -> dict[str, StoredTensor]:
    """The tensors of one file, by name. Raises AntiphonError for an unsupported dtype or shape."""
    tensors = {}
    begin = header.data
    for name, (dtype, shape) in header.tensors.items():
        if dtype not in ITEM_BYTES:
            raise AntiphonError(
                f"{shard}: tensor {name} is stored as {dtype:.20}, expected one of {', '.join(ITEM_BYTES)}; "
                "use the checkpoint before quantisation, or save it in one of these."
            )
        if not is_shape(shape):
            raise AntiphonError(
                f"{shard}: tensor {name} has {len(shape)} axes of up to {max(shape)}, "
                f"expected at most {MOST_AXES} axes of 63 bits; {REPAIR}."
            )
        end = begin + ITEM_BYTES[dtype] * math.prod(shape)
        tensors[name] = StoredTensor(shard, dtype, shape, begin, end)
        begin = end
    size = shard.stat().st_size
    if size != begin:
        raise AntiphonError(
            f"{shard} was changed while it was being read: "
            f"{size} bytes found, {begin} expected by its header; {REPAIR}."
        )
    return tensors
