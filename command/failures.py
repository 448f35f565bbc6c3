"""What a user reads when a run cannot go on, and what helps."""

import torch

from settings import RunConfig


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
