"""The table of what steps of the MuJoCo tasks cost: all nine, the same states for all, and refusals."""

import sys

import pytest

from benchmarks import environments
from benchmarks.environments import HEADER, configured, row, tasks
from envs.mujoco_tasks import TASKS


def test_all_tasks_that_are_stepped_together_are_measured() -> None:
    assert {configured(name).setting for name in tasks()} == {f"env.id={task_id}" for task_id in TASKS}


def test_a_row_has_the_three_rates_and_ratios_of_the_same_steps_across_ends_of_episodes() -> None:
    cells = row("hopper", num_envs=2, seconds=0.1, repeats=1)
    assert len(cells) == len(HEADER)
    theirs, ours, alone = (float(cell.replace(",", "")) for cell in cells[1:4])
    assert float(cells[4].split()[0]) == pytest.approx(ours / theirs, abs=0.01)
    assert float(cells[5].split()[0]) == pytest.approx(ours / alone, abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "pong"], "--only pong: unknown; choose from ant, halfcheetah"),
        (["--seconds", "0"], "--seconds 0.0: must be above 0"),
        (["--num-envs", "0"], "--num-envs 0: must be above 0"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["environments.py", *arguments])
    with pytest.raises(ValueError, match=message):
        environments.main()
