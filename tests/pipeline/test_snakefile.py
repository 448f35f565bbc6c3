"""The Snakefile under a real Snakemake, in a small repository with a stand-in for train.py (conftest.py)."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

SNAKEMAKE = str(Path(sys.executable).with_name("snakemake"))
SUITE = """
envs: [halfcheetah, {other: [env=gym, 'env.id="It''s-v1"']}]
algorithms: [adam_pg]
variants:
  broken: [algorithm=trpo, mode=fail]
  refused: [algorithm=trpo, mode=refuse_late]
  unlucky: [algorithm=trpo, mode=finish_second]
seeds: 1
total_steps: 4096
"""


class Grid:
    """The suite `tiny-1k` of a repository, and what Snakemake makes of it."""

    def __init__(self, repository: Path) -> None:
        self.repository = repository
        self.results = repository / "results" / "tiny-1k"
        self.suite = repository / "conf" / "suite" / "tiny-1k.yaml"
        self.suite.write_text(SUITE)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [SNAKEMAKE, "--config", "suite=tiny-1k", *arguments],
            cwd=self.repository,
            stderr=subprocess.STDOUT,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
            start_new_session=True,
        )

    def run(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """Exit code and what Snakemake said."""
        process = self.start(*arguments, **environment)
        said, _ = process.communicate(timeout=60)
        return process.returncode, said

    def complete(self, *arguments: str, **environment: str) -> str:
        code, said = self.run(*arguments, **environment)
        assert code == 0, said
        return said

    def attempts(self) -> dict[str, int]:
        """How often each cell was trained, by environment/variant."""
        return {
            "/".join(path.parts[-4:-2]): path.stat().st_size
            for path in sorted((self.results / "runs").glob("*/*/seed-0/attempts"))
        }

    def moved_away(self) -> list[str]:
        """The cells whose earlier run gave way to another, by environment/variant."""
        return ["/".join(path.parts[-3:-1]) for path in sorted((self.results / "runs").glob("*/*/seed-0.old-*"))]

    @property
    def index(self) -> str:
        return (self.results / "tables" / "index.md").read_text()


@pytest.fixture
def grid(repository: Path) -> Grid:
    return Grid(repository)


def test_a_bare_command_completes_a_grid_with_failing_cells(grid: Grid) -> None:
    said = grid.complete()
    assert said.count("suite tiny-1k: 8 cells, 0 done, 8 to train: about ") == 1
    for env in ("halfcheetah", "other"):
        assert f"{env} adam_pg 0 finished None" in grid.index
        assert f"{env} unlucky 0 finished None" in grid.index
        assert f"{env} broken 0 failed parameters are not finite" in grid.index
        assert f"{env} refused 0 failed refused: total_steps: 5 is too few" in grid.index
    assert (grid.results / "figures" / ".complete").exists()
    log = (grid.results / "runs" / "other" / "refused" / "seed-0" / "train.log").read_text()
    assert log.count("total_steps: 5 is too few") == 1  # it would be refused again
    assert """'env.id="It'"'"'s-v1"'""" in log  # an override reaches the run as it stands in the suite


def test_only_what_is_out_of_date_is_done_again(grid: Grid) -> None:
    grid.complete()
    attempts = grid.attempts()
    assert attempts == {
        f"{env}/{variant}": count
        for env in ("halfcheetah", "other")
        for variant, count in (("adam_pg", 1), ("broken", 1), ("unlucky", 2))
    }
    index = grid.results / "tables" / "index.md"

    index.write_text("untouched")
    snakefile = grid.repository / "Snakefile"
    reworded = snakefile.read_text().replace("-m pipeline.run_cell", "-m  pipeline.run_cell")
    snakefile.write_text(f"{reworded}\n# a comment\n")
    assert "Nothing to be done" in grid.complete()

    analysis = grid.repository / "analysis" / "__main__.py"
    analysis.write_text(analysis.read_text() + "print('more')\n")
    grid.complete()
    assert index.read_text() != "untouched"
    assert grid.attempts() == attempts

    grid.suite.write_text(SUITE.replace("[algorithm=trpo, mode=fail]", "[algorithm=trpo, mode=finish]"))
    said = grid.complete()
    assert (
        "suite tiny-1k: 8 cells, 6 done (2 failed, which --config retry_failed=true tries again), 2 to train: " in said
    )
    assert "suite tiny-1k: 2 out of date: " in said
    assert grid.attempts() == attempts  # another run, in a directory of its own
    assert grid.moved_away() == ["halfcheetah/broken", "other/broken"]
    assert "halfcheetah broken 0 finished None" in index.read_text()

    algorithm = grid.repository / "algorithms" / "adam_pg.py"
    algorithm.write_text(algorithm.read_text() + "learning_rate = 1\n")
    grid.complete()
    assert grid.attempts() == attempts
    assert grid.moved_away() == ["halfcheetah/adam_pg", "halfcheetah/broken", "other/adam_pg", "other/broken"]


def test_failed_cells_are_tried_again_when_asked_for_and_never_otherwise(grid: Grid) -> None:
    grid.suite.write_text(
        "envs: [halfcheetah, hopper]\nvariants: {good: [algorithm=trpo], bad: [algorithm=trpo, mode=fail_first]}\n"
        "baseline: good\nseeds: 1\ntotal_steps: 4096\n"
    )
    grid.complete()
    once = dict.fromkeys(("halfcheetah/bad", "halfcheetah/good", "hopper/bad", "hopper/good"), 1)
    assert grid.attempts() == once
    assert grid.index.count("failed parameters are not finite") == 2
    assert "Nothing to be done" in grid.complete()

    said = grid.complete("retry_failed=true", "-n", "--quiet", "host")
    assert "suite tiny-1k: 4 cells, 2 done, 2 to train (2 failed before): about" in said
    assert said.count("reason: Forced execution") == 2
    assert grid.attempts() == once

    grid.complete("retry_failed=true")
    assert grid.attempts() == once | {"halfcheetah/bad": 2, "hopper/bad": 2}
    assert grid.index.count("finished None") == 4
    for arguments in ([], ["retry_failed=true"]):
        said = grid.complete(*arguments)
        assert "suite tiny-1k: 4 cells, 4 done\n" in said
        assert "Nothing to be done" in said


def test_cells_join_and_leave_with_the_suite(grid: Grid) -> None:
    grid.suite.write_text("envs: [hopper]\nalgorithms: all\nseeds: 1\ntotal_steps: 4096\n")
    assert "Provided cores: 1 " in grid.complete("--cores", "1")  # wins over the profile
    assert grid.index.splitlines() == ["hopper adam_pg 0 finished None", "hopper trpo 0 finished None"]
    grid.suite.write_text("envs: [hopper]\nalgorithms: [adam_pg]\nseeds: 2\ntotal_steps: 4096\n")
    grid.complete()
    assert grid.index.splitlines() == ["hopper adam_pg 0 finished None", "hopper adam_pg 1 finished None"]
    assert grid.attempts() == {"hopper/adam_pg": 1, "hopper/trpo": 1}


def slow(grid: Grid) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """Start a grid of two cells that are slow at first; returns once both train."""
    grid.suite.write_text(
        "envs: [halfcheetah, hopper]\nvariants: {slow: [algorithm=trpo, mode=slow_first]}\nbaseline: slow\n"
        "seeds: 1\ntotal_steps: 4096\n"
    )
    pipeline = grid.start("--cores", "2")
    end = time.monotonic() + 60
    while len(pids := [p for p in grid.results.glob("runs/*/*/*/pid") if p.read_text()]) < 2:
        assert time.monotonic() < end, "the cells do not start"
        time.sleep(0.05)
    return pipeline, [psutil.Process(int(pid.read_text())) for pid in pids]


def wait_for_end(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert not alive


@pytest.mark.parametrize("how", ["killed", "interrupted"])
def test_after_any_end_of_the_pipeline_the_same_command_goes_on(grid: Grid, how: str) -> None:
    pipeline, training = slow(grid)
    wrappers = [wrapper for run in training if (wrapper := run.parent()) is not None]
    if how == "killed":
        pipeline.kill()
    else:
        os.killpg(pipeline.pid, signal.SIGINT)  # Ctrl-C reaches the whole process group
    pipeline.communicate(timeout=30)
    assert pipeline.returncode != 0
    wait_for_end([*training, *wrappers])
    assert not list(grid.results.glob("runs/*/*/*/status.json"))
    assert len(list(grid.results.glob("runs/*/*/*/checkpoint"))) == 2

    grid.complete("--cores", "2")
    assert grid.attempts() == {"halfcheetah/slow": 2, "hopper/slow": 2}
    assert grid.index.count("finished") == 2


def test_a_killed_wrapper_is_tried_again_within_the_same_command(grid: Grid) -> None:
    pipeline, training = slow(grid)
    for run in training:
        wrapper = run.parent()
        assert wrapper is not None
        wrapper.kill()
    wait_for_end(training)
    said, _ = pipeline.communicate(timeout=60)
    assert pipeline.returncode == 0, said
    assert grid.attempts() == {"halfcheetah/slow": 2, "hopper/slow": 2}
    assert grid.index.count("finished") == 2


@pytest.mark.parametrize(
    ("arguments", "text", "message"),
    [
        (["suite=tiny-1k", "retry_failed=maybe"], SUITE, "--config retry_failed=maybe: give true or false"),
        (["suite=tiny-1k", "sead=3"], SUITE, "--config sead: unknown; .*there are: .*retry_failed.* suite"),
        (["suite=none"], SUITE, "suite none: unknown; there are: tiny-1k"),
        (["suite=tiny-1k"], "", "suite tiny-1k: .*tiny-1k.yaml is empty"),
        (["suite=tiny-1k"], SUITE.replace("seeds: 1", "seeds: [1, 1]"), "suite tiny-1k: seeds: 1 is listed twice"),
        (["suite=tiny-1k"], SUITE + "seeds: 2\n", "suite tiny-1k: seeds is listed twice"),
        ([], SUITE, "suite full: unknown; there are: tiny-1k"),
    ],
)
def test_a_bad_suite_ends_in_one_line(grid: Grid, arguments: list[str], text: str, message: str) -> None:
    grid.suite.write_text(text)
    done = subprocess.run(
        [SNAKEMAKE, *(["--config", *arguments] if arguments else [])],
        cwd=grid.repository,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    profile, refusal = done.stderr.splitlines()
    assert profile.startswith("Using workflow specific profile")
    assert re.match(message, refusal)


def test_a_grid_with_settings_that_are_refused_ends_before_it_begins(grid: Grid) -> None:
    """Those that Hydra refuses without asking train.py, whose answer then is one for all seeds."""
    text = SUITE.replace("seeds: 1", "seeds: 3")
    for old, new, reason in (
        ("mode=fail", "modee=fail", "modee: no such setting; python train.py --help lists them all"),
        ("mode=fail", "mode=refuse", "total_steps: 5 is too few"),
    ):
        grid.suite.write_text(text.replace(old, new))
        code, said = grid.run()
        assert code == 1
        assert said.splitlines()[-1] == (
            f"suite tiny-1k: refused: broken on halfcheetah, broken on other (6 cells): {reason}"
        )
        assert not grid.results.exists()
    assert (grid.repository / "checked").read_text() == "8\n"


def test_the_cells_are_asked_what_they_are_where_snakemake_knows_nothing(grid: Grid) -> None:
    """After `make clean`, and in another clone: only what is of today counts, in runs, plan and tables."""
    grid.suite.write_text("envs: [hopper]\nalgorithms: all\nseeds: 1\ntotal_steps: 4096\n")
    grid.complete()
    index = grid.results / "tables" / "index.md"

    shutil.rmtree(grid.repository / ".snakemake")
    index.write_text("of unknown origin")
    assert "suite tiny-1k: 2 cells, 2 done\n" in grid.complete()
    assert "finished" in grid.index
    assert grid.moved_away() == []
    assert "Nothing to be done" in grid.complete()

    shutil.rmtree(grid.repository / ".snakemake")  # and the grid is another: of delta_ref alone
    grid.suite.write_text(grid.suite.read_text() + "delta_ref: 0.5\n")
    assert "suite tiny-1k: 2 cells, 2 done\n" in grid.complete()
    assert json.loads((grid.results / "suite.json").read_text())["delta_ref"] == 0.5
    assert grid.moved_away() == []

    shutil.rmtree(grid.repository / ".snakemake")
    algorithm = grid.repository / "conf" / "algorithm" / "trpo.yaml"
    algorithm.write_text(algorithm.read_text().replace("0.2", "0.01"))
    said = grid.complete()
    assert "suite tiny-1k: 1 out of date: " in said
    assert grid.moved_away() == ["hopper/trpo"]


def test_a_file_that_is_asked_for_by_name_is_of_today_too(grid: Grid) -> None:
    grid.suite.write_text("envs: [hopper]\nalgorithms: all\nseeds: 1\ntotal_steps: 4096\n")
    grid.complete()
    shutil.rmtree(grid.repository / ".snakemake")
    algorithm = grid.repository / "conf" / "algorithm" / "trpo.yaml"
    algorithm.write_text(algorithm.read_text().replace("0.2", "0.01"))
    for target in ("runs/hopper/adam_pg/seed-0/status.json", "tables/index.md"):
        command = [SNAKEMAKE, "-n", f"results/tiny-1k/{target}", "--quiet", "host", "--config", "suite=tiny-1k"]
        done = subprocess.run(command, cwd=grid.repository, capture_output=True, text=True, check=True)
        assert ("variant=trpo" in done.stderr + done.stdout) == (target == "tables/index.md")


def test_runs_of_something_else_in_the_folder_of_a_suite_are_no_results_of_it(grid: Grid) -> None:
    grid.suite.write_text("envs: [hopper]\nalgorithms: [adam_pg]\nseeds: 1\ntotal_steps: 4096\n")
    grid.complete()
    other = grid.repository / "results" / "other"
    grid.results.rename(other)
    grid.suite.rename(grid.suite.with_name("other.yaml"))
    (grid.suite.with_name("other.yaml")).write_text(
        "envs: [hopper]\nalgorithms: [adam_pg]\nseeds: 1\ntotal_steps: 8192\n"
    )
    said = grid.complete("suite=other")
    assert "suite other: 1 out of date: " in said
    assert list(other.glob("runs/hopper/adam_pg/seed-0.old-*"))


def test_a_suite_is_the_one_that_was_written(grid: Grid) -> None:
    text = "envs: [hopper]\nalgorithms: [adam_pg]\nseeds: {}\ntotal_steps: 4096\n"
    for name, seeds in (("1.1", 1), ("1.10", 2), ("007", 3)):
        grid.suite.with_name(f"{name}.yaml").write_text(text.format(seeds))
    for name, seeds in (("1.10", 2), ("007", 3)):
        assert f"suite {name}: {seeds} cells, 0 done" in grid.complete(f"suite={name}", "-n", "--quiet", "host")


def test_closing_lines_are_those_of_what_was_asked_for(grid: Grid) -> None:
    """`published` needs no suite, and neither it nor a failing `publish` says a word of tables of a grid."""
    (grid.repository / "pipeline" / "rebuild.py").write_text("import sys; print('rebuilt', sys.argv[1:])")
    (grid.repository / "pipeline" / "publish.py").write_text("import sys; sys.exit('nothing to publish')")
    for arguments, code, words in (
        (["published", "--config", "suite=gone"], 0, "rebuilt ['gone']"),
        (["published"], 0, "rebuilt []"),
        (["publish", "--config", "suite=tiny-1k"], 1, "nothing to publish"),
        (["published", "--config", "suite=../x"], 1, "suite: '../x' is no name for a directory"),
    ):
        done = subprocess.run([SNAKEMAKE, *arguments], cwd=grid.repository, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        assert words in done.stderr
        assert "tables in" not in done.stderr
        assert "the same command goes on" not in done.stderr


def test_another_directory_is_refused_in_one_line(grid: Grid, tmp_path: Path) -> None:
    code, said = grid.run("--directory", str(tmp_path))
    assert code == 1
    assert said.splitlines()[-1] == (
        f"snakemake: runs in {grid.repository} alone, where train.py and conf/ are; leave out --directory"
    )


def test_hidden_and_editors_files_are_no_code_of_the_analysis(grid: Grid) -> None:
    (grid.repository / "analysis" / ".#curves.py").symlink_to("somebody@somewhere.1234")
    (grid.repository / "analysis" / ".ipynb_checkpoints").mkdir()
    (grid.repository / "analysis" / ".ipynb_checkpoints" / "curves-checkpoint.py").touch()
    grid.suite.write_text("envs: [hopper]\nalgorithms: [adam_pg]\nseeds: 1\ntotal_steps: 4096\n")
    said = grid.complete("-n", "--quiet", "host")
    assert "rule analyse" in said
    assert "curves" not in said


def test_lint_asks_for_nothing_but_conda(grid: Grid) -> None:
    done = subprocess.run(
        [SNAKEMAKE, "--lint", "--config", "suite=tiny-1k"], cwd=grid.repository, capture_output=True, text=True
    )
    wishes = [line.strip() for line in done.stderr.splitlines() if line.startswith("    * ")]
    assert {wish.partition(":")[0] for wish in wishes} == {"* Specify a conda environment or container for each rule."}


def pretend_gpus(tmp_path: Path) -> str:
    """A PATH on which nvidia-smi lists two GPUs."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\nfor n in 0 1; do echo "GPU $n: NVIDIA H200 (UUID: GPU-$n$n$n)"; done\n')
    tool.chmod(0o755)
    return f"{tmp_path}:{os.environ['PATH']}"


