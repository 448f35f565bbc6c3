import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.suite_file import SuiteError
from pipeline.suites import Suite, find_algorithms, load_suite, load_suites

ROOT = Path(__file__).resolve().parents[2]

GOOD = {
    "envs": ["halfcheetah", {"cartpole": ["env=gym", "env.id=CartPole-v1"]}],
    "algorithms": "all",
    "seeds": 2,
    "total_steps": 4096,
    "overrides": ["evaluation.episodes=2"],
    "variants": {"trpo_wide": ["algorithm=trpo", "algorithm.delta=0.1"]},
}


def load(root: Path, **changes: Any) -> Suite:
    """Load GOOD with some keys changed; a key set to None is left out."""
    settings = {key: value for key, value in (GOOD | changes).items() if value is not None}
    return load_text(root, yaml.safe_dump(settings))


def load_text(root: Path, text: str) -> Suite:
    (root / "conf" / "suite" / "tried.yaml").write_text(text)
    return load_suite("tried", root)


def test_a_suite_unrolls_into_every_cell_once(repository: Path) -> None:
    suite = load(repository)
    grid = [(cell.env, cell.variant, cell.algorithm, cell.seed) for cell in suite.cells]
    assert grid == [
        (env, variant, algorithm, seed)
        for env in ("halfcheetah", "cartpole")
        for variant, algorithm in (("adam_pg", "adam_pg"), ("trpo", "trpo"), ("trpo_wide", "trpo"))
        for seed in (0, 1)
    ]
    assert suite.cells[-1].run_dir == "results/tried/runs/cartpole/trpo_wide/seed-1"
    assert suite.cells[-1].overrides == (
        "algorithm=trpo",
        "env=gym",
        "seed=1",
        "total_steps=4096",
        "evaluation.episodes=2",
        "env.id=CartPole-v1",
        "algorithm.delta=0.1",
    )
    assert (suite.baseline, suite.delta_ref, suite.total_steps) == ("adam_pg", 0.02, 4096)


def test_a_suite_on_a_gpu_is_the_same_grid_with_results_of_its_own(repository: Path) -> None:
    here, there = load(repository), load_suite("tried@cuda", repository)
    assert (there.name, there.baseline, there.total_steps) == ("tried@cuda", here.baseline, here.total_steps)
    for cell, twin in zip(here.cells, there.cells, strict=True):
        assert sorted(twin.overrides) == sorted([*cell.overrides, "device=cuda"])
        assert twin.run_dir == cell.run_dir.replace("results/tried/", "results/tried@cuda/")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tride@cuda", "suite tride@cuda: unknown; did you mean tried?"),
        ("tried@gpu", "suite tried@gpu: unknown device 'gpu'; tried@cuda trains tried on a GPU"),
        ("tried@", "suite tried@: unknown device ''; tried@cuda trains tried on a GPU"),
    ],
)
def test_a_device_that_there_is_not_is_refused(repository: Path, name: str, message: str) -> None:
    load(repository)
    with pytest.raises(SuiteError, match=re.escape(message)):
        load_suite(name, repository)


def test_algorithms_are_those_with_both_files(repository: Path) -> None:
    assert find_algorithms(repository) == ["adam_pg", "trpo"]


def test_a_new_algorithm_joins_every_suite_that_says_all(repository: Path) -> None:
    (repository / "algorithms" / "new.py").touch()
    (repository / "conf" / "algorithm" / "new.yaml").touch()
    assert {cell.variant for cell in load(repository).cells} == {"adam_pg", "new", "trpo", "trpo_wide"}


def test_listed_algorithms_and_seeds_are_taken_as_they_are(repository: Path) -> None:
    suite = load(repository, algorithms=["trpo"], variants=None, baseline="trpo", seeds=[7, 3])
    assert [(cell.variant, cell.seed) for cell in suite.cells][:2] == [("trpo", 7), ("trpo", 3)]


