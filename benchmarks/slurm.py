"""The pipeline on a real SLURM of one node, and its results when a job is cancelled and a run reaches its limit.

    python benchmarks/slurm.py        (make test-slurm; as root, on Debian: apt-get install slurm-wlm munge)

Starts munged, slurmctld and slurmd for itself and stops them at the end. Exits 77 where it cannot run, with what is
missing, and 1 where a result differs from that of an undisturbed run. About 15 minutes on two cores.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository is not installed

from command.interrupt import die_with_parent
from pipeline.suites import load_suite
from tracking.identity import REPOSITORY
from tracking.record import EPISODES, EVALUATION, PROGRESS
from tracking.tables import equal_tables

SKIPPED = 77
CONFIGURATION = Path("/etc/slurm/slurm.conf")  # the one place where a job step looks, too
TOOLS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")
LIMIT = 3  # minutes, of which a run has one: it is stopped two minutes ahead
SUITES = {
    "cancelled": "envs: [inverted_pendulum, {cartpole: [env=gym, env.id=CartPole-v1]}]\nalgorithms: [npg, ppo]\n"
    "baseline: npg\nseeds: 1\ntotal_steps: 40960\noverrides: [evaluation.episodes=2]\n",
    "limited": "envs: [halfcheetah]\nalgorithms: [ppo]\nbaseline: ppo\nseeds: 1\ntotal_steps: 360000\n"
    "overrides: [evaluation.episodes=2]\n",
}


def missing() -> list[str]:
    """What this machine lacks."""
    lacks = [tool for tool in TOOLS if shutil.which(tool) is None]
    lacks += [] if find_spec("snakemake_executor_plugin_slurm") else ['the extra `slurm`: pip install ".[slurm]"']
    lacks += [] if os.getuid() == 0 else ["root"]
    lacks += [f"room for a SLURM beside that of {CONFIGURATION}"] if CONFIGURATION.exists() else []
    return lacks


@contextmanager
def slurm(folder: Path) -> Iterator[None]:
    """A SLURM of one node, this machine, whose files are in `folder`."""
    host, munge = socket.gethostname().partition(".")[0], folder / "munge"
    for path in (munge, folder / "state", folder / "spool", CONFIGURATION.parent):
        path.mkdir(parents=True, exist_ok=True)
    (munge / "key").write_bytes(os.urandom(128))
    (munge / "key").chmod(0o400)
    megabytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20 * 9 // 10
    CONFIGURATION.write_text(f"""ClusterName=fisherbench
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={munge}/socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
MinJobAge=300
NodeName={host} NodeAddr=127.0.0.1 CPUs={os.cpu_count()} RealMemory={megabytes} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
""")
    files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    options = [f"--{option}={munge}/{name}" for option, name in files.items()]
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        for command in (["munged", "--foreground", "--force", *options], ["slurmctld", "-D"], ["slurmd", "-D"]):
            with (folder / f"{command[0]}.out").open("wb") as out:
                daemons.append(
                    subprocess.Popen(
                        command, stdout=out, stderr=out, start_new_session=True, preexec_fn=die_with_parent()
                    )
                )
            time.sleep(2)
        wait_for("an idle node", lambda: "idle" in output(["sinfo", "--noheader", "--format", "%T"]), 60)
        yield
    finally:
        subprocess.run(["scancel", "--user", "root"], capture_output=True)
        time.sleep(3)
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in daemons:
            daemon.wait(60)
        CONFIGURATION.unlink()


def output(command: Sequence[str]) -> str:
    """What a command says, whatever its exit code."""
    return subprocess.run(command, capture_output=True, text=True).stdout


def wait_for(what: str, condition: Callable[[], object], seconds: float) -> None:
    """Look twice a second; ends the script where it is in vain."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"slurm.py: waited {seconds:.0f} s for {what} in vain")
        time.sleep(0.5)


