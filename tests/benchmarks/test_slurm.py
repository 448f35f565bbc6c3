"""The script that starts a SLURM, where it cannot."""

from pathlib import Path

import pytest

from benchmarks import slurm


def test_what_is_missing_is_named_and_nothing_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(slurm, "CONFIGURATION", tmp_path)
    assert slurm.main() == slurm.SKIPPED == 77
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("slurm.py: skipped, this machine lacks munged; slurmctld; slurmd; sbatch; ")
    assert f"room for a SLURM beside that of {tmp_path}" in line
