"""Checkpoints give back every bit, and refuse to give back anything else."""

import errno
import io
import json
import math
import os
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tracking import checkpoint
from tracking.checkpoint import CheckpointError, load, save


def assert_same(a: Any, b: Any) -> None:
    """Equal in type, structure and every bit."""
    assert type(a) is type(b)
    match a:
        case torch.Tensor():
            assert a.dtype == b.dtype
            assert a.shape == b.shape
            assert a.numpy().tobytes() == b.numpy().tobytes()
        case np.ndarray() | np.generic():
            assert a.dtype == b.dtype
            assert a.shape == b.shape
            assert a.tobytes() == b.tobytes()
        case dict():
            assert list(a) == list(b)
            for key in a:
                assert_same(a[key], b[key])
        case list() | tuple():
            assert len(a) == len(b)
            for x, y in zip(a, b, strict=True):
                assert_same(x, y)
        case float():
            assert struct.pack("d", a) == struct.pack("d", b)
        case _:
            assert a == b


def state() -> dict[str | int, Any]:
    dtypes = [
        torch.float32,
        torch.float64,
        torch.float16,
        torch.int64,
        torch.uint8,
        torch.bool,
        torch.complex64,
    ]
    generator = torch.Generator().manual_seed(1)
    random = torch.rand(3, 4, generator=generator)
    return {
        "tensors": [(random * 2).to(dtype) for dtype in dtypes],
        "odd tensors": (torch.tensor(2.5), torch.empty(0, 3), torch.tensor([math.nan, -0.0, math.inf])),
        "arrays": {
            "a": np.arange(6.0).reshape(2, 3),
            "fortran": np.asfortranarray(np.eye(3)),
            "s": np.array(["é", "b"]),
        },
        "scalars": [np.float32(0.1), np.int64(-3), np.bool_(True)],
        "plain": [0, -(2**127), True, None, "naïve\n", "", 0.1, -0.0, math.inf, math.nan, 5e-324],
        "empty": [{}, [], ()],
        "rng": np.random.default_rng(3).bit_generator.state,
        7: {"nested": [{"deep": (1, [torch.ones(1)])}]},
    }


def test_round_trip_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    save(path, state())
    assert_same(load(path), state())
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint"]


def test_random_streams_and_optimisers_go_on_as_if_never_saved(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    rng.normal(size=5)
    torch.rand(5, generator=generator)
    model = torch.nn.Linear(3, 2)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.1)

    def step(model: torch.nn.Linear, optimiser: torch.optim.Optimizer) -> torch.Tensor:
        optimiser.zero_grad()
        model(torch.ones(1, 3)).square().sum().backward()
        optimiser.step()
        return model.weight.detach().clone()

    step(model, optimiser)
    parts = {
        "numpy": rng.bit_generator.state,
        "torch": generator.get_state(),
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
    }
    save(path, parts)

    back = load(path)
    rng2, generator2, model2 = np.random.default_rng(9), torch.Generator(), torch.nn.Linear(3, 2)
    optimiser2 = torch.optim.Adam(model2.parameters(), lr=9.0)
    rng2.bit_generator.state = back["numpy"]
    generator2.set_state(back["torch"])
    model2.load_state_dict(back["model"])
    optimiser2.load_state_dict(back["optimiser"])
    assert_same(rng.normal(size=5), rng2.normal(size=5))
    assert_same(torch.rand(5, generator=generator), torch.rand(5, generator=generator2))
    assert_same(step(model, optimiser), step(model2, optimiser2))


def test_loaded_tensors_can_be_written_to(tmp_path: Path) -> None:
    save(tmp_path / "c", {"t": torch.zeros(2), "a": np.zeros(2)})
    back = load(tmp_path / "c")
    back["t"] += 1
    back["a"] += 1
    assert back["t"].tolist() == back["a"].tolist() == [1, 1]


SMALL = {"t": torch.arange(5.0), "a": np.arange(5), "n": 2**100, "x": [0.5, None, "text"]}


def test_any_flipped_bit_is_noticed_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    save(path, SMALL)
    good = path.read_bytes()
    noticed = 0
    for place in range(len(good)):
        bad = bytearray(good)
        bad[place] ^= 1 << (place % 8)
        path.write_bytes(bad)
        try:
            back = load(path)
        except CheckpointError as error:
            noticed += str(path) in str(error)
        else:
            assert_same(back, SMALL)  # time stamps and the like
    assert noticed > len(good) // 2


def test_an_array_that_claims_to_be_shorter_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    save(path, {"weights": np.arange(2000.0)})
    good = path.read_bytes()
    assert good.count(b"(2000,)") == 1
    path.write_bytes(good.replace(b"(2000,)", b"(1000,)"))
    with pytest.raises(CheckpointError, match="wrong checksum"):
        load(path)


def test_truncation_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    save(path, SMALL)
    good = path.read_bytes()
    for length in range(0, len(good), 5):
        path.write_bytes(good[:length])
        with pytest.raises(CheckpointError, match="truncated or damaged"):
            load(path)


def test_a_missing_checkpoint_is_no_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "checkpoint")


@pytest.mark.parametrize(("change", "age"), [(1, "newer"), (-1, "older")])
def test_another_format_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: int, age: str
) -> None:
    written = checkpoint.FORMAT + change
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", written)
        save(tmp_path / "checkpoint", SMALL)
    with pytest.raises(checkpoint.FormatError, match=f"format {written} is {age} than format {checkpoint.FORMAT}"):
        load(tmp_path / "checkpoint")


