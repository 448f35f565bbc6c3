"""Provoke every fault that a run must survive, and tell what its user saw and what was lost.

    python benchmarks/fault_table.py > docs/faults.md

Each row is a real run on CartPole or HalfCheetah that a fault hits half-way, and the same command again once the fault
is gone, whose result is compared bit for bit with that of a run that was left alone. As root on Linux the disks are
tmpfs file systems; otherwise the full disk is a limit on file sizes, and the read-only one is left out.
"""

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.runs import last_line
from tracking.compare import differences
from tracking.identity import REPOSITORY
from tracking.record import CHECKPOINT, load_run

TASK = '''
import os
import gymnasium
import numpy
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv


class Cheetah(HalfCheetahEnv):
    """HalfCheetah that raises, diverges or asks for a petabyte, while the variable FAULT says so."""

    steps = 0

    def step(self, action):
        Cheetah.steps += 1
        if Cheetah.steps == 12_000 and os.environ.get("FAULT") == "raise":
            raise RuntimeError("the robot does not answer")
        if Cheetah.steps == 12_000 and os.environ.get("FAULT") == "diverge":
            self.data.qvel[:] = 1e9
        if Cheetah.steps == 12_000 and os.environ.get("FAULT") == "memory":
            numpy.zeros(10**15)
        return super().step(action)


gymnasium.register("Cheetah-v0", Cheetah, max_episode_steps=1000)
'''
CARTPOLE = ("env=gym", "env.id=CartPole-v1")
CHEETAH = ("env=gym", "env.id=cheetah:Cheetah-v0", "env.name=cheetah")
COMMON = (
    "algorithm=acktr", "total_steps=20480", "algorithm.batch_size=1024", "checkpoint.updates=1",
    "evaluation.episodes=1",
)  # fmt: skip
DISK = "8m"
"""Size of the disk that fills up; a run of this kind takes some 2 MB, three checkpoints at a time."""
SHOWN = 200
"""Characters of a message that the table has room for."""


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    said: str


@dataclass
class Bench:
    """Runs in one directory."""

    directory: Path

    def command(self, run_dir: Path, settings: Sequence[str]) -> list[str]:
        return [sys.executable, "train.py", *COMMON, *settings, f"run_dir={run_dir}"]

    def start(
        self,
        run_dir: Path,
        settings: Sequence[str],
        env: Mapping[str, str] | None = None,
        before: Callable[[], None] | None = None,
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(run_dir, settings),
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(self.directory), **(env or {})},
            preexec_fn=before,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self,
        run_dir: Path,
        settings: Sequence[str],
        env: Mapping[str, str] | None = None,
        before: Callable[[], None] | None = None,
    ) -> Result:
        return ended(self.start(run_dir, settings, env, before))

    def half_way(self, run_dir: Path, settings: Sequence[str]) -> subprocess.Popen[str]:
        """Start a run; return when it has saved some updates and is not near its end."""
        process = self.start(run_dir, settings)
        while saved_updates(run_dir) < 5:
            if process.poll() is not None:
                raise RuntimeError(f"the run ended too soon: {ended(process).said}")
            time.sleep(0.02)
        return process


def ended(process: subprocess.Popen[str]) -> Result:
    """Wait for a run; what it said last, its progress aside."""
    _, stderr = process.communicate()
    lines = [line for line in stderr.splitlines() if "of 20,480 steps" not in line]
    return Result(process.returncode, last_line("\n".join(lines)))


def saved_updates(run_dir: Path) -> int:
    """Rows of the progress table that are on disk, once there is a checkpoint."""
    if not (run_dir / CHECKPOINT).exists():
        return 0
    progress = load_run(run_dir).progress
    return 0 if progress is None else len(progress)


@contextmanager
def disk(directory: Path) -> Iterator[Path | None]:
    """A small file system of its own; None where it cannot be mounted."""
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(directory)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        yield None
        return
    try:
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def full_disk(bench: Bench) -> tuple[str, Path, Result]:
    """Let other files fill the disk half-way, or limit the size of files."""
    with disk(bench.directory / "disk") as small:
        if small is None:
            run_dir = bench.directory / "full"

            def limited() -> None:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))

            return "limit on file sizes", run_dir, bench.run(run_dir, CARTPOLE, before=limited)
        run_dir = small / "run"
        process = bench.half_way(run_dir, CARTPOLE)
        try:
            with (small / "other").open("wb", buffering=0) as other:
                while True:
                    other.write(bytes(4096))
        except OSError:
            pass
        result = ended(process)
        (small / "other").unlink()
        kept = bench.directory / "full"
        shutil.copytree(run_dir, kept)
        return "another program fills it", kept, result


def read_only(bench: Bench) -> tuple[str, Path, Result] | None:
    """Kill a run, and go on with it on a disk that has become read-only."""
    with disk(bench.directory / "ro") as small:
        if small is None:
            return None
        run_dir = small / "run"
        process = bench.half_way(run_dir, CARTPOLE)
        process.kill()
        ended(process)
        remount = ["mount", "-o", "remount,ro", str(small)]
        subprocess.run(remount, check=True)
        result = bench.run(run_dir, CARTPOLE)
        kept = bench.directory / "read_only"
        shutil.copytree(run_dir, kept)
        return "killed, then gone on with on a read-only disk", kept, result