def test_variants_alone_make_a_suite(repository: Path) -> None:
    suite = load(repository, algorithms=None, baseline="trpo_wide")
    assert {cell.variant for cell in suite.cells} == {"trpo_wide"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"envs": []}, "envs: no environment is listed"),
        ({"envs": None}, "envs: no environment is listed"),
        ({"envs": "hopper"}, "envs: 'hopper' is not a list"),
        ({"envs": ["hoper"]}, "envs: unknown environment 'hoper'; did you mean hopper?"),
        ({"envs": ["hopper", "hopper"]}, "envs: hopper is listed twice"),
        ({"envs": [{"x": ["env.id=A"]}]}, "envs: x: no `env=` in its overrides"),
        ({"envs": [{"x": ["env=gym", "env=hopper"]}]}, "envs: x: 2 `env=` in its overrides"),
        ({"envs": [{"x": "env=gym"}]}, "envs: x: 'env=gym' is not a list of overrides"),
        ({"envs": [{"a/b": ["env=gym"]}]}, "envs: 'a/b' is no name for a directory"),
        ({"envs": [["hopper"]]}, r"envs: \['hopper'\] is no name for a directory"),
        ({"algorithms": None, "variants": None}, "algorithms: no algorithm or variant is listed"),
        ({"algorithms": [], "variants": {}}, "algorithms: no algorithm or variant is listed"),
        ({"algorithms": "trpo"}, "algorithms: 'trpo' is neither `all` nor a list"),
        ({"algorithms": ["tropo"]}, "algorithms: unknown algorithm 'tropo'.*did you mean trpo?"),
        ({"algorithms": ["half"]}, "algorithms: unknown algorithm 'half'.*algorithms/half.py"),
        ({"algorithms": ["trpo", "trpo"]}, "algorithms: trpo names two variants"),
        ({"variants": {"trpo": ["algorithm=trpo"]}}, "variants: trpo names two variants"),
        ({"variants": {"x": ["delta=0.1"]}}, "variants: x: no `algorithm=` in its overrides"),
        ({"variants": {"x": ["algorithm=np"]}}, "variants: unknown algorithm 'np'"),
        ({"variants": {"x": ["algorithm=trpo", "seed=3"]}}, "variants: x: seed=3: the suite sets `seed`"),
        ({"variants": {"x": ["algorithm=trpo", "env=gym"]}}, "variants: x: env=gym: the suite sets `env`"),
        ({"variants": ["trpo"]}, r"variants: \['trpo'\] is not a mapping"),
        ({"variants": {"../x": ["algorithm=trpo"]}}, "variants: '../x' is no name for a directory"),
        ({"seeds": 0}, "seeds: no seed is listed"),
        ({"seeds": []}, "seeds: no seed is listed"),
        ({"seeds": None}, "seeds: no seed is listed"),
        ({"seeds": -2}, "seeds: -2 is neither a positive integer nor a list"),
        ({"seeds": [0, -1]}, "seeds: -1 is negative"),
        ({"seeds": [0, 3, 3]}, "seeds: 3 is listed twice; list every seed once"),
        ({"seeds": [0.5]}, r"seeds: \[0.5\] is neither"),
        ({"seeds": True}, "seeds: True is neither"),
        ({"total_steps": None}, "total_steps: None is not a positive integer"),
        ({"total_steps": 0}, "total_steps: 0 is not a positive integer"),
        ({"total_steps": -1}, "total_steps: -1 is not a positive integer"),
        ({"total_steps": "1e6"}, "total_steps: '1e6' is not a positive integer"),
        ({"total_steps": True}, "total_steps: True is not a positive integer"),
        ({"delta_ref": 0}, "delta_ref: 0 is not a positive number"),
        ({"delta_ref": float("nan")}, "delta_ref: nan is not a positive number"),
        ({"delta_ref": "small"}, "delta_ref: 'small' is not a positive number"),
        ({"baseline": "adam"}, "baseline: no variant 'adam' in this suite; did you mean adam_pg?"),
        ({"baseline": ["trpo"]}, r"baseline: no variant \['trpo'\]"),
        ({"overrides": ["total_steps=3"]}, "overrides: total_steps=3: the suite sets `total_steps`"),
        ({"overrides": ["run_dir=x"]}, "overrides: run_dir=x: the suite sets `run_dir`"),
        ({"overrides": ["evaluation"]}, "overrides: 'evaluation' is not an override of the form key=value"),
        ({"overrides": [{"a": 1}]}, "overrides: {'a': 1} is not an override"),
        ({"overrides": "a=1"}, "overrides: 'a=1' is not a list"),
        ({"steps": 3}, "steps: unknown key; .*total_steps"),
    ],
)
def test_a_bad_suite_is_refused_in_one_line_that_names_the_setting(
    repository: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SuiteError, match=f"^suite tried: {message}") as refusal:
        load(repository, **changes)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("# only a comment\n", "is empty"),
        ("- hopper\n", "holds no mapping"),
        ("seeds: [1\n", "line 2 of .*tried.yaml: not valid YAML"),
        ("seeds: 2\nseeds: 3\n", "seeds is listed twice"),
        ("variants:\n  a: [algorithm=trpo]\n  a: [algorithm=npg]\n", "variants: a is listed twice"),
        ("envs:\n - {x: [env=gym], x: [env=gym]}\n", "envs: x is listed twice"),
        ("? [a, b]\n: 1\n", "not valid YAML"),
        ("a: \x07\n", "not valid YAML"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(repository: Path, text: str, message: str) -> None:
    with pytest.raises(SuiteError, match=message) as refusal:
        load_text(repository, text)
    assert "\n" not in str(refusal.value)


def test_an_unknown_suite_offers_those_there_are(repository: Path) -> None:
    (repository / "conf" / "suite" / "quick.yaml").touch()
    with pytest.raises(SuiteError, match=r"^suite quikc: unknown; did you mean quick\?"):
        load_suite("quikc", repository)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../suite/quick", "is no name for a directory; use letters and digits"),
        ("my suite", "is no name for a directory"),
        ("größe", "is no name for a directory"),
        ("$(touch x)", "is no name for a directory"),
        ("-quick", "is no name for a directory"),
        (".hidden", "is no name for a directory"),
        ("x" * 101, "more than 100 characters"),
        *(
            (name, "has a meaning of its own in results/; choose another name")
            for name in ("adhoc", "published", "logs")
        ),
    ],
)
@pytest.mark.parametrize("place", ["file", "listed", "envs", "variants"])
def test_names_are_checked_in_one_way_wherever_they_stand(
    repository: Path, name: str, message: str, place: str
) -> None:
    def attempt() -> None:
        if place == "file":
            if "/" not in name:
                (repository / "conf" / "suite" / f"{name}.yaml").write_text(yaml.safe_dump(GOOD))
            load_suites(name, repository)
        elif place == "listed":
            (repository / "conf" / "suite" / "all.yaml").write_text(yaml.safe_dump({"suites": [name]}))
            load_suites("all", repository)
        elif place == "envs":
            load(repository, envs=[{name: ["env=gym"]}])
        else:
            load(repository, variants={name: ["algorithm=trpo"]})

    with pytest.raises(SuiteError, match=message) as refusal:
        attempt()
    assert "\n" not in str(refusal.value)


