"""One cell of a grid: train.py in a process of its own, and what its end means for the pipeline.

    python -m pipeline.run_cell RUN_DIR [--identity HASH --attempt N --attempts M --pipeline-pid PID
                                         --gpus A,B --runs-per-gpu N --slurm-job ID] -- COMMAND ...

`run_dir=RUN_DIR` and `identity=HASH` are added to COMMAND, which runs on one thread and writes to RUN_DIR/train.log.
With `--gpus` a COMMAND with `device=cuda` waits for a place on one of them (pipeline/lease.py) and sees no other.

    COMMAND ends with                         the wrapper
    0 and a status.json                       exits 0
    1 and a status.json that says `failed`    exits 0: a failed cell is a finished one, shown with its reason
    3, the directory holds another run        moves it to RUN_DIR.old-<identity> and runs COMMAND once more
    4, another process trains there           exits 4
    2, its settings are refused               records why and exits 0: another attempt would be refused, too
    130, 143, or while it is being stopped    exits likewise and records nothing: the next attempt goes on
    5, for want of disk or memory             exits 5; on the last attempt 0, with why in status.json
    6, it is no longer what was planned       exits 6 and records nothing: the same pipeline command plans it anew
    anything else, or without a status.json   exits with that code; on the last attempt records why, exits 0

A SIGINT, SIGTERM or SIGHUP to the wrapper, or the end of the process PID, stops COMMAND with SIGTERM. So does the time
limit of the SLURM job ID, two minutes ahead; if COMMAND has saved its state, SLURM is told to queue the job again.
Where the wrapper itself cannot write, it says so in one line and exits 1.
"""

import argparse
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from command.interrupt import die_with_parent
from command.output import never_fail
from pipeline.lease import VISIBLE, Lease, lease
from pipeline.suites import device_of
from tracking.files import open_regular
from tracking.lock import acquire
from tracking.manifest import STATUS, read_manifest, read_status, write_status
from tracking.record import CHECKPOINT

POLL = 0.5  # s between two looks at the signals received and at the pipeline
GRACE = 60.0  # s for a stopped run to save its state before it is killed
AHEAD = 120.0  # s before the time limit of a cluster job at which its run is stopped: GRACE, and one update
LOCK_PAUSE = 5.0  # s before a locked directory is tried again: a killed pipeline's run ends within seconds
FINISHED, FAILED, REFUSED, OTHER_IDENTITY, LOCKED, SHORTAGE, REPLACED = range(7)  # exit codes of train.py

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_HASH = re.compile(r"[0-9a-f]{64}")  # else it is why there is none, and train.py says so itself
_TIME_LEFT = re.compile(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)")  # [[days-]hours:]minutes:seconds
_ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")}
TUNABLES = "GLIBC_TUNABLES"
_ALLOCATOR = ":".join(
    f"glibc.malloc.{name}={value}"
    for name, value in {
        "mmap_max": 0,  # large tensors from the heap, too, ...
        "trim_threshold": 2**40,  # ... which is never given back, ...
        "hugetlb": 1,  # ... in huge pages where the kernel has them on request
    }.items()
)


def process_environment() -> dict[str, str]:
    """Environment variables of a training process: those of here, one thread, and an allocator that keeps memory.

    A pass of a network over images frees hundreds of megabytes, which glibc by default returns to the kernel at once,
    to get them back page by page, filled with zeros, in the next (benchmarks/allocator.py has what that costs). No bit
    of a run depends on it. A `GLIBC_TUNABLES` that is set is left as it is; other C libraries know none.
    """
    return {TUNABLES: _ALLOCATOR, **os.environ, **_ONE_THREAD}


class Stop:
    """Whether the cell is to stop: a signal was received, the pipeline that started it is gone, or its time is up."""

    def __init__(self, pipeline_pid: int | None, seconds: float = math.inf) -> None:
        self.signal = 0  # the one it was told by; none yet
        self.is_timeout = False
        self._end = time.monotonic() + seconds
        self._pipeline: psutil.Process | None = None
        for number in _STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup sets SIGHUP
                signal.signal(number, self._receive)
        if pipeline_pid is not None:
            try:
                self._pipeline = psutil.Process(pipeline_pid)
            except psutil.NoSuchProcess:
                self.signal = signal.SIGTERM

    def _receive(self, number: int, _frame: object) -> None:
        self.signal = self.signal or number

    def requested(self) -> bool:
        """Look whether the cell is to stop."""
        if not self.signal and self._pipeline is not None and _is_gone(self._pipeline):
            self.signal = signal.SIGTERM
        if not self.signal and time.monotonic() > self._end:
            self.signal, self.is_timeout = signal.SIGTERM, True
        return self.signal != 0


