"""Runs on a GPU: exact resume, numbers that agree with the CPU's, too little memory. Skipped where there is none."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from pipeline.suites import find_algorithms
from tests.settings import run
from tests.test_resume import CARTPOLE, check_resumed
from tracking.compare import differences

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

PONG = ("env=atari", "env.game=pong", "diagnostics.geometry_states=64", "diagnostics.max_iterations=10")
"""With its own networks, whose sizes decide which kernels run."""
DETERMINED = ("kl", "fisher_trace", "entropy", "gradient_norm", "step_norm", "critic_loss", "explained_variance")


@pytest.mark.parametrize("name", find_algorithms())
def test_every_algorithm_goes_on_bit_for_bit(tmp_path: Path, name: str) -> None:
    check_resumed(tmp_path, f"algorithm={name}", *PONG, "device=cuda")


def test_a_run_on_vectors_goes_on_bit_for_bit(tmp_path: Path) -> None:
    check_resumed(tmp_path, "algorithm=trpo", *CARTPOLE, "device=cuda")


def test_a_run_goes_on_bit_for_bit_with_other_processes_beside_the_gpu(tmp_path: Path) -> None:
    settings = ("algorithm=ppo", *PONG, "device=cuda", "total_steps=768")
    assert run(tmp_path / "parts", *settings, "workers=2", "stop_after=320") == 0
    assert run(tmp_path / "parts", *settings, "workers=3") == 0
    assert run(tmp_path / "whole", *settings) == 0
    assert differences(tmp_path / "whole", tmp_path / "parts") == []


@pytest.mark.parametrize("name", find_algorithms())
def test_the_first_update_is_that_of_the_cpu_up_to_rounding(tmp_path: Path, name: str) -> None:
    """Later ones need not be: games amplify rounding."""
    rows: dict[str, dict[str, Any]] = {}
    for device in ("cpu", "cuda"):
        settings = (f"algorithm={name}", *PONG, "total_steps=256", "evaluation.episodes=0", f"device={device}")
        assert run(tmp_path / device, *settings) == 0
        [rows[device]] = pq.read_table(tmp_path / device / "progress.parquet").to_pylist()
    for column in DETERMINED:
        assert rows["cuda"][column] == pytest.approx(rows["cpu"][column], rel=1e-2), column
    assert json.loads((tmp_path / "cuda" / "manifest.json").read_text())["gpu"] == torch.cuda.get_device_name()


@pytest.fixture
def little_memory() -> Iterator[None]:
    """A tenth of a GB of the GPU for this process, which is less than a batch takes."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e8 / torch.cuda.get_device_properties(0).total_memory)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.usefixtures("little_memory")
def test_a_gpu_out_of_memory_names_what_to_lower(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "algorithm=ppo", *PONG, "algorithm.batch_size=4096", "total_steps=4096", "device=cuda") == 5
    message = capsys.readouterr().err.splitlines()[-1]
    assert "out of memory" in message
    assert "run fewer processes on this GPU, or lower one of network.states_per_pass (256), " in message
    assert "algorithm.batch_size (4096)" in message
    assert json.loads((tmp_path / "status.json").read_text())["status"] == "failed"
