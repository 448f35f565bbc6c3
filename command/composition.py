"""Which files of conf/ Hydra composes settings from."""

from collections.abc import Sequence

from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode


def conf_files(overrides: Sequence[str]) -> list[str]:
    """The files, relative to the repository, behind the settings that these overrides choose.

    Hydra's own and `conf/tracker/`, which shapes no result, are left out. Hydra has to be initialised with conf/.
    """
    loader = GlobalHydra.instance().config_loader()
    found = loader.compute_defaults_list("config", list(overrides), RunMode.RUN)
    paths = [default.config_path for default in found.defaults if default.config_path is not None]
    return [f"conf/{path.lstrip('/')}.yaml" for path in paths if not path.startswith(("hydra/", "tracker/"))]