def run_cell(
    run_dir: Path,
    command: Sequence[str],
    attempt: int,
    attempts: int,
    stop: Stop,
    identity: str | None = None,
    place: Lease | None = None,
) -> int:
    """Run COMMAND to its end as the table above says; returns the exit code of the wrapper."""
    if stop.requested():  # already: nothing is started
        return 128 + stop.signal
    command = [
        *command,
        f"run_dir={run_dir}",
        *([f"identity={identity}"] if identity and _HASH.fullmatch(identity) else []),
    ]
    code, last_line = _run_logged(run_dir, command, f"attempt {attempt} of {attempts}", stop, place)
    if code == OTHER_IDENTITY and not stop.requested():
        moved_to = _move_away(run_dir)
        _say(run_dir, f"held another run, now in {moved_to}")
        code, last_line = _run_logged(run_dir, command, "again, in a new directory", stop, place)

    status = read_status(run_dir)
    if code == FINISHED and status is not None:
        return 0
    if stop.requested():
        return 128 + stop.signal
    if code in (128 + number for number in _STOP_SIGNALS):
        return code
    if code == FAILED and status is not None and status["status"] == "failed":
        _say(run_dir, f"failed: {status['reason']}")
        return 0
    if code == LOCKED:
        _say(run_dir, "another process trains there")
        _wait(LOCK_PAUSE if attempt < attempts else 0, stop.requested)
        return LOCKED

    if code == REPLACED:
        _say(run_dir, "settings or code have changed since it was planned; the same command plans it anew")
        return REPLACED

    recorded = status["reason"] if code == SHORTAGE and status is not None else None
    reason = recorded or _explain(code, last_line)
    if attempt < attempts and code != REFUSED:
        (run_dir / STATUS).unlink(missing_ok=True)
        _say(run_dir, f"attempt {attempt} of {attempts}: {reason}")
        return code or 1
    if recorded is None:
        write_status(run_dir, "failed", reason, identity)
    _say(run_dir, f"failed: {reason}")
    return 0


def _run_logged(run_dir: Path, command: Sequence[str], title: str, stop: Stop, place: Lease | None) -> tuple[int, str]:
    """Run the command; returns its exit code, 128 + n for a signal n, and the last line it wrote."""
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / STATUS).unlink(missing_ok=True)  # what is there afterwards is of this attempt
    with open_regular(run_dir / "train.log", os.O_RDWR | os.O_APPEND) as log:
        title += f" on {place.gpu}" if place else ""
        log.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')}, {title}: {shlex.join(command)}\n".encode())
        log.flush()
        start = log.tell()
        code = _supervise(command, log.fileno(), stop, place)
        log.seek(start)
        lines = re.split(r"[\r\n]+", log.read().decode(errors="replace"))
    return code, next((line.strip() for line in reversed(lines) if line.strip()), "")


def _supervise(command: Sequence[str], log: int, stop: Stop, place: Lease | None) -> int:
    environment = process_environment() | {"PYTHONUNBUFFERED": "1"}  # the last words of a killed run reach the log
    if place is not None:
        environment[VISIBLE] = place.gpu
    # In a session of its own the run sees no Ctrl-C of the terminal, only the one SIGTERM it gets from here.
    # It holds the place on the GPU too: where the wrapper is killed, that is free only once the run is gone as well.
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
        pass_fds=() if place is None else (place.descriptor,),
        start_new_session=True,
        preexec_fn=die_with_parent(),
    )
    kill_at: float | None = None
    while True:
        try:
            code = child.wait(timeout=POLL)
            return code if code >= 0 else 128 - code
        except subprocess.TimeoutExpired:
            if kill_at is None and stop.requested():
                child.terminate()
                kill_at = time.monotonic() + GRACE
            elif kill_at is not None and time.monotonic() > kill_at:
                child.kill()


