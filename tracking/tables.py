"""Parquet tables that grow row by row and keep null (not measured) and NaN (measured, came out NaN) apart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tracking.files import open_regular, replacing

if TYPE_CHECKING:
    import pandas as pd

Value = float | int | bool | str | None
ARROW = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}
KINDS = frozenset({*ARROW.values(), pa.int32(), pa.float32()})
"""Types of columns that are read."""
LARGEST = 2**28
"""Most values of a table that is read: 2 GiB."""
TIMING = ("_time", "_per_second")


class Table:
    """A table written whole at every `flush`, so that its file is complete at any instant.

    `columns` declares names and types (bool, int, float, str) ahead of the first row, for an order that does
    not depend on the rows and for tables that may stay empty. Rows may bring new columns, null in earlier
    rows. A column takes the type of its values; ints among floats become floats, nulls alone count as floats.
    """

    def __init__(self, path: Path, columns: Mapping[str, type] | None = None) -> None:
        self.path = path
        self._types: dict[str, type | None] = dict(columns or {})
        self._rows: list[dict[str, Value]] = []

    @classmethod
    def resume(cls, path: Path, columns: Mapping[str, type], rows: int) -> Self:
        """The first `rows` rows of the table at `path`, to go on with. ValueError for fewer, or other types."""
        table, stored = cls(path, columns), read_arrow(path)
        if stored.num_rows < rows:
            raise ValueError(f"{path} has {stored.num_rows} rows, of {rows} that were written")
        stored = stored.slice(0, rows)
        # A column of nulls has the type of its first value, which may be still to come.
        known = {f.name: f.type for f in stored.schema if stored.column(f.name).null_count < rows}
        kinds = {arrow: kind for kind, arrow in ARROW.items()}
        for name, arrow in known.items():
            declared = columns.get(name)
            if arrow not in kinds or not (declared in (None, kinds[arrow]) or (declared, kinds[arrow]) == (float, int)):
                raise ValueError(f"{path}: column {name} is of type {arrow}")
        table._types = {
            name: kinds[known[name]] if name in known else columns.get(name) for name in stored.column_names
        }
        table._rows = stored.to_pylist()
        return table

    def __len__(self) -> int:
        return len(self._rows)

    def last(self, name: str) -> Value:
        """The value of a column in the last row; None where there is none."""
        return self._rows[-1].get(name) if self._rows else None

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row; numpy scalars are fine. TypeError or ValueError names a bad column and adds nothing."""
        plain = {name: _plain(name, value) for name, value in row.items()}
        types = {name: _wider(name, self._types.get(name), value) for name, value in plain.items()}
        self._types.update(types)
        self._rows.append(plain)

    def flush(self) -> None:
        """Replace the file by one with all rows so far."""
        columns = {name: self._column(name, kind or float) for name, kind in self._types.items()}
        with replacing(self.path) as file:
            pq.write_table(pa.table(columns), file, write_page_checksum=True)

    def _column(self, name: str, kind: type) -> pa.Array:
        values = [row.get(name) for row in self._rows]
        mask = np.array([value is None for value in values], dtype=bool)
        filled = [kind() if value is None else kind(value) for value in values]
        return pa.array(filled, type=ARROW[kind], mask=mask, from_pandas=False)


def _plain(name: str, value: Any) -> Value:
    plain = value.item() if isinstance(value, np.generic) else value
    if plain is not None and not isinstance(plain, (bool, int, float, str)):
        raise TypeError(f"column {name}: {type(value).__name__} is neither a number, a bool, a string nor None")
    if isinstance(plain, int) and not -(2**63) <= plain < 2**63:
        raise ValueError(f"column {name}: {plain} does not fit into 64 bits")
    return plain


def _wider(name: str, known: type | None, value: Value) -> type | None:
    if value is None:
        return known
    kind = next(kind for kind in (bool, int, float, str) if isinstance(value, kind))
    if known in (None, kind):
        return kind
    if {known, kind} == {int, float}:
        return float
    raise TypeError(f"column {name}: {value!r} in a column of type {known.__name__ if known else None}")