def test_names_are_the_text_that_they_are(repository: Path) -> None:
    """YAML alone would make of them 0.01, 8, 1.1, false and a date."""
    text = """
        envs: [{1.10: [env=gym]}, {no: [env=gym]}]
        variants: {0.01: [algorithm=trpo], 010: [algorithm=trpo], 2026-12-01: [algorithm=trpo]}
        baseline: 0.01
        seeds: 1
        total_steps: 4096
    """
    suite = load_text(repository, text)
    assert {cell.env for cell in suite.cells} == {"1.10", "no"}
    assert {cell.variant for cell in suite.cells} == {"0.01", "010", "2026-12-01"}
    assert suite.baseline == "0.01"
    for name in ("1.10", "1.1", "007"):
        (repository / "conf" / "suite" / f"{name}.yaml").write_text(text)
    (repository / "conf" / "suite" / "all.yaml").write_text("suites: [1.10, 1.1, 007]")
    assert [suite.name for suite in load_suites("all", repository)] == ["1.10", "1.1", "007"]


@pytest.mark.parametrize("hidden", ["._ppo", ".#trpo", "#trpo#"])
def test_hidden_and_editors_files_are_no_suites_environments_or_algorithms(repository: Path, hidden: str) -> None:
    for path in ("conf/algorithm/{}.yaml", "conf/env/{}.yaml", "conf/suite/{}.yaml", "algorithms/{}.py"):
        (repository / path.format(hidden)).write_bytes(b"\x00\xff")
    (repository / "algorithms" / ".#trpo.py").unlink(missing_ok=True)
    (repository / "algorithms" / ".#trpo.py").symlink_to("somebody@somewhere.1234")  # as Emacs does
    assert find_algorithms(repository) == ["adam_pg", "trpo"]
    assert {cell.variant for cell in load(repository).cells} == {"adam_pg", "trpo", "trpo_wide"}
    with pytest.raises(SuiteError, match=r"\(there are: gym, halfcheetah, hopper\)"):
        load(repository, envs=["hoppe"])
    with pytest.raises(SuiteError, match=r"^suite none: unknown; there are: tried$"):
        load_suite("none", repository)


