from pathlib import Path

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir

from pipeline import fingerprint as module
from pipeline.fingerprint import fingerprint, made_from
from pipeline.suites import Cell
from tests.settings import compose
from tracking.identity import REPOSITORY, source_files
from train import training_modules

OVERRIDES = ("algorithm=trpo", "env=hopper", "seed=0", "total_steps=4096")
CELL = Cell("hopper", "trpo", "trpo", 0, OVERRIDES, "results/x")


@pytest.fixture(autouse=True)
def _of_a_new_process() -> None:
    forget()


def forget() -> None:
    for cached in (
        module._made_from,
        module._read,
        module._leaves,
        module._package,
        module._identified,
    ):  # a process reads each file once
        cached.cache_clear()


@pytest.mark.parametrize(
    ("file", "line", "changed"),
    [
        ("algorithms/trpo.py", "step = 2", "algorithms/trpo.py"),
        ("train.py", "step = 2", "train.py"),
        ("algorithms/critic_plain.py", "step = 2", "algorithms/critic_plain.py"),
        ("algorithms/fisher/plain.py", "step = 2", "algorithms/fisher/plain.py"),  # trpo.yaml names no direction
        ("conf/algorithm/trpo.yaml", "clip: 0.2", "conf/algorithm/trpo.yaml clip"),
        ("conf/env/hopper.yaml", "kwargs: {speed: 0.9}", "conf/env/hopper.yaml kwargs.speed"),
        ("conf/config.yaml", "rollout: {num_envs: 8}", "conf/config.yaml rollout.num_envs"),
        ("conf/config.yaml", "device: cuda", "conf/config.yaml device"),
        ("conf/critic/plain.yaml", "epochs: 2", "conf/critic/plain.yaml epochs"),
        ("conf/fisher/plain.yaml", "rank: 2", "conf/fisher/plain.yaml rank"),
        ("conf/config.yaml", "total_steps: 5", None),  # the cell says another
        ("conf/config.yaml", "checkpoint: {interval: 5}", None),
        ("algorithms/fisher/metrics/kfac.py", "step = 2", None),
        ("algorithms/critics/kfac.py", "step = 2", None),
        ("conf/critic/kfac.yaml", "epochs: 2", None),
        ("algorithms/trpo.py", "# a comment", None),
        ("conf/algorithm/trpo.yaml", "# a comment", None),
        ("algorithms/adam_pg.py", "step = 2", None),
        ("conf/algorithm/adam_pg.yaml", "clip: 0.2", None),
        ("conf/env/halfcheetah.yaml", "gamma: 0.9", None),
        ("conf/suite/quick.yaml", "seeds: 3", None),
        ("pipeline/run_cell.py", "step = 2", None),
        ("tracking/files.py", "step = 2", None),
        ("Snakefile", "# a comment", None),
    ],
)
def test_what_makes_a_finished_cell_out_of_date_has_its_name(
    repository: Path, file: str, line: str, changed: str | None
) -> None:
    before, fingerprint_before = made_from(CELL, repository), fingerprint(CELL, repository)
    with (repository / file).open("a") as text:
        text.write(f"\n{line}\n")
    forget()
    now = made_from(CELL, repository)
    assert {name for name, _ in before.items() ^ now.items()} == ({changed} if changed else set())
    assert (fingerprint(CELL, repository) != fingerprint_before) == (changed is not None)


