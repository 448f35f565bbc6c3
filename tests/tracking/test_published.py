import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tracking.published import FORMAT, READABLE, PublishedError, read_header, read_published, write_published

ROWS = pa.table(
    {
        "part": pa.array(["curve", "curve", "curve", "update"]),
        "env_steps": pa.array([10_000, 20_000, 25_000, 2_048]),
        "kl": pa.array(
            np.array([0.25, math.nan, 0.0, 0.5]), mask=np.array([False, False, True, False]), from_pandas=False
        ).cast(pa.float32()),
        "measurements": pa.array([3, 1, 0, None], pa.int32()),
        "outcome": pa.array([None, None, None, "stepped"]),
    }
)
HEADER: dict[str, Any] = {
    "env": "hopper",
    "variant": "trpo",
    "algorithm": "trpo",
    "seed": 3,
    "state": "failed",
    "reason": "it said “nan”",
    "identity": "a" * 64,
    "content": "",
    "total_steps": 25_000,
    "delta_ref": 0.02,
    "overrides": ["seed=3"],
    "run": {"score": math.nan, "bound": -math.inf, "missing": None, "returns": [1.5]},
    "provenance": {"identity": {"config": {}, "code": {}, "versions": {}, "device": "cpu"}},
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "cells" / "hopper" / "seed-3.parquet"
    write_published(file, HEADER, ROWS)
    return file


def test_what_is_written_is_read_with_null_nan_and_infinity_apart(path: Path) -> None:
    header, rows = read_published(path)
    assert repr(header) == repr({"format": FORMAT, **HEADER})
    assert rows.schema == ROWS.schema
    [kl] = rows["kl"].chunks
    assert kl.is_null().to_pylist() == [False, False, True, False]
    assert math.isnan(kl[1].as_py())
    assert rows["outcome"].to_pylist() == [None, None, None, "stepped"]
    assert repr(read_header(path)) == repr(header)


def test_any_parquet_reader_shows_rows_and_header(path: Path) -> None:
    table = pq.read_table(path)
    assert table.column_names == ROWS.column_names
    assert json.loads(table.schema.metadata[b"fisherbench"])["seed"] == 3


def test_equal_cells_are_equal_files(path: Path, tmp_path: Path) -> None:
    write_published(tmp_path / "again.parquet", HEADER, ROWS)
    assert path.read_bytes() == (tmp_path / "again.parquet").read_bytes()
    assert [file.name for file in path.parent.iterdir()] == ["seed-3.parquet"]  # no temporary file stays


def test_a_change_of_any_byte_is_noticed_or_changes_nothing(path: Path) -> None:
    """Every seventh byte of the file, one bit flipped: what is still read is what was written."""
    sound, original = path.read_bytes(), repr(read_published(path))
    refused = 0
    for place in range(0, len(sound), 7):
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 1]) + sound[place + 1 :])
        try:
            assert repr(read_published(path)) == original
        except PublishedError:
            refused += 1
    assert refused > len(sound) / 7 / 2


@pytest.mark.parametrize("keep", [0, 10, 500, -1])
def test_a_cut_off_file_is_named_in_one_line(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])
    for read in (read_published, read_header):
        with pytest.raises(PublishedError, match=f"^{path}: damaged, .*; restore it from git") as error:
            read(path)
        assert "\n" not in str(error.value)


def test_another_parquet_file_is_no_published_cell(tmp_path: Path) -> None:
    pq.write_table(ROWS, tmp_path / "other.parquet")
    with pytest.raises(PublishedError, match="no published cell"):
        read_published(tmp_path / "other.parquet")


@pytest.mark.parametrize(
    ("version", "remedy"),
    [(FORMAT + 1, "take a newer one"), (min(READABLE) - 1, "publish its run again or train it")],
)
def test_another_format_is_named_in_one_line(path: Path, version: int, remedy: str) -> None:
    write_published(path, {"format": version, **HEADER}, ROWS)
    for read in (read_published, read_header):
        with pytest.raises(PublishedError, match=f"format {version}, .* reads formats 2 and 3; .*{remedy}"):
            read(path)


