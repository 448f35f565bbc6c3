"""Settings as the command line would compose them."""

from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_dir

from settings import RunConfig, typed

CONF = Path(__file__).resolve().parents[1] / "conf"


def compose(*overrides: str) -> RunConfig:
    """Typed settings of `python train.py *overrides`."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return typed(hydra_compose("config", list(overrides)))