def read_arrow(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read a table as it is, or some columns of it, nulls and NaN apart; checksums of pages are compared.

    FileNotFoundError when there is none, ValueError that names it when it is damaged, lacks a column or has one of
    another kind than bool, number and string.

    Through one open file: given a path, pyarrow opens it more than once, and a run may replace it in between. And in
    this thread: one of pyarrow's own may still hold the file when the interpreter ends, which then aborts.
    """
    with open_regular(path) as file:
        try:
            parquet = pq.ParquetFile(file, page_checksum_verification=True)
            _require_readable(parquet, columns or [])
            table = parquet.read(columns, use_threads=False)
            table.validate(full=True)
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # Arrow's own of damage have none
                raise
            raise ValueError(f"{path}: damaged, or no such table ({' '.join(str(error).split())[:200]})") from error
    return table


def _require_readable(parquet: pq.ParquetFile, columns: list[str]) -> None:
    """Refuse what no run writes, before it takes memory."""
    schema = parquet.schema_arrow
    if len(set(schema.names)) < len(schema.names):
        raise ValueError("two columns have one name")
    if absent := set(columns) - set(schema.names):
        raise ValueError(f"without the columns {', '.join(sorted(absent))}")
    if odd := [field for field in schema if field.type not in KINDS]:
        raise ValueError(f"column {odd[0].name} is of type {odd[0].type}")
    if parquet.metadata.num_rows * len(schema.names) > LARGEST:
        raise ValueError(f"{parquet.metadata.num_rows:,} rows of {len(schema.names)} columns")


def read_table(path: Path) -> pd.DataFrame:
    """Read a table for analysis: null and NaN are both missing (NaN), `nan_counts` tells them apart.

    Numbers come as int64 or float64, bools as bool; ints and bools with nulls as float64. Strings keep None.
    """
    import pandas as pd  # which a run that only writes need not wait for

    table = read_arrow(path)
    return pd.DataFrame({name: _numpy(table.column(name)) for name in table.column_names})


def _numpy(column: pa.ChunkedArray) -> np.ndarray[Any, Any]:
    if pa.types.is_string(column.type):
        return np.array(column.to_pylist(), dtype=object)
    if column.null_count:
        column = column.cast(pa.float64())
    return np.asarray(column.to_numpy())


def nan_counts(path: Path) -> dict[str, int]:
    """Count, per float column of the table at `path`, the values that were measured and came out NaN."""
    table = read_arrow(path)
    floats = [field.name for field in table.schema if pa.types.is_floating(field.type)]
    return {name: pc.sum(pc.is_nan(table.column(name))).as_py() or 0 for name in floats}


def equal_tables(a: Path, b: Path) -> bool:
    """Whether two tables are equal except for timing columns; NaN equals NaN, null differs from NaN."""
    return first_difference(a, b) is None


def first_difference(a: Path, b: Path, shared: bool = False) -> str | None:
    """Name the first place where two tables differ, timing columns aside; None when they are equal.

    With `shared`, only the columns of the first are compared, and the second may have more.
    """
    one, other = (_without_timing(read_arrow(path)) for path in (a, b))
    if shared and set(one.column_names) <= set(other.column_names):
        other = other.select(one.column_names)
    if one.column_names != other.column_names:
        unshared = sorted(set(one.column_names) ^ set(other.column_names))
        return f"columns: {', '.join(unshared) or 'their order'}"
    if one.num_rows != other.num_rows:
        return f"rows: {one.num_rows} and {other.num_rows}"
    for name in one.column_names:
        if one.schema.field(name).type != other.schema.field(name).type:
            return f"column {name}: {one.schema.field(name).type} and {other.schema.field(name).type}"
        pairs = zip(one.column(name).to_pylist(), other.column(name).to_pylist(), strict=True)
        for row, (x, y) in enumerate(pairs):
            both_nan = x != x and y != y
            if x != y and not both_nan:
                return f"column {name}, row {row}: {x} and {y}"
    return None


def _without_timing(table: pa.Table) -> pa.Table:
    return table.select([name for name in table.column_names if not name.endswith(TIMING)])
