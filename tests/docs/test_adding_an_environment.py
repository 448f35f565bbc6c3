"""The examples of docs/adding_an_environment.md, followed to the letter in a copy of the repository."""

from pathlib import Path

import pyarrow.parquet as pq

from tests.docs.pages import copy_of_the_repository, follow

# task in paths -> environment steps at which its episodes are cut off
CUT_OFF = {"gym_Pendulum-v1": 200, "slow": 50, "pusher": 100, "chase": 50}


def test_tasks_train_without_a_file_with_one_and_from_elsewhere(tmp_path: Path) -> None:
    repository = copy_of_the_repository(tmp_path)
    commands = follow("adding_an_environment.md", repository)

    trained = {path.parent.parent.name: path for path in (repository / "results/adhoc/runs").glob("*/*/seed-0")}
    assert trained.keys() == CUT_OFF.keys() | {"atari_space_invaders", "lake"}
    env_steps = pq.read_table(trained["atari_space_invaders"] / "progress.parquet")["env_steps"].to_pylist()
    assert env_steps == [4096 + 1024]  # the warm-up counts
    for task, length in CUT_OFF.items():
        episodes = pq.read_table(trained[task] / "episodes.parquet")
        assert set(episodes["episode_length"].to_pylist()) == {length}, task
    assert any("results/arms/runs/pusher/trpo/seed-1" in printed for _, printed in commands)
