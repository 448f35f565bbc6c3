"""What a user reads when settings are refused: one line that names the setting. Needs no torch."""

import difflib
import re
import sys

from hydra.errors import MissingConfigException
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException


def refuse(error: Exception, program: str = "train.py") -> int:
    """Say in one line what is wrong with the settings; returns the exit code."""
    print(f"{program}: {explain(error)}", file=sys.stderr)
    return 2


def explain(error: Exception) -> str:
    """One line that names the setting, what is wrong and what would be right, from whatever found it wrong."""
    text = " ".join(str(error).split())
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, name = (error.missing_cfg_file or "").rpartition("/")
        near = difflib.get_close_matches(name, error.options, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        return f"{group}={name}: unknown; {hint}choose one of {', '.join(error.options)}"
    if match := re.match(r"You must specify '(\w+)'.*?Available options: (.*)", text):
        return f"{match[1]}: must be given; choose one of {', '.join(match[2].split())}"
    if match := re.match(r"Could not override '(env\.kwargs)[.']", text):
        return f"{match[1]}: add an argument of the task with +{match[1]}.NAME=VALUE"
    if "Could not override 'env.wrappers'" in text:
        return "env.wrappers: here it is +env.wrappers=[module:Class]; env=atari takes none"
    if match := re.match(r"Could not override '([\w.@/]+)'", text):
        return f"{match[1]}: no such setting; python train.py --help lists them all"
    if isinstance(error, MissingMandatoryValue) or "MissingMandatoryValue" in text:
        found = re.search(r"Missing mandatory value: ([\w.]+)", text)
        return f"{found[1] if found else getattr(error, 'full_key', '?')}: must be given"
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        return f"{error.full_key}: {' '.join(str(error.msg or text).split()).split(' full_key:')[0]}"
    return text