def copy(root: Path) -> None:
    """Copy the repository, with the suites of this script."""
    others = shutil.ignore_patterns(".*", "__pycache__", "results", "build", "wandb", "*.egg-info")
    shutil.copytree(REPOSITORY, root, ignore=others)
    for name, text in SUITES.items():
        (root / "conf" / "suite" / f"{name}.yaml").write_text(text)


def start(root: Path, suite: str, *arguments: str) -> "subprocess.Popen[bytes]":
    """Start Snakemake; what it says goes to a file beside the repository."""
    command = [sys.executable, "-m", "snakemake", *arguments, "--config", f"suite={suite}"]
    with root.with_name(f"{root.name}-{suite}.out").open("wb") as out:
        return subprocess.Popen(command, cwd=root, stdout=out, stderr=out, preexec_fn=die_with_parent())


def finish(root: Path, suite: str, process: "subprocess.Popen[bytes]") -> str:
    """Wait for Snakemake; returns what it said."""
    code = process.wait(1800)
    said = root.with_name(f"{root.name}-{suite}.out").read_text(errors="replace")
    if code:
        sys.exit(f"{said}\nslurm.py: {suite}: Snakemake ends with code {code}")
    return said


def through_slurm(root: Path, suite: str, *arguments: str) -> "subprocess.Popen[bytes]":
    """Start Snakemake with the profile, as far as a SLURM without accounting serves it."""
    profile = ("--profile", "profiles/slurm", "--latency-wait", "10", "--slurm-init-seconds-before-status-checks", "5")
    site = ("--slurm-no-account", "--slurm-status-command", "squeue", "--default-resources", "slurm_partition=main")
    return start(root, suite, *profile, *site, *arguments)


def differences(here: Path, there: Path, suite: str) -> list[str]:
    """The cells and tables of a suite in which two repositories differ."""
    tables = [
        f"{cell.run_dir}/{name}" for cell in load_suite(suite, here).cells for name in (PROGRESS, EPISODES, EVALUATION)
    ]
    return [table for table in tables if not equal_tables(here / table, there / table)]


def cancel_one(root: Path) -> None:
    """Cancel the first job whose run has begun to train."""
    wait_for("a run that trains", lambda: list(root.glob("results/*/runs/*/*/*/manifest.json")), 300)
    job = output(["squeue", "--noheader", "--states", "running", "--format", "%i"]).split()[0]
    subprocess.run(["scancel", job], check=True)
    print(f"cancelled: job {job}", flush=True)


def main() -> int:
    """Train both suites undisturbed and through SLURM, and compare."""
    if lacks := missing():
        print(f"slurm.py: skipped, this machine lacks {'; '.join(lacks)}", file=sys.stderr)
        return SKIPPED
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # everything is cleaned up all the same
    with tempfile.TemporaryDirectory() as directory:
        alone, cluster = Path(directory) / "alone", Path(directory) / "cluster"
        for root in (alone, cluster):
            copy(root)
        for suite in SUITES:
            finish(alone, suite, start(alone, suite))
        with slurm(Path(directory) / "slurm"):
            pipeline = through_slurm(cluster, "cancelled")
            cancel_one(cluster)
            said = finish(cluster, "cancelled", pipeline)
            print(f"submitted: {said.count('has been submitted with SLURM jobid')} jobs for 4 cells", flush=True)

            said = finish(
                cluster, "limited", through_slurm(cluster, "limited", "--set-resources", f"train:runtime={LIMIT}")
            )
            log = next(cluster.glob("results/limited/runs/*/*/*/train.log")).read_text()
            submitted = said.count("has been submitted with SLURM jobid")
            print(f"requeued: {log.count('attempt 1 of 3') - 1} times within {submitted} job", flush=True)
        different = [path for suite in SUITES for path in differences(alone, cluster, suite)]
        requeued = submitted == 1 and log.count("attempt 1 of 3") > 1 and "attempt 2 of 3" not in log
        print("\n".join(f"differs: {path}" for path in different) or "equal: every table of every run")
        return int(bool(different) or not requeued)


if __name__ == "__main__":
    sys.exit(main())
