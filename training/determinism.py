"""How torch computes in a run: on the run's threads, and on a GPU in float32 that repeats itself bit for bit."""

import os

import torch


def prepare_torch(device: str, threads: int) -> str | None:
    """Set torch up for a run on `device`; returns the GPU's name."""
    torch.set_num_threads(threads)
    if device == "cpu":
        return None
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS may choose another order of sums
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # nothing reads it here
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return torch.cuda.get_device_name(device)