@pytest.mark.parametrize(
    "override",
    [
        "hydra.run.dir=/tmp",
        "+hydra.callbacks.x._target_=os.system",
        "++hydra.job.chdir=true",
        "hydra/launcher=joblib",
        "+env@hydra.callbacks.x=gym",
    ],
)
def test_a_suite_does_not_set_how_hydra_runs(repository: Path, override: str) -> None:
    with pytest.raises(SuiteError, match="how Hydra itself runs is not for a suite to set"):
        load(repository, overrides=[override])
    with pytest.raises(SuiteError, match="not an override of the form key=value"):
        load(repository, overrides=[f"~{override.lstrip('+')}"])


def test_a_suite_asks_nothing_of_the_machine_and_may_refer_to_settings(repository: Path) -> None:
    for value in ("${oc.env:HOME}", "x-${now:%Y}"):
        with pytest.raises(SuiteError, match="a suite asks nothing of the machine it runs on"):
            load(repository, overrides=[f"env.id={value}"])
    assert load(repository, overrides=["evaluation.episodes=${seed}"]).cells[0].overrides[-1].endswith("=${seed}")


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB + "envs: *a11\n", "above 100,000 entries, aliases written out"),
        ("envs: &a [*a]\n", "an alias refers to what it is part of"),
        ("envs: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("# " + "x" * 1_000_001, "larger than 1,000,000 bytes"),
        ("envs: [größe]\n".encode("latin-1"), "tried.yaml: not UTF-8 \\(byte 9\\); save it as UTF-8"),
        (yaml.safe_dump(GOOD | {"seeds": 200_000}), "seeds: 200000 of them are above the limit of 20,000 cells"),
        (yaml.safe_dump(GOOD | {"seeds": 20_000}), "are 120,000 cells, above the limit of 20,000"),
        (yaml.safe_dump(GOOD | {"seeds": [2**63]}), "is too large; seeds go up to"),
        (yaml.safe_dump(GOOD).replace("4096", "1" + "0" * 30), "is not a positive integer"),
        (yaml.safe_dump(GOOD).replace("4096", "1" + "0" * 5000), "not valid YAML"),
        (yaml.safe_dump(GOOD | {"baseline": "x" * 10_000}), "no variant 'x+"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 60 else "file",
)
def test_sizes_are_bounded_in_one_line(repository: Path, text: str | bytes, message: str) -> None:
    path = repository / "conf" / "suite" / "tried.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SuiteError, match=message) as refusal:
        load_suite("tried", repository)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 500


def test_aliases_are_what_they_stand_for(repository: Path) -> None:
    text = "envs: [hopper]\nvariants: {a: &a [algorithm=trpo, x=1], b: *a}\nbaseline: a\nseeds: 1\ntotal_steps: 4096\n"
    assert [cell.overrides[-1] for cell in load_text(repository, text).cells] == ["x=1", "x=1"]


def test_suite_json_holds_what_the_analysis_needs(repository: Path) -> None:
    load(repository)
    command = [sys.executable, "-m", "pipeline.suites", "tried"]
    printed = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout
    described = json.loads(printed)
    assert {key: described[key] for key in described.keys() - {"cells"}} == {
        "suite": "tried",
        "exceptions": {},
        "baseline": "adam_pg",
        "delta_ref": 0.02,
        "total_steps": 4096,
    }
    assert described["cells"][0] == {
        "env": "halfcheetah",
        "variant": "adam_pg",
        "algorithm": "adam_pg",
        "seed": 0,
        "run_dir": "results/tried/runs/halfcheetah/adam_pg/seed-0",
    }
    assert len(described["cells"]) == 12


def test_settings_of_one_task_alone_are_exceptions_that_tables_name(repository: Path) -> None:
    envs = [{"cart": ["env=gym", "env.id=CartPole-v1", "algorithm.delta=1", "+env.kwargs.x=1"]}, "halfcheetah"]
    suite = load(repository, envs=envs)
    assert suite.exceptions == {"cart": ("algorithm.delta=1",)}
    assert suite.describe()["exceptions"] == {"cart": ["algorithm.delta=1"]}


def test_no_suite_is_read_with_torch(repository: Path) -> None:
    load(repository)
    code = "import sys, pipeline.suites as s; s.load_suite('tried'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "conf" / "suite").glob("*.yaml")))
def test_the_suites_of_this_repository_are_sound(name: str) -> None:
    cells = [cell for suite in load_suites(name) for cell in suite.cells]
    assert len({cell.run_dir for cell in cells}) == len(cells)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("suites: []", "suite all: suites: must be a list and the only key"),
        ("suites: tried\n", "suite all: suites: must be a list and the only key"),
        ("suites: [tried]\nseeds: 3", "suite all: suites: must be a list and the only key"),
        ("suites: [tried, tried]", "suite all: suites: tried is listed twice"),
        ("suites: [tired]", "suite tired: unknown; did you mean tried?"),
        ("suites: [all]", "suite all: made of other suites; name one of all"),
    ],
)
def test_a_suite_of_suites_that_cannot_be_is_refused(repository: Path, text: str, message: str) -> None:
    load(repository)
    (repository / "conf" / "suite" / "all.yaml").write_text(text)
    with pytest.raises(SuiteError, match=re.escape(message)):
        load_suites("all", repository)


