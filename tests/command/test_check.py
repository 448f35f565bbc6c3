"""Settings tried without a run, as the pipeline does before a grid."""

import json
import subprocess
import sys

from command.check import refusal
from tracking.identity import REPOSITORY


def test_what_train_py_would_refuse_is_refused_and_why() -> None:
    sound = ["algorithm=ppo", "env=inverted_pendulum", "seed=3", "run_dir=x"]
    assert refusal(sound) is None
    for override, reason in {
        "algorithm.clip=-1": "algorithm.clip=-1.0: must be above 0",
        "algorithm.clip=wide": "algorithm.clip: Value 'wide' of type 'str' could not be converted to Float",
        "+algorithm.clipp=1": "algorithm.clipp: no such setting; python train.py --help lists them all",
        "device=cuda:99": "device=cuda:99: this machine has",
        "env.name=../..": "env.name: '..' is no name for a directory",
        "env.name=a/../b": "env.name: '..' is no name for a directory",
        "env.name=/tmp": "env.name: '' is no name for a directory",
        "run_dir=''": "run_dir: is empty; name a directory",
    }.items():
        assert str(refusal([*sound, override])).startswith(reason)
    assert refusal(["algorithm=ppo", "env=gym", "env.id=CartPole-v1", "env.name='ALE/Pong-v5'"]) is None


def test_whatever_else_keeps_a_run_from_its_first_step_is_a_reason_too() -> None:
    command = [sys.executable, "-m", "command.check"]
    runs = [
        ["algorithm=ppo", "env=gym", "env.id=json:Nothing-v0"],
        ["algorithm=ppo", "env=gym", "env.id=CartPole-v1", "+env.kwargs.nothing=1"],
    ]
    done = subprocess.run(command, input=json.dumps(runs), cwd=REPOSITORY, capture_output=True, text=True, check=True)
    first, second = json.loads(done.stdout)
    assert first.startswith("env.id=json:Nothing-v0: ")
    assert "cannot be made" in second
