"""Run directories that others wrote, changed or damaged: named, never believed, never a reason to end."""

import json
import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.tracking.test_run import finished, names, open_run, row, warnings
from tracking.files import write_json
from tracking.manifest import read_manifest, read_status
from tracking.record import damage, load_run
from tracking.run import IdentityMismatch
from tracking.tables import Table, read_arrow


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    finished(tmp_path / "run")
    return tmp_path / "run"


def change(path: Path, **entries: Any) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({name: entry for name, entry in (content | entries).items() if entry is not ...}))


def cut(path: Path, rows: int) -> None:
    pq.write_table(pq.read_table(path).slice(0, rows), path)


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << (bit % 8)
    path.write_bytes(content)


def in_place(path: Path, make: Callable[[Path], None]) -> None:
    path.unlink()
    make(path)


PROGRESS, EVALUATION, CHECKPOINT, MANIFEST = "progress.parquet", "evaluation.parquet", "checkpoint", "manifest.json"
DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no progress": (lambda run: (run / PROGRESS).unlink(), "progress.parquet: missing"),
    "no evaluation": (lambda run: (run / EVALUATION).unlink(), "evaluation.parquet: missing"),
    "no episodes": (lambda run: (run / "episodes.parquet").unlink(), "episodes.parquet: missing"),
    "no checkpoint": (lambda run: (run / CHECKPOINT).unlink(), "checkpoint: missing"),
    "cut rows": (lambda run: cut(run / PROGRESS, 2), "progress.parquet: .* bytes, of .* when the run ended"),
    "cut file": (lambda run: os.truncate(run / EVALUATION, 100), "evaluation.parquet: 100 bytes, of "),
    "a flipped bit": (lambda run: flip(run / PROGRESS, 2000), "progress.parquet: not what it was when the run ended"),
    "a directory": (lambda run: in_place(run / PROGRESS, os.mkdir), "progress.parquet: no file"),
    "a pipe": (lambda run: in_place(run / PROGRESS, os.mkfifo), "progress.parquet: no file"),
    "one more": (
        lambda run: pq.write_table(pq.read_table(run / EVALUATION), run / "alignment.parquet"),
        "alignment.parquet: not there when the run ended",
    ),
    "another score": (
        lambda run: change(run / MANIFEST, episode_return=300.0),
        "progress.parquet: ends with episode_return 3.0, and manifest.json says 300.0",
    ),
    "more steps": (
        lambda run: change(run / MANIFEST, env_steps=3000),
        "progress.parquet: ends with env_steps 300, and manifest.json says 3000",
    ),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_finished_run_that_is_not_what_it_says_is_damaged(run_dir: Path, case: str) -> None:
    harm, said = DAMAGES[case]
    harm(run_dir)
    record = load_run(run_dir)
    assert record.status == "damaged"
    assert record.progress is None
    assert record.reason is not None
    assert re.match(said, record.reason), record.reason


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda run: (run / PROGRESS).unlink(), "progress.parquet: missing"),
        (lambda run: (run / EVALUATION).unlink(), "evaluation.parquet: missing"),
        (lambda run: cut(run / PROGRESS, 2), "progress.parquet: ends with env_steps 200, and manifest.json says 300"),
        (lambda run: cut(run / PROGRESS, 0), "progress.parquet: no row"),
        (lambda run: os.truncate(run / PROGRESS, 50), "progress.parquet: damaged, or no such table"),
        (
            lambda run: pq.write_table(pa.table({"env_steps": [300]}), run / PROGRESS),
            "progress.parquet: damaged, or no such table (without the columns episode_return)",
        ),
        (
            lambda run: pq.write_table(pa.table({"env_steps": [300], "episode_return": ["3"]}), run / PROGRESS),
            "progress.parquet: episode_return: '3' is not a number or null",
        ),
    ],
)
def test_a_run_that_recorded_nothing_of_its_files_is_checked_as_far_as_that_goes(
    run_dir: Path, harm: Callable[[Path], Any], said: str
) -> None:
    change(run_dir / MANIFEST, files=...)
    assert load_run(run_dir).status == "finished"
    harm(run_dir)
    record = load_run(run_dir)
    assert (record.status, (record.reason or "")[: len(said)]) == ("damaged", said)


def test_every_flipped_bit_of_a_table_is_noticed(run_dir: Path) -> None:
    """Of 1,000, 366 changed what was read in silence, and 6 with the checksums of pages alone."""
    path, chance = run_dir / PROGRESS, random.Random(0)
    sound = path.read_bytes()
    for _ in range(1000):
        flip(path, chance.randrange(8 * len(sound)))
        assert load_run(run_dir).status == "damaged"
        path.write_bytes(sound)
    assert load_run(run_dir).status == "finished"


