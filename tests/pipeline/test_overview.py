"""What is said before a grid trains: options, what is out of date, and what the rest will take."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipeline import forecast as module
from pipeline.cell import Contents
from pipeline.forecast import Request, forecast, request
from pipeline.options import OptionError, read_options
from pipeline.overview import overview, state_of
from pipeline.suites import Cell, Suite
from tracking.identity import REPOSITORY, CellIdentity
from tracking.manifest import git_fault, read_manifest, write_manifest, write_status
from tracking.record import files_of
from tracking.tables import Table

COSTS = """# measured somewhere
env,algorithm,steps_per_second,table_bytes_per_step,other_bytes
hopper,npg,1000,0.5,2000
hopper,ppo,500,0.5,2000
ant,ppo,250,1,1000
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for cached in (module._finished, module._table):  # a process reads each once
        cached.cache_clear()
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "costs.csv").write_text(COSTS)
    return tmp_path


def cell(env: str, variant: str, seed: int = 0, algorithm: str | None = None, device: str = "") -> Cell:
    conf = "atari" if env.startswith("atari_") else env
    overrides = (
        f"algorithm={algorithm or variant}",
        f"env={conf}",
        f"seed={seed}",
        *[f"device={device}"] * bool(device),
    )
    suite = f"x@{device}" if device else "x"
    return Cell(
        env, variant, algorithm or variant, seed, overrides, f"results/{suite}/runs/{env}/{variant}/seed-{seed}"
    )