def test_the_file_before_is_kept_where_asked(tmp_path: Path) -> None:
    path, previous = tmp_path / "checkpoint", tmp_path / "previous"
    for n in range(3):
        save(path, {"n": n}, previous)
    assert (load(path), load(previous)) == ({"n": 2}, {"n": 1})


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    with path.open("wb") as file:
        np.savez(file, tree=np.array([{"format": 1}], dtype=object))
    with pytest.raises(CheckpointError, match="allow_pickle=False"):
        load(path)


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        (torch.ones(2, dtype=torch.bfloat16), r"state\['x'\]\[1\]: a torch.strided torch.bfloat16 tensor"),
        (torch.eye(2).to_sparse(), r"state\['x'\]\[1\]: a torch.sparse_coo torch.float32 tensor"),
        (np.array([object()]), r"state\['x'\]\[1\]: an array of Python objects"),
        ({1.5: 0}, r"state\['x'\]\[1\]: the key 1.5"),
        ({True: 0}, r"state\['x'\]\[1\]: the key True"),
        ({1, 2}, r"state\['x'\]\[1\]: set cannot"),
    ],
)
def test_what_cannot_be_saved_is_named_and_the_old_file_kept(tmp_path: Path, leaf: Any, message: str) -> None:
    path = tmp_path / "checkpoint"
    save(path, SMALL)
    with pytest.raises(TypeError, match=message):
        save(path, {"x": [0, leaf]})
    assert_same(load(path), SMALL)


def test_tensors_are_loaded_to_the_device_that_is_asked_for(tmp_path: Path) -> None:
    save(tmp_path / "checkpoint", {"weights": [torch.ones(2)], "array": np.ones(2)})
    state = load(tmp_path / "checkpoint", "meta")
    assert state["weights"][0].device.type == "meta"
    assert state["array"].tolist() == [1, 1]


def archive(path: Path, tree: Any, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    """An archive with this description and these bytes as its other members."""
    description = np.frombuffer(json.dumps({"format": checkpoint.FORMAT, "tree": tree}).encode(), dtype=np.uint8)
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in {"tree": stored(description), **members}.items():
            file.writestr(f"{name}.npy", content)


def stored(array: np.ndarray[Any, Any], claim: tuple[int, ...] | None = None) -> bytes:
    """An array as .npy, which may claim to have another shape."""
    content = io.BytesIO()
    header = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape if claim is None else claim}
    np.lib.format.write_array_header_1_0(content, header)
    return content.getvalue() + array.tobytes()


ONE = {"a": stored(np.arange(3.0))}


@pytest.mark.parametrize(
    ("tree", "members", "fault"),
    [
        ({"array": "a"}, {"a": stored(np.arange(3.0), claim=(2**40,))}, "24 bytes"),
        ({"array": "a"}, {"a": stored(np.zeros(3, "V0"), claim=(2**40,))}, "0 bytes"),
        ({"array": "a"}, {"a": b"\x93NUMPY\x01\x00\x10\x27" + b"-" * 9999 + b"\n"}, "truncated or damaged"),
        ({"list": [{"array": "a"}] * 2}, ONE, "has not been read"),  # memory for each time that it is named
        ({"array": ["a"]}, ONE, "no member"),
        ({"value": [1]}, {}, "kind of node"),
        ({"value": 1.5}, {}, "kind of node"),
        ({"float": 3}, {}, "kind of node"),
        ({"float": "0x1p+99999"}, {}, "truncated or damaged"),
        ({"dict": [["a", {"value": 1}], ["a", {"value": 2}]]}, {}, "keys"),
        ({"dict": [[None, {"value": 1}]]}, {}, "keys"),
        ({"dict": [[[], {"value": 1}]]}, {}, "keys"),
        ({"dict": [["a"]]}, {}, "truncated or damaged"),
        ({"list": {"value": 1}}, {}, "kind of node"),
        ({"list": [], "tuple": []}, {}, "not of one kind"),
        ([], {}, "tree"),
    ],
)
def test_what_no_save_wrote_is_damaged(tmp_path: Path, tree: Any, members: dict[str, bytes], fault: str) -> None:
    path = tmp_path / "checkpoint"
    archive(path, tree, members)
    with pytest.raises(CheckpointError, match=fault):
        load(path)


def test_a_compressed_archive_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    archive(path, {"array": "a"}, {"a": stored(np.zeros(2_000_000))}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 20_000
    tracemalloc.start()
    with pytest.raises(CheckpointError, match="a compressed member"):
        load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_a_tree_of_any_depth_is_damaged(tmp_path: Path) -> None:
    deep = ('{"list":[' * 100_000 + "]}" * 100_000).encode()
    text = b'{"format":' + str(checkpoint.FORMAT).encode() + b',"tree":' + deep + b"}"
    with zipfile.ZipFile(tmp_path / "checkpoint", "w") as file:
        file.writestr("tree.npy", stored(np.frombuffer(text, dtype=np.uint8)))
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        load(tmp_path / "checkpoint")


def test_a_pipe_in_place_of_a_checkpoint_is_damaged(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "checkpoint")
    with pytest.raises(CheckpointError, match="not a regular file"):
        load(tmp_path / "checkpoint")


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), MemoryError()])
def test_a_disk_or_memory_that_fails_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """It would be thrown away for one that is older."""
    save(tmp_path / "checkpoint", SMALL)

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(zipfile.ZipFile, "testzip", fail)
    with pytest.raises(type(error)):
        load(tmp_path / "checkpoint")