def _move_away(run_dir: Path) -> Path:
    """Rename a run directory after the identity of the run it holds; returns its new path."""
    lock = acquire(run_dir)  # never a directory in use
    try:
        try:
            manifest = read_manifest(run_dir)
        except ValueError:  # damaged
            manifest = None
        identity = manifest["identity"]["hash"][:12] if manifest else "unknown"
        target, number = run_dir.with_name(f"{run_dir.name}.old-{identity}"), 1
        while target.exists():
            number += 1
            target = run_dir.with_name(f"{run_dir.name}.old-{identity}-{number}")
        return run_dir.rename(target)
    finally:
        os.close(lock)


def _explain(code: int, last_line: str) -> str:
    """Why a run that left no status ended, in one line."""
    if code == REFUSED:
        return f"refused: {last_line}"
    if code == SHORTAGE:
        return f"no disk or memory left: {last_line}"
    if code == 128 + signal.SIGKILL:
        return "killed by signal 9 (out of memory?)"
    if code > 128:
        return f"killed by signal {code - 128}"
    return last_line or f"exit code {code} without a word"


def _time_left(job: str) -> float:
    """Seconds that a SLURM job has left; infinity where it has no limit or none can be found out."""
    command = ["squeue", "--noheader", "--jobs", job, "--format", "%L"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=GRACE).stdout
    except (OSError, subprocess.TimeoutExpired):
        return math.inf
    match = _TIME_LEFT.fullmatch(said.strip())
    if match is None:
        return math.inf
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def _queue_again(run_dir: Path, job: str) -> None:
    """Have SLURM queue this job again, under its number, so that its run goes on where it was saved."""
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=GRACE)
        fault = " ".join(done.stderr.split()) if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        fault = str(error)
    _say(run_dir, f"SLURM cannot queue job {job} again: {fault}" if fault else f"job {job} is queued again")


def _saved(run_dir: Path) -> int:
    """What changes when a run saves its state."""
    try:
        return (run_dir / CHECKPOINT).lstat().st_mtime_ns
    except OSError:
        return 0


def _is_gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _wait(seconds: float, interrupted: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not interrupted():
        time.sleep(POLL)


def _say(run_dir: Path, message: str) -> None:
    print(f"{run_dir}: {message} (log: {run_dir / 'train.log'})", file=sys.stderr)


def main(arguments: Sequence[str]) -> int:
    """Run the cell that the command line describes; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.run_cell", description=__doc__.splitlines()[0])
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--identity", help="what the run must be: the hash of its identity")
    parser.add_argument("--attempt", type=int, default=1, help="which attempt this is, from 1")
    parser.add_argument("--attempts", type=int, default=1, help="how many attempts there are")
    parser.add_argument("--pipeline-pid", type=int, help="stop when this process is gone")
    parser.add_argument("--gpus", type=_names, default=[], help="hand one of these to a run with device=cuda")
    parser.add_argument("--runs-per-gpu", type=int, default=1, help="how many runs may share each")
    parser.add_argument("--slurm-job", help="the job that this is; it is queued again when its time is up")
    parser.add_argument("command", nargs="+", help="the training command, after --")
    options = parser.parse_args(arguments)
    never_fail()
    run_dir, left = options.run_dir, _time_left(options.slurm_job) if options.slurm_job else math.inf
    # A limit too short to stop ahead of is left to SLURM, and to the next attempt.
    stop = Stop(options.pipeline_pid, left - AHEAD if left > AHEAD else math.inf)
    place = None
    try:
        if options.gpus and device_of(options.command) != "cpu":
            place = lease(options.gpus, options.runs_per_gpu, stop.requested)
            if place is None:
                return 128 + stop.signal
        before = _saved(run_dir)
        code = run_cell(run_dir, options.command, options.attempt, options.attempts, stop, options.identity, place)
        if stop.is_timeout and code == 128 + signal.SIGTERM and _saved(run_dir) != before:
            _queue_again(run_dir, options.slurm_job)
        return code
    except (OSError, ValueError) as error:
        print(f"{run_dir}: the cell cannot be run: {error}", file=sys.stderr)
        return 1


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
