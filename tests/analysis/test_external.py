"""Curves from elsewhere: what is read, converted and refused, and where they appear."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from analysis.__main__ import analyse
from analysis.external import COLUMNS, main, read_external
from analysis.foreign_logs import _crc32c, _masked
from tests.analysis.synthetic import write_suite

HEADER = ",".join(COLUMNS) + "\n"


def test_curves_go_out_and_come_in_and_enter_no_gain(tmp_path: Path) -> None:
    suite_dir = write_suite(tmp_path, ["hopper"], ["adam_pg", "npg"], seeds=2, total_steps=60_000)
    analyse(suite_dir, 20)
    tables = suite_dir / "tables"
    curves = tables / "curves.csv"
    assert len(curves.read_text().splitlines()) == 1 + 2 * 2 * 6  # a row per run and point of the grid
    gains = (tables / "sample_efficiency.csv").read_bytes()
    other = tmp_path / "other.csv"
    other.write_text(curves.read_text().replace("npg", "sb3 <b>"))
    analyse(suite_dir, 20, external=[other])
    assert (tables / "sample_efficiency.csv").read_bytes() == gains
    assert "sb3 \\<b> (external)" in (tables / "external.md").read_text()
    page = (suite_dir / "report.html").read_text()
    assert "sb3 <b>" not in page
    assert "sb3 &lt;b&gt; (external)" in page


def test_the_score_is_the_mean_over_the_last_tenth(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text(HEADER + "".join(f"hopper,sb3,3,{step},{step}\n" for step in range(1_000, 20_001, 1_000)))
    [one] = read_external([file], ["hopper"], 30_000)
    assert (one.variant, one.seeds) == ("sb3 (external)", (3,))
    np.testing.assert_allclose(one.values[0, :2], [10_000, 19_500])
    assert np.isnan(one.values[0, 2])  # the run ended before
    assert one.finals.size == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n", "line 1: the columns are a,b, not env,variant,seed,env_steps,episode_return"),
        (HEADER, "has no row under its header"),
        (HEADER + "hopper,x,0,1,2\nhopper,x,0\n", "line 3: 3 entries, not 5; the file may be cut off"),
        (HEADER + "ant,x,0,1,2\n", "line 2: env 'ant' is not in the suite, which has hopper"),
        (HEADER + "hopper,x,-1,1,2\n", "line 2: seed '-1' is not a whole number from 0"),
        (HEADER + "hopper,x,0,1.5,2\n", "line 2: env_steps '1.5' is not a whole number from 0"),
        (HEADER + "hopper,x,0,1,nan\n", "line 2: episode_return 'nan' is not a finite number"),
        (HEADER + "hopper,,0,1,2\n", "line 2: variant '': give a name of 1 to 40 characters"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "x.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"x\.csv: ") as refused:
        read_external([file], ["hopper"], 30_000)
    assert str(refused.value) == f"{file}: {said}"


def test_a_run_in_two_files_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text(HEADER + "hopper,x,0,1,2\n")
    with pytest.raises(ValueError, match=r"b\.csv: hopper/x/seed-0 is in .*a\.csv already; give every run once"):
        read_external([tmp_path], ["hopper"], 30_000)


def convert(tmp_path: Path, *runs: Path) -> list[str]:
    out = tmp_path / "out.csv"
    assert main([str(out), *map(str, runs), "--env", "hopper", "--variant", "x"]) == 0
    return out.read_text().splitlines()[1:]


def test_monitors_of_one_run_are_joined_by_time(tmp_path: Path) -> None:
    for name, rows in (("0.monitor.csv", "5.0,10,1.0\n7.0,20,4.0\n"), ("1.monitor.csv", "6.0,15,2.0\n")):
        (tmp_path / name).write_text('#{"t_start": 0, "env_id": "Hopper-v4"}\nr,l,t\n' + rows)
    assert convert(tmp_path, tmp_path) == ["hopper,x,0,10,5.0", "hopper,x,0,25,6.0", "hopper,x,0,45,7.0"]


def test_a_chart_of_wandb_has_a_run_in_each_column(tmp_path: Path) -> None:
    file = tmp_path / "chart.csv"
    tag = "charts/episodic_return"
    file.write_text(f'"Step","a - {tag}","a - {tag}__MIN","b - {tag}"\n10,1.5,1,\n20,2.5,2,3.5\n')
    assert convert(tmp_path, file) == ["hopper,x,0,10,1.5", "hopper,x,0,20,2.5", "hopper,x,1,20,3.5"]


def field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return bytes([number << 3]) + varint(value)
    return bytes([number << 3 | 2]) + varint(len(value)) + value


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def record(step: int, tag: str, value: float) -> bytes:
    scalar = field(1, tag.encode()) + bytes([2 << 3 | 5]) + struct.pack("<f", value)
    event = bytes([1 << 3 | 1]) + struct.pack("<d", 0.0) + field(2, step) + field(5, field(1, scalar))
    length = struct.pack("<Q", len(event))
    return length + struct.pack("<I", _masked(_crc32c(length))) + event + struct.pack("<I", 0)


def test_event_files_are_read_and_damaged_ones_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _crc32c(b"123456789") == 0xE3069283  # the checksum's own test value
    file = tmp_path / "events.out.tfevents.1"
    good = record(300, "charts/episodic_return", 1.5) + record(301, "losses/value", 9.0)
    file.write_bytes(good)
    assert convert(tmp_path, file) == ["hopper,x,0,300,1.5"]
    for number, (content, said) in enumerate(
        [
            (good[:-3], "cut off"),
            (b"\0" + good[1:], "a wrong checksum"),
            (record(1, "losses/value", 1.0), "has no charts/episodic_return or rollout/ep_rew_mean, but losses/value"),
        ]
    ):
        file.write_bytes(content)
        assert main([str(tmp_path / f"{number}.csv"), str(file), "--env", "hopper", "--variant", "x"]) == 2
        said_here = capsys.readouterr().err
        assert said in said_here
        assert str(file) in said_here
        assert said_here.count("\n") == 1


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.monitor.csv").write_text(f"#{json.dumps({})}\nr,l,t\n1,2,3\n")
    (tmp_path / "out.csv").write_text("kept")
    arguments = [str(tmp_path / "out.csv"), str(tmp_path / "m.monitor.csv"), "--env", "hopper", "--variant", "x"]
    assert main(arguments) == 2
    assert (tmp_path / "out.csv").read_text() == "kept"
    assert "is there already; give another name" in capsys.readouterr().err
