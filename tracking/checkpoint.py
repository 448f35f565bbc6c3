"""Checkpoints: a tree of tensors, arrays and plain values in one .npz archive that cannot run code."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tracking.files import replacing

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

    FileNotFoundError when there is none, FormatError when other code wrote it, CheckpointError when it is damaged.
    """
    with path.open("rb") as file:
        try:
            with np.load(file, allow_pickle=False) as archive:
                # Checksums of all members first: an array whose damaged header asks for fewer bytes
                # than were stored would otherwise be read without its checksum ever being compared.
                damaged = archive.zip.testzip()
                if damaged is not None:
                    raise ValueError(f"wrong checksum of {damaged}")
                description = json.loads(archive[TREE].tobytes())
                if description["format"] != FORMAT:
                    age = "newer" if description["format"] > FORMAT else "older"
                    raise FormatError(
                        f"{path}: checkpoint format {description['format']} is {age} than format {FORMAT}, "
                        "the one this code reads; use the code that wrote it, or remove the file"
                    )
                return _rebuild(description["tree"], archive.__getitem__, device)
        except CheckpointError:
            raise
        except Exception as error:  # a damaged archive fails in as many ways as it has bytes
            raise CheckpointError(f"{path}: checkpoint is truncated or damaged ({error})") from error


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


def _rebuild(node: dict[str, Any], array: Callable[[str], np.ndarray[Any, Any]], device: str) -> Any:
    [(kind, content)] = node.items()
    match kind:
        case "tensor":
            # Cloned into torch's own memory, whose alignment decides the order of sums in some kernels.
            return torch.from_numpy(array(content)).clone().to(device)
        case "array":
            return array(content)
        case "scalar":
            return array(content)[()]
        case "value":
            return content
        case "float":
            return float.fromhex(content)
        case "dict":
            return {key: _rebuild(child, array, device) for key, child in content}
        case "list":
            return [_rebuild(child, array, device) for child in content]
        case "tuple":
            return tuple(_rebuild(child, array, device) for child in content)
    raise ValueError(f"unknown kind of node {kind!r}")