def train(root: Path, run: Cell, steps: int, seconds: float, status: str | None = "finished") -> Path:
    run_dir = root / run.run_dir
    run_dir.mkdir(parents=True)
    table = Table(run_dir / "progress.parquet")
    for i in range(1, 11):
        table.append({"env_steps": i * steps // 10, "wall_time": i * seconds / 10})
    table.flush()
    device = "cuda" if "device=cuda" in run.overrides else "cpu"
    made = identity(run)
    manifest = {"state": "running", "reason": None, "identity": {"hash": made.hash, "parts": made.parts}}
    write_manifest(run_dir, manifest | {"config": {"device": device}})
    if status is not None:
        write_status(run_dir, status, None if status == "finished" else "parameters are not finite", made.hash)
    return run_dir


def test_time_and_disk_come_from_finished_runs_of_the_kind(root: Path) -> None:
    run_dir = train(root, cell("hopper", "npg"), 100_000, 50.0)
    train(root, cell("hopper", "npg", 1), 300_000, 100.0)
    train(root, cell("hopper", "npg", 2), 1000, 1000.0, "failed")
    train(root, cell("hopper", "npg", 3), 1000, 1.0)  # too short to tell a speed
    (run_dir.parent / "seed-0.old-1234").mkdir()
    found = forecast([cell("hopper", "npg", 4)], 1_000_000, [], root)
    assert found.core_hours == pytest.approx((1_000_000 * (5e-4 + 1 / 3000) / 2 + module.AROUND) / 3600)
    sizes = {path.name: path.stat().st_size for path in run_dir.iterdir()}
    assert 5 * sizes["progress.parquet"] < found.bytes < 11 * sizes["progress.parquet"]  # mean of x 10 and x 3.3
    assert found.sources == {"2 finished runs": 1}


def test_time_comes_from_the_table_where_nothing_finished_and_from_its_slowest_row_alike(root: Path) -> None:
    cells = [cell("hopper", "npg"), cell("hopper", "fast", algorithm="npg"), cell("humanoid", "ppo")]
    hours = [forecast([one], 100_000, [], root).core_hours for one in cells]
    assert [3600 * each - module.AROUND for each in hours] == pytest.approx([100, 100, 400])
    assert forecast([cell("humanoid", "new")], 100_000, [], root).core_hours == pytest.approx(
        hours[2]
    )  # slowest of all
    total = forecast(cells, 100_000, [], root)
    assert total.core_hours == pytest.approx(sum(hours))
    assert total.bytes == 2 * 52_000 + 101_000
    assert total.sources == {"pipeline/costs.csv": 2, "the slowest in pipeline/costs.csv": 1}
    assert str(total).endswith("(2 by pipeline/costs.csv, 1 by the slowest in pipeline/costs.csv)")
    assert str(total).startswith("about 10 core-minutes and 0 MB")


def test_a_game_is_forecast_from_games_and_from_nothing_else(root: Path) -> None:
    games = [cell("atari_breakout", "npg"), cell("atari_pong", "ppo")]
    unknown = forecast(games, 100_000, [], root)
    assert (unknown.core_hours, unknown.unknown) == (0, 2)
    assert str(unknown) == "no forecast for 2 of a kind that pipeline/costs.csv lacks"
    mixed = forecast([cell("hopper", "npg"), *games], 100_000, [], root)
    assert str(mixed) == "about 2 core-minutes and 0 MB (1 by pipeline/costs.csv); " + str(unknown)
    with (root / "pipeline" / "costs.csv").open("a") as table:
        table.write("atari_pong,npg,100,1,1000\natari_pong,ppo,50,1,1000\n")
    module._table.cache_clear()
    cost = {one.env: forecast([one], 100_000, [], root) for one in games}
    assert 3600 * cost["atari_breakout"].core_hours == pytest.approx(1000 + module.AROUND)
    assert cost["atari_breakout"].sources == {"the slowest in pipeline/costs.csv": 1}
    assert 3600 * cost["atari_pong"].core_hours == pytest.approx(2000 + module.AROUND)
    assert cost["atari_pong"].sources == {"pipeline/costs.csv": 1}
    humanoid = forecast([cell("humanoid", "ppo")], 100_000, [], root)
    assert 3600 * humanoid.core_hours == pytest.approx(400 + module.AROUND)  # and MuJoCo from MuJoCo


def test_a_run_on_a_gpu_is_forecast_from_those_on_gpus_alone(root: Path) -> None:
    train(root, cell("hopper", "npg", 0), 100_000, 1000.0)
    there = cell("hopper", "npg", 1, device="cuda")
    assert forecast([there], 100_000, [], root).unknown == 1
    train(root, cell("hopper", "npg", 0, device="cuda"), 100_000, 50.0)
    module._finished.cache_clear()
    assert 3600 * forecast([there], 100_000, [], root).core_hours == pytest.approx(50 + module.AROUND)
    for here in (cell("hopper", "npg", 1), cell("hopper", "npg", 1, device="cpu")):
        assert 3600 * forecast([here], 100_000, [], root).core_hours == pytest.approx(1000 + module.AROUND)


def test_a_run_half_way_takes_half_the_time_unless_it_starts_again(root: Path) -> None:
    half = cell("hopper", "npg")
    train(root, half, 50_000, 60.0, status=None)
    assert 3600 * forecast([half], 100_000, [], root).core_hours == pytest.approx(50 + module.AROUND)
    assert 3600 * forecast([half], 100_000, [half], root).core_hours == pytest.approx(100 + module.AROUND)


def test_a_job_asks_for_twice_the_forecast_and_for_the_memory_of_its_kind(root: Path) -> None:
    assert request(cell("hopper", "npg"), 1_000_000, root) == Request(34, 1850)
    assert request(cell("hopper", "npg"), 1000, root).minutes == 10
    assert request(cell("hopper", "npg", device="cuda"), 1000, root) == Request(24 * 60, 7850)  # nothing is known
    assert request(cell("atari_pong", "npg"), 1000, root).megabytes == 4400
    train(root, cell("hopper", "npg"), 100_000, 1000.0)
    module._finished.cache_clear()
    assert request(cell("hopper", "npg", 1), 1_000_000, root).minutes == 334


def test_a_damaged_table_is_no_reason_to_stop(root: Path) -> None:
    run_dir = train(root, cell("hopper", "npg"), 100_000, 50.0)
    (run_dir / "progress.parquet").write_bytes(b"PAR1 damaged")
    assert forecast([cell("hopper", "npg", 1)], 100_000, [], root).sources == {"pipeline/costs.csv": 1}


def test_the_committed_table_covers_the_quick_suite() -> None:
    table = module._table(REPOSITORY)
    algorithms = ("acktr", "adam_pg", "npg", "ppo", "trpo")
    assert table.keys() >= {(e, a) for e in ("halfcheetah", "hopper", "inverted_double_pendulum") for a in algorithms}
    assert all(1e-5 < cost.seconds_per_step < 1e-2 for cost in table.values())


def identity(one: Cell, **parts: Any) -> CellIdentity:
    """A stand-in for what a cell is made of, with other parts where they are given."""
    made = {
        "config": {"seed": one.seed, "clip": 0.2},
        "code": {"training/loop.py": "1a"},
        "versions": {},
        "device": "cpu",
    }
    return CellIdentity(made | parts)


@pytest.fixture
def today(monkeypatch: pytest.MonkeyPatch) -> dict[Cell, CellIdentity]:
    """What cells are made of today, where it is not what `identity` says."""
    edited: dict[Cell, CellIdentity] = {}
    monkeypatch.setattr(Contents, "identity", lambda self, one: edited.get(one) or identity(one))
    monkeypatch.setattr(Contents, "files", lambda self, cells: set())
    monkeypatch.setattr("pipeline.overview.git_fault", lambda root: "")
    return edited


def suite_of(cells: list[Cell]) -> Suite:
    return Suite("x", "npg", 0.02, 100_000, tuple(cells), {}, {})


def say(root: Path, cells: list[Cell], retry: bool = False) -> list[str]:
    contents = Contents(root)
    state = state_of(cells, contents)
    return overview(suite_of(cells), state, contents, retried=state.failed if retry else [])


def test_what_is_out_of_date_is_said_in_words_and_counted_by_variant(
    root: Path, today: dict[Cell, CellIdentity]
) -> None:
    cells = [cell(env, variant) for env in ("hopper", "ant") for variant in ("npg", "ppo")]
    for one in cells:
        train(root, one, 1000, 1.0)
    assert say(root, cells) == ["4 cells, 4 done"]
    today[cells[0]] = today[cells[2]] = identity(cells[0], code={"training/loop.py": "3c"})
    today[cells[3]] = identity(cells[3], config={"seed": 0, "clip": 0.3}, versions={"torch": "2.14"})
    first, second = say(root, cells)
    assert first.startswith("4 cells, 1 done, 3 to train: about ")
    assert second == (
        "3 out of date: training/loop.py changed (2 of npg); clip 0.2 -> 0.3 (1 of ppo); torch new (1 of ppo)"
    )


def test_the_run_itself_decides_whether_it_is_done(root: Path, today: dict[Cell, CellIdentity]) -> None:
    """A status of another run, none, a damaged one, and one without the manifest behind it."""
    cells = [cell("hopper", "npg", seed) for seed in range(4)]
    for one in (cells[0], cells[2], cells[3]):
        train(root, one, 1000, 1.0)
    write_status(root / cells[0].run_dir, "finished", None, "0" * 64)
    (root / cells[2].run_dir / "status.json").write_text("{")
    write_status(root / cells[3].run_dir, "failed", "killed by signal 9", "0" * 64)
    (root / cells[3].run_dir / "manifest.json").unlink()
    state = state_of(cells, Contents(root))
    assert state.new == [cells[1], cells[2]]
    assert state.changed == {
        cells[0]: ["its status.json is of another run"], cells[3]: ["its run left no manifest"]
    }  # fmt: skip


def test_many_changes_are_counted(root: Path, today: dict[Cell, CellIdentity]) -> None:
    one = cell("hopper", "npg")
    train(root, one, 1000, 1.0)
    today[one] = identity(one, config={f"x{i}": 1 for i in range(7)})
    line = say(root, [one])[1]
    assert line.count(" new ") == 4
    assert line.endswith("; 3 more changes")


def test_failed_cells_are_done_until_they_are_tried_again(root: Path, today: dict[Cell, CellIdentity]) -> None:
    cells = [cell("hopper", "npg"), cell("hopper", "ppo")]
    train(root, cells[0], 1000, 1.0)
    train(root, cells[1], 1000, 1.0, "failed")
    assert say(root, cells) == ["2 cells, 2 done (1 failed, which --config retry_failed=true tries again)"]
    assert say(root, cells, retry=True)[0].startswith("2 cells, 1 done, 1 to train (1 failed before): about")


def test_uncommitted_changes_are_named_where_they_concern_the_cells(
    root: Path, today: dict[Cell, CellIdentity], monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True)

    for file in ("training/loop.py", "README.md"):
        (root / file).parent.mkdir(exist_ok=True)
        (root / file).write_text("one\n")
    git("init")
    git("add", "training", "README.md")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-m", "one")
    monkeypatch.setattr(Contents, "files", lambda self, cells: {"training/loop.py"})
    (root / "README.md").write_text("two\n")
    (root / "training" / ".loop.py.swp").write_text("an editor's")
    assert len(say(root, [cell("hopper", "npg")])) == 1
    (root / "training/loop.py").write_text("two\n")
    assert say(root, [cell("hopper", "npg")])[0] == (
        "what is trained now cannot be published: uncommitted changes in training/loop.py; commit first if it shall be"
    )


@pytest.mark.parametrize(
    ("git", "reason"),
    [
        (None, "fatal: not a git repository"),
        (
            "#!/bin/sh\necho \"fatal: detected dubious ownership in repository at '$PWD'\" >&2\nexit 128\n",
            "dubious owner",
        ),
        ("#!/bin/sh\necho /elsewhere\necho 0123\n", "its files are those of another repository, /elsewhere"),
        ("", "git cannot be run"),
    ],
    ids=["none", "of another owner", "inside another", "no git"],
)
def test_the_first_line_says_why_git_knows_no_commit(
    root: Path, today: dict[Cell, CellIdentity], monkeypatch: pytest.MonkeyPatch, git: str | None, reason: str
) -> None:
    if git is not None:
        (root / "bin").mkdir()
        monkeypatch.setenv("PATH", str(root / "bin"))
    if git:
        (root / "bin" / "git").write_text(git)
        (root / "bin" / "git").chmod(0o755)
    monkeypatch.setattr("pipeline.overview.git_fault", git_fault)
    first = say(root, [cell("hopper", "npg")])[0]
    assert first.startswith("what is trained now cannot be published, since it comes from no commit: ")
    assert reason in first
    assert "\n" not in first
    train(root, cell("hopper", "npg"), 1000, 1.0)
    assert say(root, [cell("hopper", "npg")]) == ["1 cells, 1 done"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"retry_fail": True},
            "--config retry_fail: unknown; did you mean retry_failed? there are: n, retry_failed, x",
        ),
        ({"retry_failed": "maybe"}, "--config retry_failed=maybe: give true or false"),
        ({"retry_failed": 1}, "--config retry_failed=1: give true or false"),
        ({"n": "few"}, "--config n=few: give a whole number"),
        ({"n": True}, "--config n=True: give a whole number"),
        ({"x": None}, "--config x=: give a name"),
        ({"x": 1.1}, "--config x=1.1: give a name, with quotes around it"),  # of a file, as 1.10 stands there
    ],
)
def test_a_bad_option_is_refused_in_one_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as refusal:
        read_options(given, {"x": "quick", "retry_failed": False, "n": 3})
    assert str(refusal.value) == message