@pytest.mark.parametrize(
    ("defaults", "overrides", "critics"),
    [
        ("[_self_]", [], {"plain"}),
        ("[_self_, {override /critic@_global_.critic: kfac}]", [], {"kfac"}),
        ("[_self_, {override /critic@_global_.critic: kfac}]", ["critic=plain"], {"plain"}),
        ("[/base/of_all@_here_, _self_]", [], {"kfac"}),  # inherited from a file that overrides it
        ("[_self_, {/critic@second: kfac}]", [], {"kfac", "plain"}),
        ("[_self_, {override /critic@_global_.critic: '${name}'}]", [], {"kfac", "plain"}),  # cannot be told: any
        ("[_self_]", ["+critic@second=kfac"], {"kfac", "plain"}),
        ("[_self_]", ["critic=other"], {"kfac", "plain"}),
        ("[_self_]", ["critic.name=kfac"], {"plain"}),
    ],
)
def test_a_defaults_list_and_overrides_choose_the_files_of_conf(
    repository: Path, defaults: str, overrides: list[str], critics: set[str]
) -> None:
    (repository / "conf" / "base").mkdir()
    (repository / "conf" / "base" / "of_all.yaml").write_text("defaults: [{override /critic@_global_.critic: kfac}]\n")
    (repository / "conf" / "algorithm" / "trpo.yaml").write_text(f"defaults: {defaults}\nname: trpo\n")
    made = made_from(Cell("hopper", "trpo", "trpo", 0, (*OVERRIDES, *overrides), "results/x"), repository)
    assert {name.split(".")[0].removeprefix("conf/critic/") for name in made if "conf/critic/" in name} == critics


def differences(repository: Path, cell: Cell, file: str, text: str) -> set[str]:
    """The names that differ in what a cell is made from once a file has that text."""
    forget()
    before = made_from(cell, repository)
    (repository / file).parent.mkdir(exist_ok=True)
    (repository / file).write_text(text)
    forget()
    return {name for name, _ in before.items() ^ made_from(cell, repository).items()}


ATARI = Cell("atari_pong", "wide", "trpo", 0, ("algorithm=trpo", "env=gym", "env.id=Pong", "clip=1"), "results/x")


@pytest.mark.parametrize(("cell", "choices"), [(CELL, "hopper_trpo"), (ATARI, "gym_trpo")])
def test_settings_of_one_algorithm_on_one_environment_are_of_its_cells_alone(
    repository: Path, cell: Cell, choices: str
) -> None:
    file = f"conf/env_algorithm/{choices}.yaml"
    new = differences(repository, cell, file, "# @package _global_\nalgorithm: {clip: 0.2}\n")
    assert new == {f"{file} algorithm.clip", f"{file} @package"}
    edited = differences(repository, cell, file, "# @package _global_\nalgorithm: {clip: 0.3}\n")
    assert edited == {f"{file} algorithm.clip"}
    for other in ("hopper", "hopper_adam_pg", "halfcheetah_trpo", "atari_pong_trpo", "gym_wide"):
        assert not differences(repository, cell, f"conf/env_algorithm/{other}.yaml", "algorithm: {clip: 0.2}\n")


@pytest.mark.parametrize(
    ("overrides", "name", "files"),
    [
        ([], "${env}_${algorithm}", {"hopper_trpo"}),
        (["env_algorithm=any"], "${env}_${algorithm}", {"any"}),
        (["env_algorithm=none"], "${env}_${algorithm}", set()),  # optional, so that Hydra leaves it out
        (["+env_algorithm@second=any"], "${env}_${algorithm}", {"any", "hopper_trpo"}),
        (["env='${x}'"], "${env}_${algorithm}", {"any", "hopper_trpo"}),  # cannot be told: any
        ([], "${surely}_${algorithm}", {"any", "hopper_trpo"}),
        ([], "${env}", set()),
    ],
)
def test_a_choice_made_of_other_choices_takes_one_file_if_it_can_be_told(
    repository: Path, overrides: list[str], name: str, files: set[str]
) -> None:
    config = repository / "conf" / "config.yaml"
    config.write_text(config.read_text().replace("${env}_${algorithm}", name))
    for made in ("any", "hopper_trpo"):
        differences(repository, CELL, f"conf/env_algorithm/{made}.yaml", "# @package _global_\nclip: 0.2\n")
    given = Cell("hopper", "trpo", "trpo", 0, (*OVERRIDES, *overrides), "results/x")
    found = {name for name in made_from(given, repository) if name.endswith(" clip")}
    assert found == {f"conf/env_algorithm/{file}.yaml clip" for file in files}


