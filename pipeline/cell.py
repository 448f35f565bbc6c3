"""What a cell is made of today: its settings as Hydra composes them, and with them its identity and its files."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from command.composition import conf_files
from command.refusals import COMPOSING, explain
from pipeline.suites import Cell
from tracking.identity import REPOSITORY, CellIdentity, code_of, identify, package_versions, starts

Overrides = tuple[str, ...]


class Refused(ValueError):
    """A cell that has no identity: Hydra refuses its settings, or a file that it is made of cannot be read."""


class Contents:
    """What cells are made of, each found out when first asked for.

    Seeds of one variant and environment share the composed settings and the hashes of the code.

    Args:
        root: the repository, whose files must stay as they are meanwhile.
    """

    def __init__(self, root: Path = REPOSITORY) -> None:
        self.root = root
        self._composed: dict[Overrides, DictConfig | Refused] = {}
        self._conf: dict[Overrides, list[str]] = {}
        self._code: dict[tuple[str, ...], dict[str, str]] = {}
        self._versions = package_versions()
        self._identities: dict[Cell, CellIdentity] = {}

    def identity(self, cell: Cell) -> CellIdentity:
        """The identity that train.py would give the cell now. Raises Refused."""
        if cell not in self._identities:
            self._identities[cell] = self._identify(cell)
        return self._identities[cell]

    def hash(self, cell: Cell) -> str:
        """The hash of the identity; why there is none, where the settings are refused."""
        try:
            return self.identity(cell).hash
        except Refused as error:
            return str(error)

    def files(self, cells: Iterable[Cell]) -> set[str]:
        """The files of code and settings that these cells are made from, relative to the repository."""
        found: set[str] = set()
        for cell in cells:
            try:
                found |= self.identity(cell).parts["code"].keys()
            except Refused:  # it is trained from nothing, and train.py says why
                continue
            found.update(self._conf_files(without_seed(cell)))
        return found

    def _identify(self, cell: Cell) -> CellIdentity:
        composed = self._compose(without_seed(cell))
        composed.seed = cell.seed
        try:
            settings = cast(dict[str, Any], OmegaConf.to_container(composed, resolve=True))
        except OmegaConfBaseException as error:
            raise Refused(explain(error, root=self.root)) from error
        try:
            places = tuple(starts(settings))
            if places not in self._code:
                self._code[places] = code_of(places, self.root)
            return identify(settings, self.root, self._code[places], self._versions)
        except SyntaxError as error:
            raise Refused(f"{error.filename}, line {error.lineno}: not valid Python: {error.msg}") from error
        except UnicodeDecodeError as error:
            raise Refused(f"code of {', '.join(places)} is not UTF-8 ({error.reason}); save it as UTF-8") from error
        except FileNotFoundError as error:
            raise Refused(f"{error.filename}: there is no such file, and the settings name it") from error
        except ValueError as error:
            raise Refused(str(error)) from error

    def _compose(self, overrides: Overrides) -> DictConfig:
        if overrides not in self._composed:
            try:
                with initialize_config_dir(str(self.root / "conf"), version_base="1.3"):
                    self._composed[overrides] = compose("config", list(overrides))
            except COMPOSING as error:
                self._composed[overrides] = Refused(explain(error, root=self.root))
        found = self._composed[overrides]
        if isinstance(found, Refused):
            raise found
        return found

    def _conf_files(self, overrides: Overrides) -> list[str]:
        if overrides not in self._conf:
            with initialize_config_dir(str(self.root / "conf"), version_base="1.3"):
                self._conf[overrides] = conf_files(overrides)
        return self._conf[overrides]


def without_seed(cell: Cell) -> Overrides:
    """The overrides that a cell shares with the other seeds of its kind."""
    return tuple(override for override in cell.overrides if not override.startswith("seed="))