def test_options_have_their_defaults_and_the_types_of_these() -> None:
    defaults = {"x": "quick", "retry_failed": False, "n": 3}
    assert [read_options({"retry_failed": text}, defaults)["retry_failed"] for text in ("true", "True", "false")] == [
        True,
        True,
        False,
    ]
    assert read_options({}, defaults) == defaults
    assert read_options({"x": "5", "retry_failed": True, "n": 4}, defaults) == {"x": "5", "retry_failed": True, "n": 4}


def test_a_name_is_what_was_written_and_not_what_snakemake_made_of_it() -> None:
    for value, written in ((1.1, "1.10"), (7, "007"), (True, "True"), ({"a": "b"}, "a: b"), (1e3, "1e3")):
        assert read_options({"x": value}, {"x": "quick"}, [f"x={written}"]) == {"x": written}


def test_a_damaged_run_is_not_done(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Contents, "identity", lambda self, cell: identity(cell))
    sound, cut, odd = (cell("hopper", "npg", seed) for seed in range(3))
    for run in (sound, cut, odd):
        run_dir = train(root, run, 100_000, 50.0)
        Table(run_dir / "evaluation.parquet", {"mode": str}).flush()
        manifest = read_manifest(run_dir)
        assert manifest is not None
        write_manifest(run_dir, manifest | {"state": "finished", "files": files_of(run_dir)})
    (root / cut.run_dir / "progress.parquet").unlink()
    (root / odd.run_dir / "manifest.json").write_text("[]")
    state = state_of([sound, cut, odd], Contents(root))
    assert state.done == [sound]
    assert state.changed == {
        cut: ["damaged, progress.parquet: missing"],
        odd: [f"{root / odd.run_dir}/manifest.json holds no JSON object"],
    }