def test_gpu_cells_are_handed_gpus_and_cpu_cells_train_beside_them(grid: Grid, tmp_path: Path) -> None:
    grid.suite.write_text(
        "envs: [halfcheetah, hopper]\n"
        "variants: {gpu: [algorithm=trpo, device=cuda, mode=slow], cpu: [algorithm=trpo]}\n"
        "baseline: cpu\nseeds: 2\ntotal_steps: 4096\n"
    )
    environment = {"PATH": pretend_gpus(tmp_path), "TMPDIR": str(tmp_path), "CUDA_VISIBLE_DEVICES": "0,1"}
    code, said = grid.run("gpus=2", **environment)
    assert code == 1
    assert said.splitlines()[-1] == ("--config gpus=2: there is no GPU 2; there are: 0 (GPU-000), 1 (GPU-111)")
    assert not (grid.results / "runs").exists()

    said = grid.complete("gpus=0,1", "runs_per_gpu=1", "--cores", "8", **environment)
    assert "4 cells on GPUs GPU-000, GPU-111, 1 at most on each" in said
    logs = {path: path.read_text() for path in grid.results.glob("runs/*/*/*/train.log")}
    handed = [match[1] for log in logs.values() if (match := re.search(r"attempt 1 of 3 on (GPU-\d+): ", log))]
    assert sorted(handed) == ["GPU-000", "GPU-000", "GPU-111", "GPU-111"]
    assert not any(" on GPU-" in log for path, log in logs.items() if path.parts[-3] == "cpu")


