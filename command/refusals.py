"""What a user reads when settings are refused: one line that names the setting or the file. Needs no torch."""

import difflib
import re
import sys
from pathlib import Path

import yaml
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from command.names import is_hidden
from tracking.identity import REPOSITORY

COMPOSING = (HydraException, OmegaConfBaseException, yaml.YAMLError, UnicodeDecodeError, RecursionError)
"""What composing settings from the command line and conf/ may raise."""


def refuse(error: Exception, program: str = "train.py") -> int:
    """Say in one line what is wrong with the settings; returns the exit code."""
    print(f"{program}: {explain(error, program)}", file=sys.stderr)
    return 2


def explain(error: Exception, program: str = "train.py", root: Path = REPOSITORY) -> str:
    """One line that names the setting, what is wrong and what would be right, from whatever found it wrong."""
    text = " ".join(str(error).split())
    unknown = f"no such setting; python {program} --help lists them all"
    if isinstance(error, yaml.YAMLError | UnicodeDecodeError | RecursionError):
        return _explain_file(error, text, root)
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, name = (error.missing_cfg_file or "").rpartition("/")
        options = [option for option in error.options if not is_hidden(option)]
        near = difflib.get_close_matches(name, options, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        return f"{group}={name}: unknown; {hint}choose one of {', '.join(options)}"
    if isinstance(error, OverrideParseException):
        return _explain_override(error.override)
    if match := re.match(r"Ambiguous value for argument '(.*?)' 1\. ", text):
        return (
            f"{match[1]}: several values; -m trains them one after the other, and a list is written "
            f"{match[1].partition('=')[0]}=[...]"
        )
    if match := re.match(r"You must specify '(\w+)'.*?Available options: (.*)", text):
        options = [option for option in match[2].split() if not is_hidden(option)]
        return f"{match[1]}: must be given; choose one of {', '.join(options)}"
    if match := re.match(r"Could not override '(env\.kwargs)[.']", text):
        return f"{match[1]}: add an argument of the task with +{match[1]}.NAME=VALUE"
    if "Could not override 'env.wrappers'" in text:
        return "env.wrappers: here it is +env.wrappers=[module:Class]; env=atari takes none"
    if match := re.match(r"Could not override '([\w.@/]+)'", text):
        return f"{match[1]}: {unknown}"
    if isinstance(error, MissingMandatoryValue) or "MissingMandatoryValue" in text:
        found = re.search(r"Missing mandatory value: ([\w.]+)", text)
        return f"{found[1] if found else getattr(error, 'full_key', '?')}: must be given"
    if re.match(r"Merge error: \w+ is not a subclass of \w+", text):
        return "one value for a group of settings; set one of the group, as in network.activation=relu"
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        said = " ".join(str(error.msg or text).split()).split(" full_key:")[0]
        if re.match(r"Key '.*' not in '\w+'", said):
            return f"{error.full_key}: {unknown}"
        for kind, name in (("'DictConfig'", "mapping"), ("'ListConfig'", "list")):
            said = said.replace(kind, name)
        return f"{error.full_key}: {said}"
    return text.partition(" Config search path: ")[0].partition(" full_key:")[0]


def _explain_override(override: str) -> str:
    """What to do about an argument that Hydra's grammar does not have."""
    key, equals, value = override.partition("=")
    if not equals:
        return f"{override}: is no setting with a value; write KEY=VALUE"
    return f"""{override}: the value has characters that Hydra takes for its own; quote it, as in '{key}="{value}"'"""


def _explain_file(error: Exception, text: str, root: Path) -> str:
    """Which file of conf/ cannot be read, and why."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{_relative(mark.name, root)}, line {mark.line + 1}: not valid YAML: {error.problem}"
    if isinstance(error, yaml.reader.ReaderError):
        return f"{_relative(str(error.name), root)}: not valid YAML: {error.reason}"
    if isinstance(error, UnicodeDecodeError):
        for path in sorted((root / "conf").rglob("*.yaml")):
            try:
                if not is_hidden(path.name):
                    path.read_text(encoding="utf-8")
            except UnicodeDecodeError as found:
                return f"{_relative(str(path), root)}: not UTF-8 (byte {found.start}); save it as UTF-8"
            except OSError:
                continue
    if isinstance(error, RecursionError):
        return "conf/: settings that nest without end, as an alias does that refers to what it is part of"
    return text


def _relative(file: str, root: Path) -> str:
    path = Path(file)
    return str(path.relative_to(root)) if path.is_relative_to(root) else file
