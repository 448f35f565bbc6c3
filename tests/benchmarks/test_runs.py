import subprocess
import sys

import pandas as pd
import pytest

from benchmarks.runs import alone, peak_memory, steps_per_second


def peak_of_a_child(megabytes: int) -> float:
    """`peak_memory` of a process whose single child takes that much."""
    subprocess.run([sys.executable, "-c", f"b'x' * {megabytes}_000_000"], check=True)
    return peak_memory()


def test_the_memory_of_a_run_is_not_that_of_the_one_before() -> None:
    large, small = alone(peak_of_a_child, 800), alone(peak_of_a_child, 1)
    assert 0.8 < large < 0.85
    assert small < 0.8


def test_the_first_updates_of_a_short_run_do_not_count() -> None:
    phases = dict.fromkeys(("rollout_time", "update_time", "critic_time", "diagnostics_time"), [9.0] * 3 + [0.25] * 2)
    assert steps_per_second(pd.DataFrame({"env_steps": [612, 712, 812, 912, 1012], **phases})) == 100.0
    with pytest.raises(ValueError, match="--steps: must make more than 3 updates, not 3"):
        steps_per_second(pd.DataFrame({"env_steps": [612, 712, 812], **{name: t[:3] for name, t in phases.items()}}))
