"""A published cell: one Parquet file with the curves of a run as its rows and all else about the run in its header.

The header is JSON in the file's key-value metadata under the key `fisherbench`, with the version of this format in it;
`fisherbench.sha256` beside it is the digest of header and rows. Reading parses both and runs nothing.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tracking.files import replacing
from tracking.tables import read_arrow

FORMAT = 2
PATH = "results/published/{suite}/cells/{env}/{variant}/seed-{seed}.parquet"
"""Of a published cell, relative to the repository's root."""

_HEADER, _DIGEST = b"fisherbench", b"fisherbench.sha256"


class PublishedError(ValueError):
    """A published cell that cannot be read; the message is one line that names the file."""


def write_published(path: Path, header: Mapping[str, Any], curves: pa.Table) -> None:
    """Write a published cell atomically; floats of the header may be NaN or infinite."""
    text = dumps({"format": FORMAT, **header})
    metadata = {_HEADER: text.encode(), _DIGEST: digest(text, curves).encode()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        replacing(path) as file,
        pq.ParquetWriter(
            file,
            curves.schema,
            compression="zstd",
            use_dictionary=False,
            write_statistics=False,
            store_schema=False,  # which would hold nothing that the file does not say anyway
        ) as writer,
    ):
        writer.write_table(curves)
        writer.add_key_value_metadata(metadata)


def read_published(path: Path) -> tuple[dict[str, Any], pa.Table]:
    """Header and curves of a published cell. PublishedError when they are damaged or of another format."""
    try:
        table = read_arrow(path)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path) from error
    header = _header(path, table.schema.metadata)
    curves = table.replace_schema_metadata(None)
    if digest(table.schema.metadata[_HEADER].decode(), curves).encode() != table.schema.metadata.get(_DIGEST):
        raise _damaged(path)
    return header, curves


def read_header(path: Path) -> dict[str, Any]:
    """The header alone, without a look at the curves or the digest. PublishedError as above."""
    try:
        with path.open("rb") as file:
            metadata = pq.read_schema(file).metadata
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path) from error
    return _header(path, metadata)


def digest(text: str, curves: pa.Table) -> str:
    """SHA-256 of a text and of names, types, nulls and bits of the curves."""
    sha = hashlib.sha256(text.encode())
    for name, column in zip(curves.column_names, curves.columns, strict=True):
        values = column.combine_chunks()
        sha.update(f"\n{name} {values.type} {values.is_null().to_pylist()}\n".encode())
        sha.update(values.fill_null(0).to_numpy().tobytes())
    return sha.hexdigest()


def dumps(value: Any) -> str:
    """Strict JSON without spaces; a float that JSON lacks becomes ``{"float": "nan"}``."""
    return json.dumps(_strict(value), allow_nan=False, separators=(",", ":"))


def loads(text: str) -> Any:
    """What `dumps` wrote."""
    return json.loads(text, object_hook=lambda pairs: float(pairs["float"]) if pairs.keys() == {"float"} else pairs)


def _strict(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return {"float": str(value)}
        case Mapping():
            return {key: _strict(entry) for key, entry in value.items()}
        case list() | tuple():
            return [_strict(entry) for entry in value]
    return value


def _header(path: Path, metadata: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    try:
        header: dict[str, Any] = loads((metadata or {})[_HEADER].decode())
        version = int(header["format"])
    except (KeyError, ValueError, TypeError) as error:
        raise _damaged(path) from error
    if version != FORMAT:
        remedy = "take a newer one" if version > FORMAT else "remove the file, and publish its run again or train it"
        raise PublishedError(f"{path}: format {version}, and this FisherBench reads format {FORMAT}; {remedy}")
    return header


def _damaged(path: Path) -> PublishedError:
    return PublishedError(f"{path}: damaged, or no published cell; restore it from git, or remove it and publish again")
