import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tracking.published import FORMAT, PublishedError, read_header, read_published, write_published

CURVES = pa.table(
    {
        "env_steps": pa.array([10_000, 20_000, 25_000]),
        "kl": pa.array(np.array([0.25, math.nan, 0.0]), mask=np.array([False, False, True]), from_pandas=False).cast(
            pa.float32()
        ),
    }
)
HEADER = {
    "seed": 3,
    "score": math.nan,
    "bound": -math.inf,
    "missing": None,
    "reason": "it said “nan”",
    "returns": [1.5],
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "cells" / "hopper" / "seed-3.parquet"
    write_published(file, HEADER, CURVES)
    return file


def test_what_is_written_is_read_with_null_nan_and_infinity_apart(path: Path) -> None:
    header, curves = read_published(path)
    assert repr(header) == repr({"format": FORMAT, **HEADER})
    assert curves.schema == CURVES.schema
    [kl] = curves["kl"].chunks
    assert kl.is_null().to_pylist() == [False, False, True]
    assert math.isnan(kl[1].as_py())
    assert repr(read_header(path)) == repr(header)


def test_any_parquet_reader_shows_curves_and_header(path: Path) -> None:
    table = pq.read_table(path)
    assert table.column_names == ["env_steps", "kl"]
    assert json.loads(table.schema.metadata[b"fisherbench"])["seed"] == 3


def test_equal_cells_are_equal_files(path: Path, tmp_path: Path) -> None:
    write_published(tmp_path / "again.parquet", HEADER, CURVES)
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
    pq.write_table(CURVES, tmp_path / "other.parquet")
    with pytest.raises(PublishedError, match="no published cell"):
        read_published(tmp_path / "other.parquet")


@pytest.mark.parametrize(("change", "remedy"), [(1, "take a newer one"), (-1, "publish its run again or train it")])
def test_another_format_is_named_in_one_line(
    path: Path, monkeypatch: pytest.MonkeyPatch, change: int, remedy: str
) -> None:
    monkeypatch.setattr("tracking.published.FORMAT", FORMAT + change)
    write_published(path, HEADER, CURVES)
    monkeypatch.undo()
    for read in (read_published, read_header):
        with pytest.raises(PublishedError, match=f"format {FORMAT + change}, .* reads format {FORMAT}; .*{remedy}"):
            read(path)


def test_a_header_that_json_cannot_hold_is_an_error(tmp_path: Path) -> None:
    bad: dict[str, Any] = {"array": np.zeros(2)}
    with pytest.raises(TypeError):
        write_published(tmp_path / "x.parquet", bad, CURVES)
    assert not list(tmp_path.iterdir())
