"""Settings as the command line would compose them, and runs made from them."""

from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import DictConfig

from command.cli import start
from command.interrupt import Interrupt
from settings import RunConfig, typed

CONF = Path(__file__).resolve().parents[1] / "conf"


def compose_raw(*overrides: str) -> DictConfig:
    """What Hydra makes of `python train.py *overrides`."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra_compose("config", list(overrides))


def compose(*overrides: str) -> RunConfig:
    """Typed settings of `python train.py *overrides`."""
    return typed(compose_raw(*overrides))


SMALL = (
    "total_steps=768", "algorithm.batch_size=256", "rollout.warmup_steps=64", "critic.epochs=2",
    "diagnostics.interval=1", "diagnostics.heldout_states=128", "evaluation.episodes=1", "evaluation.max_steps=50",
)  # fmt: skip
# Of two environments only, since opening a game is slow.
PONG = (
    "env=atari", "env.game=pong", "rollout.num_envs=2", "network.convolutions=[[4,8,8]]", "network.hidden=[16]",
    "network.states_per_pass=100", "diagnostics.geometry_states=32", "diagnostics.max_iterations=10",
    "diagnostics.heldout_states=null",
)  # fmt: skip


def run(run_dir: Path, *overrides: str) -> int:
    """The exit code of a small run: 256 steps per update unless the overrides say otherwise."""
    return start(compose_raw(f"run_dir={run_dir}", *SMALL, *overrides), Interrupt())
