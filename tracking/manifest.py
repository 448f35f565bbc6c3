"""manifest.json, what was run and on what, and status.json, how it ended.

manifest.json: state (running | finished | failed), reason (of a failure), env_steps and episode_return (once
ended), files (once ended: size and SHA-256 of tables and checkpoint), started (UTC), resumed (per continuation: time
and updates kept), config (resolved), identity {hash, parts}, git {commit, dirty} or null, packages, python, platform,
cpu, gpu, threads.
status.json: status (finished | failed), reason, identity (the hash), env_steps, episode_return.
"""

import math
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from tracking.files import read_json, write_json
from tracking.identity import REPOSITORY, CellIdentity
from tracking.schema import ANY, Schema, require

MANIFEST = "manifest.json"
STATUS = "status.json"
PACKAGES = (
    "torch", "numpy", "mujoco", "gymnasium", "ale-py", "hydra-core", "pandas", "pyarrow", "wandb"
)  # fmt: skip

HASH = re.compile(r"[0-9a-f]{64}")
_TEXT, _INTEGER, _NUMBER = (str, None), (int, None), (float, None)
PARTS = {"config": {str: ANY}, "code": {str: str}, "versions": {str: _TEXT}, "device": str}
"""Schema of an identity's parts."""
RECORDED = {
    "started": _TEXT,
    "resumed": ([{"at": str, "updates": int}], None),
    "git": ({"commit": re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}"), "dirty": bool}, None),
    "packages": ({str: _TEXT}, None),
    "python": _TEXT,
    "platform": _TEXT,
    "cpu": _TEXT,
    "gpu": _TEXT,
    "threads": _INTEGER,
}
"""Schema of what a manifest records of where a run was made; runs of earlier versions may lack some of it."""
_MANIFEST = {
    "state": frozenset({"running", "finished", "failed"}),
    "reason": _TEXT,
    "identity": {"hash": HASH, "parts": PARTS},
}
_LATER = {
    "env_steps": _INTEGER,
    "episode_return": _NUMBER,
    "config": ({str: ANY}, None),
    "files": ({str: {"size": int, "sha256": HASH}}, None),
    **RECORDED,
}
_STATUS = {
    "status": frozenset({"finished", "failed"}),
    "reason": _TEXT,
    "identity": _TEXT,
    "env_steps?": _INTEGER,
    "episode_return?": _NUMBER,
}


def build_manifest(
    config: Mapping[str, Any],
    identity: CellIdentity,
    threads: int,
    gpu: str | None = None,
    conf: Sequence[str] = ("conf",),
    root: Path = REPOSITORY,
) -> dict[str, Any]:
    """Describe a run that starts now.

    `gpu` is the model's name when it trains on one, `conf` the files of settings that it was composed from.
    """
    return {
        "state": "running",
        "reason": None,
        "env_steps": None,
        "episode_return": None,
        "files": None,
        "started": now(),
        "resumed": [],
        "config": dict(config),
        "identity": {"hash": identity.hash, "parts": identity.parts},
        "git": git_state([*identity.parts["code"], *conf], root),
        "packages": {package: _version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "gpu": gpu,
        "threads": threads,
    }


def now() -> str:
    """The time, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_manifest(run_dir: Path, manifest: Mapping[str, Any]) -> None:
    """Write manifest.json atomically."""
    write_json(run_dir / MANIFEST, manifest)


def read_manifest(run_dir: Path) -> dict[str, Any] | None:
    """Read manifest.json; None when there is none. What an earlier version did not record is None.

    ValueError when it is damaged, or an entry is missing or of another type.
    """
    manifest = _read(run_dir / MANIFEST, _MANIFEST | {f"{name}?": schema for name, schema in _LATER.items()})
    return None if manifest is None else dict.fromkeys(_LATER) | manifest


def recorded_identity(manifest: Mapping[str, Any]) -> CellIdentity:
    """The identity a manifest records."""
    return CellIdentity(manifest["identity"]["parts"])


def write_status(
    run_dir: Path,
    status: str,
    reason: str | None = None,
    identity: str | None = None,
    env_steps: int | None = None,
    episode_return: float | None = None,
) -> None:
    """Write status.json atomically; also for the pipeline, where a run died without leaving one."""
    write_json(
        run_dir / STATUS,
        {
            "status": status,
            "reason": reason,
            "identity": identity,
            "env_steps": env_steps,
            "episode_return": finite_or_none(episode_return),
        },
    )


def read_status(run_dir: Path) -> dict[str, Any] | None:
    """Read status.json; None when there is none, ValueError as `read_manifest`."""
    return _read(run_dir / STATUS, _STATUS)


def _read(path: Path, schema: Schema) -> dict[str, Any] | None:
    content = read_json(path)
    try:
        if content is not None:
            require(content, schema)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return content


def finite_or_none(value: float | None) -> float | None:
    """JSON has neither NaN nor infinities; both are null there."""
    return float(value) if value is not None and math.isfinite(value) else None


def git_state(files: Iterable[str], root: Path = REPOSITORY) -> dict[str, Any] | None:
    """The commit of the repository at `root`, and whether any of these files differs from it; None without git."""
    found = _git(root, "rev-parse", "--show-toplevel", "HEAD")
    if found is None:
        return None
    toplevel, commit = found.splitlines()
    if Path(toplevel).resolve() != root.resolve():
        return None  # an unpacked copy inside somebody else's repository
    return {"commit": commit, "dirty": bool(uncommitted(files, root))}


def git_fault(root: Path = REPOSITORY) -> str:
    """Why `git_state` knows no commit of the repository at `root`, in git's own words; empty if it knows one."""
    try:
        toplevel, *_ = _run_git(root, "rev-parse", "--show-toplevel", "HEAD").splitlines()
    except subprocess.CalledProcessError as error:
        return " ".join(str(error.stderr).split()) or f"git ends with exit code {error.returncode}"
    except (OSError, subprocess.SubprocessError) as error:
        return f"git cannot be run ({error})"
    if Path(toplevel).resolve() != root.resolve():
        return f"its files are those of another repository, {toplevel}"
    return ""


def uncommitted(files: Iterable[str], root: Path = REPOSITORY) -> list[str]:
    """Those of the files and folders that differ from the commit, untracked ones included."""
    said = _git(root, "status", "--porcelain", "--untracked-files=all", "--no-renames", "-z", "--", *files) or ""
    return [entry[3:] for entry in said.split("\0") if entry]


def _git(root: Path, *arguments: str) -> str | None:
    try:
        return _run_git(root, *arguments)
    except (OSError, subprocess.SubprocessError):
        return None


def _run_git(root: Path, *arguments: str) -> str:
    # --no-optional-locks: several runs start side by side and must not fight for the index.
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout


def cpu_model() -> str:
    """The processor's name, as far as the platform tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