def test_a_flipped_bit_in_the_rows_of_a_run_that_goes_on_is_noticed(tmp_path: Path) -> None:
    table = Table(tmp_path / "t.parquet")
    table.append({"kl": 0.25})
    table.flush()
    sound = (tmp_path / "t.parquet").read_bytes()
    place = sound.index(b"\x00\x00\x00\x00\x00\x00\xd0\x3f")  # the first place of 0.25: that of the page
    flip(tmp_path / "t.parquet", 8 * place + 50)
    with pytest.raises(ValueError, match=r"t\.parquet: damaged"):
        read_arrow(tmp_path / "t.parquet")


def test_the_checkpoint_is_compared_byte_by_byte_only_where_that_is_asked_for(run_dir: Path) -> None:
    flip(run_dir / CHECKPOINT, 800)
    manifest = read_manifest(run_dir)
    assert manifest is not None
    assert damage(run_dir, manifest) is None
    assert str(damage(run_dir, manifest, whole=True)) == "checkpoint: not what it was when the run ended"


def train_again(run_dir: Path) -> int:
    """Go on with a run; returns after how many updates."""
    with open_run(run_dir) as run:
        assert not run.finished
        first = run.saved_updates
        assert (run.state is None) == (first == 0)
        for update in range(first + 1, 4):
            run.log(row(update))
        run.finish(3.0, 300, [{"mode": "deterministic", "episode_return": 9.0, "episode_length": 10}])
        return first


@pytest.mark.parametrize(
    ("case", "first"), [(case, 3 if case in ("no evaluation", "cut file") else 0) for case in DAMAGES]
)
def test_the_same_command_trains_a_damaged_run_again(
    run_dir: Path, caplog: pytest.LogCaptureFixture, case: str, first: int
) -> None:
    """From its checkpoint where nothing but the evaluation is damaged."""
    DAMAGES[case][0](run_dir)
    if case == "a directory":
        with pytest.raises(ValueError, match="a directory where a file belongs"):
            open_run(run_dir)
        (run_dir / PROGRESS).rmdir()
    assert train_again(run_dir) == first
    assert "a run that finished here is damaged (" in warnings(caplog)[0]
    assert load_run(run_dir).status == "finished"
    assert open_run(run_dir).finished


def test_a_flipped_bit_of_a_finished_checkpoint_starts_the_run_again(run_dir: Path) -> None:
    flip(run_dir / CHECKPOINT, 800)
    assert train_again(run_dir) == 0


def test_a_failed_run_keeps_its_word_unless_its_files_change(tmp_path: Path) -> None:
    with open_run(tmp_path) as run:
        run.log(row(1))
        run.fail("the reason")
    assert (load_run(tmp_path).status, load_run(tmp_path).reason) == ("failed", "the reason")
    cut(tmp_path / PROGRESS, 0)
    assert load_run(tmp_path).status == "damaged"


MANIFESTS: list[tuple[dict[str, Any], str]] = [
    ({"state": ...}, "state: missing"),
    ({"state": "done"}, "state: 'done' is not one of failed, finished, running"),
    ({"state": ["finished"]}, "state: "),
    ({"reason": 5}, "reason: 5 is not text or null"),
    ({"identity": ...}, "identity: missing"),
    ({"identity": None}, "identity: None is not an object"),
    ({"identity": {"hash": "a" * 64}}, "identity.parts: missing"),
    ({"identity": {"hash": "../../x", "parts": {}}}, "identity.hash: '../../x' is not text like"),
    ({"identity": {"hash": "a" * 64, "parts": {"config": 1}}}, "identity.parts.config: 1 is not an object"),
    ({"env_steps": "300"}, "env_steps: '300' is not an integer or null"),
    ({"env_steps": True}, "env_steps: True is not"),
    ({"env_steps": 2**70}, "env_steps: "),
    ({"episode_return": "high"}, "episode_return: 'high' is not a number or null"),
    ({"resumed": {}}, "resumed: "),
    ({"resumed": [{"at": 1}]}, r"resumed\[0\].at: 1 is not text"),
    ({"git": {"commit": "--force", "dirty": False}}, "git.commit: '--force' is not"),
    ({"git": {"commit": "c" * 40}}, "git.dirty: missing"),
    ({"git": "clean"}, "git: 'clean' is not an object or null"),
    ({"packages": []}, "packages: "),
    ({"packages": {"torch": 2}}, "packages.torch: 2 is not text or null"),
    ({"config": 3}, "config: 3 is not an object or null"),
    ({"threads": "1"}, "threads: '1' is not an integer or null"),
    ({"files": [1]}, "files: "),
    ({"files": {"progress.parquet": {"size": 1}}}, "files.progress.parquet.sha256: missing"),
]


