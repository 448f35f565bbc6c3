"""A published cell: one Parquet file with curves, updates and episodes as its rows and all else in its header.

The header is JSON in the file's key-value metadata under the key `fisherbench`, with the version of this format in it;
`fisherbench.sha256` beside it is the digest of header and rows. Reading parses both and runs nothing. Format 2, which
is read as well, has curves alone.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tracking.files import open_regular, parse_json, replacing
from tracking.manifest import HASH, PARTS, RECORDED
from tracking.schema import ANY, require
from tracking.tables import read_arrow

FORMAT = 3
READABLE = (2, FORMAT)
PATH = "results/published/{suite}/cells/{env}/{variant}/seed-{seed}.parquet"
"""Of a published cell, relative to the repository's root."""

_HEADER, _DIGEST = b"fisherbench", b"fisherbench.sha256"
_SCHEMA = {
    "env": str,
    "variant": str,
    "algorithm": str,
    "seed": int,
    "state": frozenset({"finished", "failed"}),
    "reason": str,
    "identity": HASH,
    "content": str,
    "total_steps": int,
    "delta_ref": float,
    "overrides": [str],
    "run": ({str: ANY}, None),  # which `analysis.condensed` knows
    "provenance": {"identity": PARTS, **{f"{name}?": schema for name, schema in RECORDED.items()}},
    "files?": {str: HASH},
    "carried?": [{"from": str, "commit": str, "compared": str, "lacks": [str], "at": str}],
}


class PublishedError(ValueError):
    """A published cell that cannot be read; the message is one line that names the file."""


def write_published(path: Path, header: Mapping[str, Any], table: pa.Table) -> None:
    """Write a published cell atomically; floats of the header may be NaN or infinite.

    A header that was read names its format already, and stays of it, as the rows beside it do.
    """
    text = dumps({"format": FORMAT, **header})
    metadata = {_HEADER: text.encode(), _DIGEST: digest(text, table).encode()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        replacing(path) as file,
        pq.ParquetWriter(
            file,
            table.schema,
            compression="zstd",
            compression_level=19,
            use_dictionary=[field.name for field in table.schema if pa.types.is_string(field.type)],
            column_encoding={field.name: kind for field in table.schema if (kind := _encoding(field.type))},
            write_statistics=False,
            store_schema=False,  # which would hold nothing that the file does not say anyway
        ) as writer,
    ):
        writer.write_table(table)
        writer.add_key_value_metadata(metadata)


def read_published(path: Path) -> tuple[dict[str, Any], pa.Table]:
    """Header and rows of a published cell. PublishedError when they are damaged or of another format."""
    try:
        table = read_arrow(path)
        header = _header(path, table.schema.metadata)
        rows = table.replace_schema_metadata(None)
        found = digest(table.schema.metadata[_HEADER].decode(), rows)
    except PublishedError:
        raise
    except OSError as error:
        raise _unreadable(path, error) from error
    except (ValueError, TypeError) as error:  # Arrow's are either
        raise _damaged(path) from error
    if found.encode() != table.schema.metadata.get(_DIGEST):
        raise _damaged(path)
    return header, rows


def read_header(path: Path) -> dict[str, Any]:
    """The header alone, without a look at the rows or the digest. PublishedError as above."""
    try:
        with open_regular(path) as file:
            metadata = pq.read_schema(file).metadata
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise _unreadable(path, error) from error
        raise _damaged(path) from error
    return _header(path, metadata)


def digest(text: str, table: pa.Table) -> str:
    """SHA-256 of a text and of names, types, nulls and bits of a table of numbers and strings."""
    sha = hashlib.sha256(text.encode())
    for name, column in zip(table.column_names, table.columns, strict=True):
        values = column.combine_chunks()
        nulls = values.is_null().to_numpy(zero_copy_only=False).tolist()
        sha.update(f"\n{name} {values.type} {nulls}\n".encode())
        if pa.types.is_string(values.type):
            sha.update(repr(values.cast(pa.binary()).to_pylist()).encode())  # which damage cannot make undecodable
        else:
            sha.update(values.fill_null(0).to_numpy().tobytes())
    return sha.hexdigest()


def dumps(value: Any) -> str:
    """Strict JSON without spaces; a float that JSON lacks becomes ``{"float": "nan"}``."""
    return json.dumps(_strict(value), allow_nan=False, separators=(",", ":"))


def loads(text: bytes) -> Any:
    """What `dumps` wrote. ValueError when that is not what it is."""
    return _floats(parse_json(text))


def _floats(value: Any) -> Any:
    match value:
        case {"float": "nan" | "inf" | "-inf" as name} if len(value) == 1:
            return float(name)
        case dict():
            return {key: _floats(entry) for key, entry in value.items()}
        case list():
            return [_floats(entry) for entry in value]
    return value


def _strict(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return {"float": str(value)}
        case Mapping():
            return {key: _strict(entry) for key, entry in value.items()}
        case list() | tuple():
            return [_strict(entry) for entry in value]
    return value


def _encoding(kind: pa.DataType) -> str | None:
    """Parquet's encoding that zstd makes least of: differences of integers, and floats by their bytes."""
    if pa.types.is_integer(kind):
        return "DELTA_BINARY_PACKED"
    return "BYTE_STREAM_SPLIT" if pa.types.is_floating(kind) else None


def _header(path: Path, metadata: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    try:
        header: dict[str, Any] = loads((metadata or {})[_HEADER])
        require(header, {"format": int})
    except (KeyError, ValueError) as error:
        raise _damaged(path) from error
    version = header["format"]
    if version not in READABLE:
        remedy = "take a newer one" if version > FORMAT else "remove the file, and publish its run again or train it"
        formats = " and ".join(map(str, READABLE))
        raise PublishedError(f"{path}: format {version}, and this FisherBench reads formats {formats}; {remedy}")
    try:
        require(header, _SCHEMA)
    except ValueError as error:
        raise PublishedError(f"{path}: no published cell: {error}; remove it and publish again") from error
    return header


def _damaged(path: Path) -> PublishedError:
    return PublishedError(f"{path}: damaged, or no published cell; restore it from git, or remove it and publish again")


def _unreadable(path: Path, error: OSError) -> PublishedError:
    return PublishedError(f"{path}: cannot be read ({error.strerror})")
