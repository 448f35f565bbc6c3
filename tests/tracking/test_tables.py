"""Tables against what pyarrow itself reads back."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracking.identity import REPOSITORY
from tracking.tables import Table, equal_tables, first_difference, nan_counts, read_table

NAN = math.nan
Row = dict[str, Any]


def write(path: Path, *rows: Row, columns: dict[str, type] | None = None) -> Path:
    table = Table(path, columns)
    for row in rows:
        table.append(row)
    table.flush()
    return path


def test_null_and_nan_both_survive(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", {"kl": None}, {"kl": NAN}, {"kl": math.inf}, {"kl": 0.5})
    column = pq.read_table(path).column("kl")
    assert column.is_null().to_pylist() == [True, False, False, False]
    assert math.isnan(column[1].as_py())
    assert column.to_pylist()[2:] == [math.inf, 0.5]
    np.testing.assert_array_equal(read_table(path)["kl"], [NAN, NAN, math.inf, 0.5])
    assert nan_counts(path) == {"kl": 1}


def test_types_of_columns(tmp_path: Path) -> None:
    rows: list[Row] = [
        {"env_steps": 2048, "accepted": True, "mixed": 1, "nothing": None, "outcome": "stepped"},
        {"env_steps": 4096, "accepted": None, "mixed": 2.5, "nothing": None, "outcome": None, "late": 3},
    ]
    path = write(tmp_path / "t.parquet", *rows)
    table = pq.read_table(path)
    assert dict(zip(table.column_names, table.schema.types, strict=True)) == {
        "env_steps": pa.int64(),
        "accepted": pa.bool_(),
        "mixed": pa.float64(),
        "nothing": pa.float64(),
        "outcome": pa.string(),
        "late": pa.int64(),
    }
    assert table.to_pylist() == [{**rows[0], "late": None}, rows[1]]
    frame = read_table(path)
    assert frame["env_steps"].dtype == np.int64
    assert frame["late"].dtype == frame["nothing"].dtype == frame["accepted"].dtype == np.float64
    assert frame["outcome"].isna().tolist() == [False, True]


def test_numpy_scalars(tmp_path: Path) -> None:
    row = {
        "a": np.float32(0.1),
        "b": np.int32(7),
        "c": np.bool_(True),
        "d": np.float64(NAN),
        "e": np.str_("x"),
    }
    [back] = pq.read_table(write(tmp_path / "t.parquet", row)).to_pylist()
    assert (back["a"], back["b"], back["c"], back["e"]) == (float(np.float32(0.1)), 7, True, "x")
    assert math.isnan(back["d"])


def test_empty_table_keeps_its_declared_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", columns={"env_steps": int, "episode_return": float, "mode": str, "ok": bool})
    frame = read_table(path)
    assert list(frame) == ["env_steps", "episode_return", "mode", "ok"]
    assert len(frame) == 0
    assert frame["env_steps"].dtype == np.int64
    assert frame["episode_return"].dtype == np.float64
    assert nan_counts(path) == {"episode_return": 0}


@pytest.mark.parametrize(
    ("first", "second", "error"),
    [
        ({"kl": 1.0}, {"kl": "high"}, TypeError),
        ({"kl": True}, {"kl": 1}, TypeError),
        ({"kl": 1.0}, {"kl": [1.0]}, TypeError),
        ({"kl": 1}, {"kl": 2**63}, ValueError),
    ],
)
def test_a_bad_value_names_its_column_and_adds_nothing(
    tmp_path: Path, first: Row, second: Row, error: type[Exception]
) -> None:
    table = Table(tmp_path / "t.parquet")
    table.append(first)
    with pytest.raises(error, match="column kl: "):
        table.append({"other": 1, **second})
    table.flush()
    assert pq.read_table(table.path).to_pylist() == [first]


def test_a_failed_flush_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table(tmp_path / "t.parquet")
    table.append({"kl": 0.5})
    table.flush()
    table.append({"kl": 0.6})

    def disk_full(table: pa.Table, file: object, **_: object) -> None:
        file.write(b"half a file")  # type: ignore[attr-defined]
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pq, "write_table", disk_full)
        with pytest.raises(OSError, match="No space"):
            table.flush()
    assert pq.read_table(table.path).to_pylist() == [{"kl": 0.5}]
    assert [file.name for file in tmp_path.iterdir()] == ["t.parquet"]
    table.flush()
    assert len(read_table(table.path)) == 2


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.none() | st.floats() | st.integers(-(2**53), 2**53))))
def test_any_numbers_come_back(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> None:
    path = write(tmp_path_factory.mktemp("any") / "t.parquet", *rows, columns=dict.fromkeys("abc", float))
    expected = [[row.get(name) for name in "abc"] for row in rows]
    back = [[row[name] for name in "abc"] for row in pq.read_table(path).to_pylist()]
    assert repr([[v if v is None else float(v) for v in row] for row in expected]) == repr(back)


def test_equal_tables_differ_only_in_timing(tmp_path: Path) -> None:
    row = {"env_steps": 1, "kl": NAN, "trace": None, "outcome": "stepped"}
    a = write(tmp_path / "a", {**row, "wall_time": 1.0, "steps_per_second": 9.0})
    b = write(tmp_path / "b", {**row, "wall_time": 2.0, "rollout_time": 1.0})
    assert equal_tables(a, b)


@pytest.mark.parametrize(
    ("row", "where"),
    [
        ({"env_steps": 1, "kl": None}, "column kl, row 1: nan and None"),
        ({"env_steps": 1, "kl": math.nextafter(0.5, 1)}, "column kl, row 1: nan and 0.5000000000000001"),
        ({"env_steps": 1.0, "kl": NAN}, "column env_steps: int64 and double"),
        ({"env_steps": 1, "kl": NAN, "extra": 1}, "columns: extra"),
        ({"kl": NAN}, "column env_steps, row 1: 1 and None"),
    ],
)
def test_the_first_difference_is_named(tmp_path: Path, row: Row, where: str) -> None:
    same = {"env_steps": 0, "kl": 0.1}
    a = write(tmp_path / "a", same, {"env_steps": 1, "kl": NAN})
    b = write(tmp_path / "b", same, row)
    assert first_difference(a, b) == where
    assert not equal_tables(a, b)


def test_row_counts_are_compared(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", {"kl": 1.0}), write(tmp_path / "b", {"kl": 1.0}, {"kl": 1.0})
    assert first_difference(a, b) == "rows: 1 and 2"


def test_reading_needs_no_torch() -> None:
    blocked = "import sys; sys.modules['torch'] = None; import tracking.record, tracking.tables, tracking.identity"
    subprocess.run([sys.executable, "-c", blocked], cwd=REPOSITORY, check=True)