def test_two_clones_train_the_two_parts_of_a_grid(grid: Grid, tmp_path: Path) -> None:
    grid.suite.write_text("envs: [halfcheetah, hopper]\nalgorithms: all\nseeds: 2\ntotal_steps: 4096\n")
    index = grid.repository / "analysis" / "__main__.py"  # what is missing is no error of the real one
    index.write_text(index.read_text().replace("for cell in json", "for cell in [] and json"))
    clone = tmp_path / "another clone"
    shutil.copytree(grid.repository, clone)
    trained = []
    suite = grid.suite.read_text()
    for repository, part in ((grid.repository, "1/2"), (clone, "2/2")):
        here = Grid(repository)
        here.suite.write_text(suite)
        said = here.complete(f"part={part}")
        assert f"suite tiny-1k, part {part}: 4 cells, 0 done, 4 to train: " in said
        assert f"suite tiny-1k, part {part}: 4 cells, 4 done\n" in here.complete(f"part={part}")
        trained.append({path.relative_to(here.results) for path in here.results.glob("runs/*/*/*/status.json")})
    assert [len(part) for part in trained] == [4, 4]
    assert len(trained[0] | trained[1]) == 8
    assert {path.parts[1:3] for path in trained[0]} == {path.parts[1:3] for path in trained[1]}  # of every kind

    code, said = grid.run("part=3/2")
    assert code == 1
    assert said.splitlines()[-1] == (
        "--config part=3/2: give K/N with K from 1 to N, such as part=2/5 for the second of five"
    )