def test_a_suite_of_suites_stands_for_them_on_a_gpu_too(repository: Path) -> None:
    load(repository)
    (repository / "conf" / "suite" / "all.yaml").write_text("suites: [tried]")
    assert load_suites("all", repository) == (load_suite("tried", repository),) == load_suites("tried", repository)
    assert [suite.name for suite in load_suites("all@cuda", repository)] == ["tried@cuda"]


def test_the_sizes_of_the_published_suites() -> None:
    algorithms = len(find_algorithms())
    assert algorithms >= 4
    assert len(load_suite("quick").cells) == 3 * algorithms * 2
    assert len(load_suite("mujoco").cells) == 9 * algorithms * 10
    assert {cell.env for cell in load_suite("smoke").cells} == {"inverted_pendulum", "cartpole"}
    assert len(load_suite("atari-1m").cells) == 2 * algorithms * 3
    assert len(load_suite("atari").cells) == 7 * algorithms * 5


@pytest.mark.parametrize(("name", "steps"), [("atari-1m", 1_000_000), ("atari", 10_000_000)])
def test_games_of_a_suite_have_their_names_in_paths(name: str, steps: int) -> None:
    suite = load_suite(name)
    assert (suite.total_steps, suite.baseline, suite.exceptions) == (steps, "adam_pg", {})
    for cell in suite.cells:
        game = cell.env.removeprefix("atari_")
        assert {"env=atari", f"env.game={game}"} <= set(cell.overrides)
        assert cell.run_dir == f"results/{name}/runs/atari_{game}/{cell.variant}/seed-{cell.seed}"


def test_the_labels_of_algorithms_and_variants_are_in_the_plan(repository: Path) -> None:
    """A variant without a label of its own keeps its name, since its algorithm's is that of another."""
    (repository / "conf" / "algorithm" / "trpo.yaml").write_text("name: trpo\nlabel: TRPO\n")
    named = ["algorithm=trpo", "algorithm.label='TRPO, wide'"]
    variants = {"trpo_b": ["algorithm=trpo"], "trpo_c": named}
    suite = load(repository, algorithms=["trpo"], variants=variants, baseline="trpo")
    assert suite.describe()["labels"] == {"trpo": "TRPO", "trpo_c": "TRPO, wide"}