@pytest.mark.parametrize("name", ROWS.column_names)
def test_a_change_of_any_column_is_noticed(path: Path, name: str) -> None:
    """The file of another table, its digest put back to that of the first: a value changed, or one made null."""
    sound = pq.read_table(path).schema.metadata
    values = ROWS[name].to_pylist()
    place = next(i for i, value in enumerate(values) if value is not None)
    for other in ("update" if isinstance(values[place], str) else values[place] + 1, None):
        column = pa.array([*values[:place], other, *values[place + 1 :]], ROWS[name].type, from_pandas=False)
        changed = ROWS.set_column(ROWS.column_names.index(name), name, column)
        pq.write_table(changed.replace_schema_metadata(sound), path)
        with pytest.raises(PublishedError, match="damaged"):
            read_published(path)


def test_a_cell_that_is_read_and_written_stays_of_its_format(tmp_path: Path) -> None:
    write_published(tmp_path / "old.parquet", {"format": 2, **HEADER}, ROWS)
    header, rows = read_published(tmp_path / "old.parquet")
    write_published(tmp_path / "renewed.parquet", header | {"fingerprint": "x"}, rows)
    assert read_header(tmp_path / "renewed.parquet")["format"] == 2


def test_a_header_that_json_cannot_hold_is_an_error(tmp_path: Path) -> None:
    bad: dict[str, Any] = {"array": np.zeros(2)}
    with pytest.raises(TypeError):
        write_published(tmp_path / "x.parquet", bad, ROWS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"env": None}, "env: None is not text"),
        ({"seed": "3"}, "seed: '3' is not an integer"),
        ({"seed": True}, "seed: True"),
        ({"state": "running"}, "state: 'running'"),
        ({"reason": None}, "reason: None"),
        ({"identity": "x"}, "identity: 'x'"),
        ({"delta_ref": "0.02"}, "delta_ref: '0.02' is not a number"),
        ({"overrides": "seed=3"}, "overrides: 'seed=3' is not a list"),
        ({"run": []}, r"run: \[\] is not an object or null"),
        ({"provenance": {}}, "provenance.identity: missing"),
        ({"provenance": HEADER["provenance"] | {"git": {"commit": "--detach", "dirty": False}}}, "git.commit: '--deta"),
        ({"files": {"checkpoint": 3}}, "files.checkpoint: 3"),
        ({"carried": [{}]}, r"carried\[0\].from: missing"),
    ],
)
def test_a_header_of_other_kinds_is_named_in_one_line(tmp_path: Path, changes: dict[str, Any], fault: str) -> None:
    path = tmp_path / "x.parquet"
    write_published(path, HEADER | changes, ROWS)
    for read in (read_published, read_header):
        with pytest.raises(PublishedError, match=f"^{path}: no published cell: .*{fault}") as error:
            read(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [b"[]", b'{"format": "3"}', b'{"format": [3]}', b"[" * 100_000, b'{"format": 3, "a": {"float": "abc"}}', b"\xff"],
)
def test_a_header_that_is_none_is_damage(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(ROWS.replace_schema_metadata({b"fisherbench": text, b"fisherbench.sha256": b""}), path)
    for read in (read_published, read_header):
        with pytest.raises(PublishedError, match=f"^{path}: (damaged|no published cell)"):
            read(path)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_pipe_or_a_directory_is_no_published_cell(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "x.parquet")
    for read in (read_published, read_header):
        with pytest.raises(PublishedError, match="damaged, or no published cell"):
            read(tmp_path / "x.parquet")


def test_rows_of_other_kinds_are_damage(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    write_published(path, HEADER, pa.table({"env_steps": [1]}))
    metadata = pq.read_schema(path).metadata
    pq.write_table(pa.table({"env_steps": [[1]]}).replace_schema_metadata(metadata), path)
    with pytest.raises(PublishedError, match="damaged"):
        read_published(path)
