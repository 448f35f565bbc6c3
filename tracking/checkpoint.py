"""Checkpoints: a tree of tensors, arrays and plain values in one .npz archive that cannot run code."""

import errno
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import numpy as np
import torch

from tracking.files import open_regular, replacing
from tracking.schema import ANY, require

FORMAT = 2
TREE = "tree"  # the member that holds the JSON description, UTF-8 in an array of bytes


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read."""


class FormatError(CheckpointError):
    """A checkpoint of a format this code does not read."""


def save(path: Path, state: Any, previous: Path | None = None) -> None:
    """Write `state` atomically; `load` gives it back bit for bit. The file that was there becomes `previous`.

    A state is a tree of dicts (string or integer keys), lists and tuples whose leaves are torch tensors,
    numpy arrays and scalars, ints of any size, floats, bools, strings and None. Tensors come back contiguous,
    on the CPU and without gradients, ordered dicts as dicts. TypeError names the place of anything else
    (bfloat16 and sparse tensors too).
    """
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    description = {"format": FORMAT, "tree": _describe(state, "state", arrays)}
    arrays[TREE] = np.frombuffer(json.dumps(description, allow_nan=False).encode(), dtype=np.uint8)
    with replacing(path, previous) as file:
        np.savez(file, allow_pickle=False, **arrays)


def load(path: Path, device: str = "cpu") -> Any:
    """Read what `save` wrote, its tensors to `device`.

    What an array takes is bound by the file's own size, whatever that claims.
    FileNotFoundError when there is none, OSError when it cannot be read, FormatError when other code wrote it,
    CheckpointError when it is damaged.
    """
    try:
        with open_regular(path) as file, ZipFile(file) as archive:
            read = _Members(archive, os.fstat(file.fileno()).st_size)
            description = json.loads(read(TREE).tobytes())
            require(description, {"format": int, "tree": {str: ANY}})
            if description["format"] != FORMAT:
                age = "newer" if description["format"] > FORMAT else "older"
                raise FormatError(
                    f"{path}: checkpoint format {description['format']} is {age} than format {FORMAT}, "
                    "the one this code reads; use the code that wrote it, or remove the file"
                )
            state = _rebuild(description["tree"], read)
    except Exception as error:  # a damaged archive fails in as many ways as it has bytes
        cannot_read = isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)  # a seek to nowhere
        if cannot_read or isinstance(error, CheckpointError | MemoryError):
            raise
        raise CheckpointError(f"{path}: checkpoint is truncated or damaged ({error})") from error
    return state if device == "cpu" else _moved(state, device)  # a full GPU says nothing of the file


class _Members:
    """The arrays of an archive by name, each to be had once. ValueError when they are not as `save` stores them."""

    def __init__(self, archive: ZipFile, size: int) -> None:
        infos = archive.infolist()
        if any(info.compress_type != ZIP_STORED or info.file_size != info.compress_size for info in infos):
            raise ValueError("a compressed member")
        if sum(info.file_size for info in infos) > size:
            raise ValueError(f"members that claim more than the file's {size:,} bytes")
        self._archive = archive
        self._unread = {info.filename: info for info in infos}
        if len(self._unread) < len(infos):
            raise ValueError("two members have one name")
        # Checksums of all before anything is believed: an array whose damaged header asks for fewer bytes than were
        # stored would otherwise be read without its checksum ever being compared.
        damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"wrong checksum of {damaged}")

    def __call__(self, name: Any) -> np.ndarray[Any, Any]:
        info = self._unread.pop(f"{name}.npy", None)
        if info is None:
            raise ValueError(f"no member {name!r} that has not been read")
        with self._archive.open(info) as member:
            try:
                shape, fortran, dtype = _HEADERS[np.lib.format.read_magic(member)](member)
            except MemoryError as error:  # what Python's parser says of an expression that is too deep
                raise ValueError(f"member {name} has no header of an array") from error
            if dtype.hasobject:
                raise ValueError("Object arrays cannot be loaded when allow_pickle=False")
            data = member.read()
        if dtype.itemsize * math.prod(shape) != len(data) or math.prod(shape) > info.file_size:
            raise ValueError(f"member {name} of shape {shape} has {len(data):,} bytes")
        # A copy: it can be written to, and its memory is aligned.
        return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C").copy(order="K")


_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def _describe(node: Any, place: str, arrays: dict[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
    """Describe `node` as {kind: content}; arrays go to `arrays` and are named by their number there."""

    def member(array: np.ndarray[Any, Any]) -> str:
        if array.dtype.hasobject:
            raise TypeError(f"{place}: an array of Python objects cannot be saved in a checkpoint")
        name = str(len(arrays))
        arrays[name] = array
        return name

    match node:
        case torch.Tensor():
            try:
                return {"tensor": member(node.detach().cpu().contiguous().numpy())}
            except (TypeError, RuntimeError) as error:
                raise TypeError(f"{place}: a {node.layout} {node.dtype} tensor has no numpy counterpart") from error
        case np.ndarray():
            return {"array": member(node)}
        case np.generic():
            return {"scalar": member(np.asarray(node))}
        case None | bool() | int() | str():
            return {"value": node}
        case float():
            return {"float": node.hex()}  # exact, infinities and NaN included
        case dict():
            wrong = [key for key in node if type(key) not in (int, str)]
            if wrong:
                raise TypeError(f"{place}: the key {wrong[0]!r} is neither a string nor an integer")
            return {"dict": [[key, _describe(child, f"{place}[{key!r}]", arrays)] for key, child in node.items()]}
        case list() | tuple():
            kind = "list" if isinstance(node, list) else "tuple"
            return {kind: [_describe(child, f"{place}[{i}]", arrays) for i, child in enumerate(node)]}
    raise TypeError(f"{place}: {type(node).__name__} cannot be saved in a checkpoint")


def _rebuild(node: Any, read: Callable[[Any], np.ndarray[Any, Any]]) -> Any:
    if not isinstance(node, dict) or len(node) != 1:
        raise ValueError("a node that is not of one kind")
    [(kind, content)] = node.items()
    match kind, content:
        case "tensor", _:
            # Cloned into torch's own memory, whose alignment decides the order of sums in some kernels.
            return torch.from_numpy(read(content)).clone()
        case "array", _:
            return read(content)
        case "scalar", _:
            return read(content)[()]
        case "value", None | bool() | int() | str():
            return content
        case "float", str():
            return float.fromhex(content)
        case "dict", list():
            pairs = [(key, _rebuild(child, read)) for key, child in content]
            if not all(type(key) in (int, str) for key, _ in pairs) or len(dict(pairs)) < len(pairs):
                raise ValueError("a dict whose keys are not different numbers or texts")
            return dict(pairs)
        case "list", list():
            return [_rebuild(child, read) for child in content]
        case "tuple", list():
            return tuple(_rebuild(child, read) for child in content)
    raise ValueError(f"unknown kind of node {kind!r}")


def _moved(state: Any, device: str) -> Any:
    match state:
        case torch.Tensor():
            return state.to(device)
        case dict():
            return {key: _moved(child, device) for key, child in state.items()}
        case list() | tuple():
            return type(state)(_moved(child, device) for child in state)
    return state