@pytest.mark.parametrize(("entries", "fault"), MANIFESTS)
def test_a_manifest_of_other_kinds_names_itself(run_dir: Path, entries: dict[str, Any], fault: str) -> None:
    change(run_dir / MANIFEST, **entries)
    with pytest.raises(ValueError, match=rf"^{run_dir / MANIFEST}: {fault}"):
        load_run(run_dir)
    with pytest.raises(IdentityMismatch, match="holds a run that cannot be read") as refusal:
        open_run(run_dir)  # nothing of it is touched, and the pipeline moves it away
    assert "\n" not in str(refusal.value)
    assert {"progress.parquet", "checkpoint", "status.json"} <= names(run_dir)


def test_what_an_earlier_version_did_not_record_is_none(run_dir: Path) -> None:
    content = json.loads((run_dir / MANIFEST).read_text())
    write_json(run_dir / MANIFEST, {name: content[name] for name in ("state", "reason", "identity")})
    manifest = read_manifest(run_dir)
    assert manifest is not None
    assert (manifest["git"], manifest["files"], manifest["config"]) == (None, None, None)
    assert load_run(run_dir).status == "finished"


TEXTS = {
    "empty": b"",
    "latin-1": b'{"state": "\xe9"}',
    "deep": b'{"state": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a little deep": b'{"state": ' + b"[" * 100 + b"]" * 100 + b"}",
    "a list": b"[]",
    "null": b"null",
    "NaN": b'{"env_steps": NaN}',
    "infinite": b'{"env_steps": 1e999}',
    "large": b'{"env_steps": ' + b"9" * 400 + b"}",
    "digits": b'{"env_steps": ' + b"9" * 5000 + b"}",
    "half a pair": b'{"reason": "\\ud800"}',
}


@pytest.mark.parametrize("read", [read_manifest, read_status])
@pytest.mark.parametrize("text", TEXTS)
def test_what_is_no_json_names_itself(tmp_path: Path, read: Callable[[Path], Any], text: str) -> None:
    for name in (MANIFEST, "status.json"):
        (tmp_path / name).write_bytes(TEXTS[text])
    with pytest.raises(ValueError, match=rf"^{tmp_path}/\w+\.json") as error:
        read(tmp_path)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("name", [MANIFEST, "status.json"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_pipe_or_a_directory_in_place_of_a_file_does_not_hang(
    tmp_path: Path, make: Callable[[Path], None], name: str
) -> None:
    make(tmp_path / name)
    with pytest.raises(ValueError, match=f"{name}: not a regular file"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    "table",
    [
        pa.table({"env_steps": [[1]]}),
        pa.table({"env_steps": pa.array([1]).cast(pa.timestamp("s"))}),
        pa.table([pa.array([1]), pa.array([2])], names=["env_steps", "env_steps"]),
        pa.table({"env_steps": pa.array(["a"]).dictionary_encode()}),
        pa.table({"env_steps": pa.array([b"\xff"]).cast(pa.binary())}),
    ],
)
def test_a_table_of_other_kinds_names_itself(tmp_path: Path, table: pa.Table) -> None:
    pq.write_table(table, tmp_path / PROGRESS)
    with open_run(tmp_path / "run"):
        pass
    os.replace(tmp_path / PROGRESS, tmp_path / "run" / PROGRESS)
    with pytest.raises(ValueError, match=rf"^{tmp_path / 'run' / PROGRESS}: damaged, or no such table"):
        load_run(tmp_path / "run")


def test_text_that_is_no_text_names_its_table(tmp_path: Path) -> None:
    path = tmp_path / PROGRESS
    pq.write_table(pa.table({"outcome": ["stepped"] * 3}), path, use_dictionary=False, compression="none")
    path.write_bytes(path.read_bytes().replace(b"stepped", b"\xff\xfftepped"[:7]))
    with pytest.raises(ValueError, match=rf"^{path}: damaged"):
        read_arrow(path)


def test_a_table_that_claims_too_much_takes_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / PROGRESS
    pq.write_table(pa.table({"a": [0] * 1000}), path)  # a run of equal values takes no room
    monkeypatch.setattr("tracking.tables.LARGEST", 999)
    with pytest.raises(ValueError, match="1,000 rows of 1 columns"):
        read_arrow(path)
