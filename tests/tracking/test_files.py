"""Files are replaced as a whole, and nothing is written through what stands in their place."""

import os
from pathlib import Path

import pytest

from tests.tracking.test_run import finished, names, open_run, row
from tracking import lock
from tracking.files import open_regular, parse_json, write_json
from tracking.manifest import write_status


def test_a_new_file_has_the_rights_that_the_umask_gives(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_json(tmp_path / "x.json", {})
    finally:
        os.umask(before)
    assert (tmp_path / "x.json").stat().st_mode & 0o777 == 0o640


def test_nothing_is_written_through_links(tmp_path: Path) -> None:
    """Links under the names that files, their temporary ones and their predecessors have or once had."""
    mine, run_dir = tmp_path / "mine", tmp_path / "run"
    mine.write_text("mine")
    run_dir.mkdir()
    for name in ("manifest.json", "status.json", "progress.parquet", "episodes.parquet", "checkpoint"):
        for suffix in (".tmp", ".previous", *[""] * (name != "manifest.json")):
            (run_dir / f"{name}{suffix}").symlink_to(mine)
    with open_run(run_dir) as run:
        run.log(row(1))
        run.flush({"n": 1})
        run.finish(1.0, 100, [])
    write_status(run_dir, "finished")
    assert mine.read_text() == "mine"
    assert not any((run_dir / name).is_symlink() for name in ("status.json", "progress.parquet", "checkpoint"))


@pytest.mark.parametrize("target", ["mine", "nothing"])
def test_a_lock_that_is_a_link_is_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "mine").write_text("mine")
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "lock").symlink_to(tmp_path / target)
    with pytest.raises(ValueError, match=r"lock: a symbolic link, through which nothing is written; remove it$"):
        open_run(run_dir)
    assert not lock.is_locked(run_dir)
    assert names(tmp_path) == {"mine", "run"}
    assert names(run_dir) == {"lock"}


def test_a_lock_that_is_a_pipe_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lock")
    assert not lock.is_locked(tmp_path)
    with pytest.raises(ValueError, match="lock: not a regular file"):
        open_run(tmp_path)


def test_temporary_files_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    finished(tmp_path)
    (tmp_path / "checkpoint.0123456789abcdef.tmp").write_bytes(b"half")
    (tmp_path / "evaluation.parquet").unlink()  # so that it goes on
    open_run(tmp_path).__exit__(None, None, None)
    assert not list(tmp_path.glob("*.tmp"))


def test_a_regular_file_is_opened_through_a_link_to_be_read_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    with open_regular(tmp_path / "link") as file:
        assert file.read() == b"mine"
    with pytest.raises(ValueError, match="a symbolic link"):
        open_regular(tmp_path / "link", os.O_RDWR | os.O_APPEND)


def test_json_that_is_as_deep_as_settings_are_is_read() -> None:
    assert parse_json(b"[" * 40 + b'"\xc3\xa9"' + b"]" * 40)
