"""What a user reads when settings are wrong or a run cannot go on, each in one line."""

import difflib
import re
import sys

import torch
from hydra.errors import MissingConfigException
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from settings import RunConfig


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
    if match := re.match(r"Could not override '([\w.@/]+)'", text):
        return f"{match[1]}: no such setting; python train.py --help lists them all"
    if isinstance(error, MissingMandatoryValue) or "MissingMandatoryValue" in text:
        found = re.search(r"Missing mandatory value: ([\w.]+)", text)
        return f"{found[1] if found else getattr(error, 'full_key', '?')}: must be given"
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        return f"{error.full_key}: {' '.join(str(error.msg or text).split()).split(' full_key:')[0]}"
    return text


def describe(error: Exception) -> str:
    """What went wrong, in one line."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    # A GPU out of memory says first what it lacks, and then lists all that it holds, or how to debug.
    return ". ".join(text.split(". ")[:2]) if gpu_is_full(error) else text


def gpu_is_full(error: Exception) -> bool:
    """Whether a GPU was out of memory, for torch itself or for a library below it that has an error of its own."""
    texts = ("CUDA error: out of memory", "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in texts)


def remedy(error: Exception, config: RunConfig) -> str:
    """What a user can do about a shortage."""
    if not gpu_is_full(error):
        return "make room, and the same command goes on from the last checkpoint"
    settings = {
        "network.states_per_pass": config.network.states_per_pass or f"null, all {config.algorithm.batch_size}",
        "critic.minibatch_size": config.critic.minibatch_size,
        "algorithm.minibatch_size": getattr(config.algorithm, "minibatch_size", None),
        "fisher.states": (config.fisher.states or "null, all") if config.direction == "natural" else None,
        "algorithm.batch_size": config.algorithm.batch_size,
    }
    lower = ", ".join(f"{name} ({value})" for name, value in settings.items() if value is not None)
    return f"run fewer processes on this GPU, or lower one of {lower}: a new run, in another run_dir"


def is_shortage(error: Exception) -> bool:
    """Whether a run failed for want of disk or memory, or for a file that could not be written: no fault of its own."""
    return isinstance(error, OSError | MemoryError) or gpu_is_full(error) or "can't allocate memory" in str(error)