@pytest.mark.parametrize(
    ("text", "critics"),
    [
        ("# @package _global_\ncritic: {name: kfac}\n", {"kfac", "plain"}),  # the file of the group says plain
        ("\n# @package critic\nname: kfac\n", {"kfac", "plain"}),
        ("critic: {name: kfac}\n", {"plain"}),  # a setting of its own group
        ("# a comment\n# @package _global_\ncritic: {name: kfac}\n", {"plain"}),  # no header of Hydra any more
        ("# @package _global_\ncritic: {epochs: 3}\n", {"plain"}),
    ],
)
def test_code_is_chosen_by_files_that_set_what_belongs_to_other_groups(
    repository: Path, text: str, critics: set[str]
) -> None:
    differences(repository, CELL, "conf/env_algorithm/hopper_trpo.yaml", text)
    sources = {name for name in made_from(CELL, repository) if name.startswith("algorithms/critic_")}
    assert sources == {f"algorithms/critics/{name}.py" for name in critics}


def test_the_package_of_a_file_counts_and_its_shapeless_settings_do_not(repository: Path) -> None:
    file = "conf/env/hopper.yaml"
    settings = "checkpoint: {interval: 5}\nenv: {id: null}\n"
    new = differences(repository, CELL, file, f"# @package _global_\n{settings}")
    assert new == {f"{file} @package", f"{file} env.id", f"{file} id"}
    assert not differences(repository, CELL, file, f"# @package _global_\n{settings}".replace("5", "6"))
    assert f"{file} @package" in differences(repository, CELL, file, settings)


@pytest.mark.parametrize(
    ("kind", "kinds"), [("", {"gym"}), ("kind: other\n", {"other"}), ("kind: lost\n", {"gym", "other"})]
)
def test_a_cell_is_made_from_the_code_of_its_kind_of_environment(repository: Path, kind: str, kinds: set[str]) -> None:
    (repository / "envs").mkdir()
    for name in ("gym", "other"):
        (repository / "envs" / f"{name}.py").touch()
    (repository / "conf" / "env" / "other.yaml").touch()
    differences(repository, CELL, "conf/env/hopper.yaml", f"id: null\n{kind}")
    sources = {name for name in made_from(CELL, repository) if name.startswith("envs/")}
    assert sources == {f"envs/{name}.py" for name in kinds}


@pytest.mark.parametrize("algorithm", sorted(path.stem for path in (REPOSITORY / "conf" / "algorithm").glob("*.yaml")))
@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["critic=kfac"],
        ["critic=adam", "checkpoint.interval=5"],
        ["env=gym", "env.id=CartPole-v1"],
        ["env=atari", "env.game=pong"],
        ["direction=natural", "step_rule=kl", "fisher=lowrank"],
        ["direction=natural", "step_rule=lr", "fisher=mc", "fisher.preconditioner=ekfac"],
        ["direction=gradient", "step_rule=lr"],
    ],
)
def test_a_cell_is_made_from_no_less_than_hydra_composes_and_its_identity_covers(
    algorithm: str, overrides: list[str]
) -> None:
    if algorithm in ("ppo", "acktr") and any(override.startswith("direction") for override in overrides):
        pytest.skip("no pair of direction and step rule")
    env = [] if any(override.startswith("env=") for override in overrides) else ["env=hopper"]
    given = [f"algorithm={algorithm}", *env, *overrides]
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        choices = hydra_compose("config", given, return_hydra_config=True).hydra.runtime.choices
    made = made_from(Cell("hopper", algorithm, algorithm, 0, tuple(given), "results/x"))
    sources = {name for name in made if name.endswith(".py")}
    needed = source_files(training_modules(compose(*given)))
    assert needed <= sources
    assert sources <= needed | {"algorithms/fisher/metrics/exact.py"}  # and little more
    groups = {
        name.split(" ")[0].removeprefix("conf/").removesuffix(".yaml") for name in made if name.startswith("conf/")
    }
    chosen = {f"{g.partition('@')[0]}/{name}" for g, name in choices.items() if name}
    chosen = {choice for choice in chosen if not choice.startswith(("hydra/", "tracker/"))}
    chosen = {choice for choice in chosen if (REPOSITORY / "conf" / f"{choice}.yaml").is_file()}  # optional ones
    assert {group for group in groups if group not in ("config", "pair/defaults")} == chosen
    assert ("pair/defaults" in groups) == (algorithm in ("adam_pg", "npg", "trpo"))
