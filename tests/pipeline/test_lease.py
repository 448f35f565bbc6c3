"""GPUs that pretend to be: an nvidia-smi that lists them, and processes that hold places on them."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.lease import GpuError, Lease, find_gpus, lease, places

ROOT = Path(__file__).resolve().parents[2]
GPUS = [f"GPU-{letter * 8}" for letter in "abcd"]
LISTED = "".join(f"GPU {index}: NVIDIA H200 (UUID: {uuid})\n" for index, uuid in enumerate(GPUS))
DIVIDED = LISTED.splitlines(True)[0] + "".join(f"  MIG 1g.18gb Device {n}: (UUID: MIG-{n})\n" for n in (1, 2))

# Takes a place, and proves it: two processes cannot bind one name, and a name is free when its process is gone.
HOLDER = """
import os, signal, socket, sys, time
from pathlib import Path
from pipeline.lease import lease
directory, token, gpus = Path(sys.argv[1]), sys.argv[2], sys.argv[3].split(",")
for line in sys.stdin:
    proof = socket.socket(socket.AF_UNIX)  # before the place, since a dying process closes files in order
    place = lease(gpus, 2, lambda: False, directory, poll=0.002)
    for number in range(2):
        try:
            proof.bind(chr(0) + f"{token}-{place.gpu}-{number}")
            break
        except OSError:
            pass
    else:
        print("double", flush=True)
        continue
    time.sleep(0.003)
    proof.close()
    os.close(place.descriptor)
    print(place.gpu, flush=True)
"""


def listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, code: int = 0) -> None:
    """Put an nvidia-smi first on the PATH that says this."""
    (tmp_path / "listed").write_text(text)
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\ncat '{tmp_path}/listed'\nexit {code}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("given", "visible", "found"),
    [
        ("", None, GPUS),
        ("2,0", None, [GPUS[2], GPUS[0]]),
        ("GPU-b", None, [GPUS[1]]),
        ("", "3,1", [GPUS[3], GPUS[1]]),  # as SLURM sets it
        ("1", "3,1", [GPUS[1]]),
    ],
)
def test_gpus_are_those_given_or_visible_by_uuid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, visible: str | None, found: list[str]
) -> None:
    listing(tmp_path, monkeypatch, LISTED)
    assert find_gpus(given, {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}) == found


def test_a_divided_gpu_is_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing(tmp_path, monkeypatch, DIVIDED)
    assert find_gpus("0", {}) == find_gpus("", {}) == ["MIG-1", "MIG-2"]


@pytest.mark.parametrize(
    ("given", "visible", "text", "message"),
    [
        ("4", None, LISTED, "gpus=4: there is no GPU 4; there are: 0 (GPU-aaaaaaaa), 1"),
        ("0,0", None, LISTED, "gpus=0,0: GPU-aaaaaaaa is named twice"),
        ("GPU-", None, LISTED, "gpus=GPU-: there is no GPU GPU-;"),  # which of them?
        ("0", "1", LISTED, "gpus=0: CUDA_VISIBLE_DEVICES=1 hides GPU-aaaaaaaa"),
        ("", "", LISTED, "CUDA_VISIBLE_DEVICES is empty, which hides every GPU"),
        ("", None, "", "there is no GPU on this machine"),
        ("0", None, "", "gpus=0: there is no GPU 0; there are: none"),
    ],
)
def test_a_gpu_that_is_missing_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, visible: str | None, text: str, message: str
) -> None:
    listing(tmp_path, monkeypatch, text)
    with pytest.raises(GpuError) as refused:
        find_gpus(given, {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


def test_without_a_working_driver_the_reason_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing(tmp_path, monkeypatch, "Driver/library version mismatch\n", code=18)
    with pytest.raises(GpuError, match="nvidia-smi ends with code 18: Driver/library version mismatch"):
        find_gpus()
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    with pytest.raises(GpuError, match="it is not installed"):
        find_gpus()


def test_as_many_runs_share_a_gpu_as_are_asked_for_or_as_keep_the_cores_busy() -> None:
    assert [places(2, 3, 16), places(2, 0, 16), places(4, 0, 6), places(8, 0, 2)] == [3, 8, 2, 1]
    with pytest.raises(GpuError, match="runs_per_gpu=-1: give 1 or more"):
        places(2, -1, 16)


def take(directory: Path, gpus: list[str] = GPUS[:2], runs: int = 2) -> Lease:
    place = lease(gpus, runs, lambda: False, directory)
    assert place is not None
    return place


def test_the_emptiest_gpu_comes_first_and_a_full_one_makes_wait(tmp_path: Path) -> None:
    held = [take(tmp_path) for _ in range(4)]
    assert [place.gpu for place in held] == [GPUS[0], GPUS[1], GPUS[0], GPUS[1]]
    answers = iter([False, False, True])
    assert lease(GPUS[:2], 2, lambda: next(answers), tmp_path, poll=0.001) is None
    os.close(held[1].descriptor)
    os.close(held[3].descriptor)
    last = take(tmp_path)
    assert last.gpu == GPUS[1]
    for place in (held[0], held[2], last):
        os.close(place.descriptor)


def test_a_place_is_held_until_the_last_process_with_it_is_gone(tmp_path: Path) -> None:
    place = take(tmp_path, GPUS[:1], 1)
    run = subprocess.Popen(["sleep", "60"], pass_fds=[place.descriptor])
    os.close(place.descriptor)  # as when the wrapper is killed
    answers = iter([False, True])
    assert lease(GPUS[:1], 1, lambda: next(answers), tmp_path, poll=0.001) is None
    run.kill()
    run.wait()
    os.close(take(tmp_path, GPUS[:1], 1).descriptor)


def test_a_folder_of_somebody_else_hands_out_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    (tmp_path / f"fisherbench-gpus-{os.getuid()}").symlink_to(tmp_path)
    with pytest.raises(OSError, match="not a folder of this user's"):
        lease(GPUS, 1, lambda: False)


def test_contention_and_kills_neither_book_twice_nor_lose_a_place(tmp_path: Path) -> None:
    """Two hundred cells on four GPUs of two places each, twelve processes, which SIGKILL hits at random."""
    token, chance = f"{os.getpid()}-{time.monotonic_ns()}", random.Random(0)
    command = [sys.executable, "-c", HOLDER, str(tmp_path), token, ",".join(GPUS)]

    def start() -> "subprocess.Popen[str]":
        return subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    holders, done, killed, used = [start() for _ in range(12)], 0, 0, set()
    while done < 200:
        for holder in holders:
            assert holder.stdin is not None
            holder.stdin.write("go\n")
            holder.stdin.flush()
        doomed = chance.randrange(12) if killed < 10 and chance.random() < 0.7 else None
        if doomed is not None:
            time.sleep(chance.random() * 0.02)
            os.kill(holders[doomed].pid, signal.SIGKILL)
        for number, holder in enumerate(holders):
            assert holder.stdout is not None
            said = holder.stdout.readline().strip()
            assert said != "double"
            done += said in GPUS
            used.add(said)
            if number == doomed:
                holder.communicate()
                holders[number], killed = start(), killed + 1
    for holder in holders:
        holder.communicate()
    assert killed >= 5
    assert used - {""} == set(GPUS)
    free = [take(tmp_path, GPUS) for _ in range(8)]  # nothing leaked
    for place in free:
        os.close(place.descriptor)