def signalled(number: signal.Signals) -> Callable[[Bench], tuple[str, Path, Result]]:
    """Send a signal half-way."""

    def provoke(bench: Bench) -> tuple[str, Path, Result]:
        run_dir = bench.directory / number.name
        process = bench.half_way(run_dir, CARTPOLE)
        process.send_signal(number)
        return number.name, run_dir, ended(process)

    return provoke


def faulty_task(fault: str) -> Callable[[Bench], tuple[str, Path, Result]]:
    """Let the task itself fail."""

    def provoke(bench: Bench) -> tuple[str, Path, Result]:
        run_dir = bench.directory / fault
        return f"a task that does so at its step {12_000:,}", run_dir, bench.run(run_dir, CHEETAH, {"FAULT": fault})

    return provoke


def wandb_unreachable(bench: Bench) -> tuple[str, Path, Result]:
    """Track online, with a server that nobody runs."""
    run_dir = bench.directory / "wandb"
    tracker = ("tracker=wandb", "tracker.mode=online", "tracker.timeout=3")
    env = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40}
    process = bench.start(run_dir, [*CARTPOLE, *tracker], env)
    _, stderr = process.communicate()
    warning = next((line for line in stderr.splitlines() if "W&B failed" in line), last_line(stderr))
    return "a server that is not there", run_dir, Result(process.returncode, warning)


def two_processes(bench: Bench) -> tuple[str, Path, Result]:
    """Start a second process on a run directory in use."""
    run_dir = bench.directory / "two"
    first = bench.half_way(run_dir, CARTPOLE)
    first.send_signal(signal.SIGSTOP)  # or it would have finished by the time the second one looks
    second = bench.run(run_dir, CARTPOLE)
    first.send_signal(signal.SIGCONT)
    ended(first)
    return "a second train.py", run_dir, second


def damaged_checkpoint(bench: Bench) -> tuple[str, Path, Result]:
    """Kill a run and cut its checkpoint in half."""
    run_dir = bench.directory / "damaged"
    process = bench.half_way(run_dir, CARTPOLE)
    process.kill()
    ended(process)
    (run_dir / CHECKPOINT).write_bytes((run_dir / CHECKPOINT).read_bytes()[:5000])
    process = bench.start(run_dir, CARTPOLE)
    _, stderr = process.communicate()
    return "its second half is cut off", run_dir, Result(process.returncode, stderr.splitlines()[0])


def nan_loss(bench: Bench) -> tuple[str, Path, Result]:
    """Let the critic take steps that no network survives; nothing is gone on with, since the setting is the fault."""
    run_dir = bench.directory / "nan"
    return (
        "critic.learning_rate=1e30",
        run_dir,
        bench.run(run_dir, [*CARTPOLE, "critic=adam", "critic.learning_rate=1e30"]),
    )


FAULTS: dict[str, Callable[[Bench], tuple[str, Path, Result] | None]] = {
    "disk full": full_disk,
    "directory read-only": read_only,
    "out of memory": faulty_task("memory"),
    "killed, as for memory": signalled(signal.SIGKILL),
    "SIGTERM": signalled(signal.SIGTERM),
    "SIGINT": signalled(signal.SIGINT),
    "checkpoint damaged": damaged_checkpoint,
    "environment raises": faulty_task("raise"),
    "simulation diverges": faulty_task("diverge"),
    "NaN in a loss": nan_loss,
    "W&B unreachable": wandb_unreachable,
    "two processes": two_processes,
}


def main() -> int:
    """Provoke, go on, compare and print; exits 1 when anything was lost."""
    rows, lost = [], False
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(Path(directory))
        (bench.directory / "cheetah.py").write_text(TASK)
        for settings in (CARTPOLE, CHEETAH):
            whole = bench.run(bench.directory / f"whole-{len(settings)}", settings)
            if whole.code:
                raise RuntimeError(whole.said)
        for fault, provoke in FAULTS.items():
            found = provoke(bench)
            if found is None:
                continue
            how, run_dir, result = found
            record = load_run(run_dir)
            kept = saved_updates(run_dir)
            if fault == "NaN in a loss":
                after = "fails again: the setting is the fault"
            else:
                settings = (
                    CHEETAH if fault in ("environment raises", "simulation diverges", "out of memory") else CARTPOLE
                )
                again = bench.run(run_dir, settings)
                different = differences(bench.directory / f"whole-{len(settings)}", run_dir)
                lost = lost or again.code != 0 or bool(different)
                after = "; ".join(different) or "equal to a run left alone"
            said = shorten(result.said.replace(str(bench.directory), "…").replace("|", r"\|"), SHOWN, placeholder=" …")
            rows.append(
                [
                    fault,
                    how,
                    str(result.code),
                    record.status,
                    f"`{said}`" if said else "nothing",
                    f"{kept} of 20",
                    after,
                ]
            )
    print("# Faults\n\nWritten by `python benchmarks/fault_table.py`, which provokes each of them for real.\n")
    header = ["Fault", "How", "Exit code", "State", "What the user sees", "Updates kept", "The same command again"]
    print("A fault hits a run of 20 updates half-way. State: as the next reader names it.\n")
    for row in (header, ["---"] * len(header), *rows):
        print(f"| {' | '.join(row)} |")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
