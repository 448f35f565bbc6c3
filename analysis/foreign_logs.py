"""Learning curves in the files of other tools: Stable-Baselines3, TensorBoard (as CleanRL writes it) and W&B exports.

Every reader gives for a run its rows (environment steps, return). Files are read as data: nothing of them is unpickled
or run.
"""

import csv
import json
import struct
from collections.abc import Iterator
from pathlib import Path

Rows = list[tuple[int, float]]

TAGS = ("charts/episodic_return", "rollout/ep_rew_mean")
"""Scalars that are the return of an episode, or the mean over some: of CleanRL and of Stable-Baselines3."""
STEPS = ("global_step", "Step")
"""Columns of steps in a W&B export; the first one that it has."""
ENDS = ("__MIN", "__MAX")
"""Of further columns that a W&B export has beside a run's."""
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
"""Wire types of a protocol buffer."""


def read_runs(path: Path, tag: str = "") -> list[Rows]:
    """The runs in a file, or the one run that the files in a folder are of.

    Args:
        path: a ``monitor.csv`` of Stable-Baselines3, an event file of TensorBoard or an export of W&B.
        tag: the scalar that is the return, of event files and W&B exports; empty: one of `TAGS`.

    Raises:
        ValueError: one line that names the file, what is wrong with it and what would be right.
    """
    if path.is_dir():
        monitors = sorted(path.glob("*monitor.csv"))
        if monitors:
            return [_joined([_monitor(file) for file in monitors])]
        if events := sorted(path.glob("*tfevents*")):
            return [sorted(row for file in events for row in _events(file, tag))]
        raise ValueError(f"{path}: has neither *monitor.csv nor *tfevents* files")
    if not path.is_file():
        raise ValueError(f"{path}: no such file or folder")
    if "tfevents" in path.name:
        return [_events(path, tag)]
    with path.open("rb") as file:
        begins = file.read(1)
    return [_joined([_monitor(path)])] if begins == b"#" else _wandb(path, tag)


def _joined(episodes: list[list[tuple[float, int, float]]]) -> Rows:
    """The episodes of environments that are stepped together, by the time of their ends; steps counted over all."""
    rows, total = [], 0
    for _, length, score in sorted(episode for one in episodes for episode in one):
        total += length
        rows.append((total, score))
    return rows


def _monitor(path: Path) -> list[tuple[float, int, float]]:
    """Time, length and return of the episodes in a ``monitor.csv``: a line of JSON after #, then r,l,t."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        json.loads(lines[0].removeprefix("#"))
        table = csv.DictReader(lines[1:])
        if not {"r", "l", "t"} <= set(table.fieldnames or ()):
            raise ValueError("has no columns r, l and t")
        episodes = [(float(row["t"]), int(row["l"]), float(row["r"])) for row in table]
    except (ValueError, TypeError, IndexError, RecursionError) as error:
        raise ValueError(f"{path}: no monitor.csv of Stable-Baselines3, or a damaged one ({error})") from None
    if not episodes:
        raise ValueError(f"{path}: no episode ended")
    return episodes


def _wandb(path: Path, tag: str) -> list[Rows]:
    """The runs of a chart that W&B exported: a column of steps, and one for each run, named ``run - tag``."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file, strict=True)
            names = list(table.fieldnames or ())
            steps = next((name for name in STEPS if name in names), None)
            tags = (tag,) if tag else TAGS
            columns = [name for name in names if name.endswith(tags)]
            if steps is None or not columns:
                raise ValueError(
                    f"needs a column {' or '.join(STEPS)} and one that ends in {' or '.join(tags)} (--tag)"
                )
            runs: dict[str, Rows] = {name: [] for name in columns}
            for row in table:
                for name in columns:
                    if row[name]:
                        runs[name].append((round(float(row[steps])), float(row[name])))
    except (ValueError, TypeError, OverflowError, csv.Error) as error:
        raise ValueError(f"{path}: no export of W&B that can be read: {error}") from None
    return list(runs.values())


def _events(path: Path, tag: str) -> Rows:
    """The scalar of an event file: TFRecords with an Event each, of which step and simple values are read."""
    tags = (tag,) if tag else TAGS
    rows: Rows = []
    seen = set()
    try:
        for record in _records(path.read_bytes()):
            event = dict(_fields(record))
            step = event.get(2, 0)
            if not isinstance(step, int):
                raise ValueError("bytes where a step is due")
            for number, value in _fields(_bytes(event.get(5, b""))):
                if number != 1:
                    continue
                entry = dict(_fields(_bytes(value)))
                name = _bytes(entry.get(1, b"")).decode()
                seen.add(name)
                if name in tags and 2 in entry:
                    rows.append((step, struct.unpack("<f", _bytes(entry[2]))[0]))
    except (ValueError, struct.error, IndexError, RecursionError) as error:
        raise ValueError(f"{path}: no event file of TensorBoard, or a damaged one ({error})") from None
    if not rows:
        others = ", ".join(sorted(seen)[:10]) or "no scalar"
        raise ValueError(f"{path}: has no {' or '.join(tags)}, but {others}; --tag names the one to read")
    return rows


def _records(data: bytes) -> Iterator[bytes]:
    """The records of a TFRecord file: length and its checksum, content and its checksum."""
    at = 0
    while at < len(data):
        head = data[at : at + 12]
        if len(head) < 12:
            raise ValueError("cut off")
        length, checksum = struct.unpack("<QI", head)
        if _masked(_crc32c(head[:8])) != checksum:
            raise ValueError(f"byte {at}: a wrong checksum")
        if at + 12 + length + 4 > len(data):
            raise ValueError("cut off")
        yield data[at + 12 : at + 12 + length]
        at += 12 + length + 4


def _crc32c(data: bytes) -> int:
    """Castagnoli's checksum."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def _masked(crc: int) -> int:
    """As a TFRecord has it."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of the fields of a protocol buffer's message."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == VARINT:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if kind == LENGTH:
            size, at = _varint(message, at)
        elif kind in (FIXED32, FIXED64):
            size = 4 if kind == FIXED32 else 8
        else:
            raise ValueError(f"a field of type {kind}")
        if at + size > len(message):
            raise ValueError("a field is cut off")
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if byte < 0x80:
            return value, at
    raise ValueError("a number is too long")


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where bytes are due")
    return value
