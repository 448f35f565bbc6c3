"""Saying things: no terminal, pipe or disk that is gone can fail a run."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from command.output import Unfailing, never_fail
from tracking.identity import REPOSITORY

TALK = """
import logging, sys, traceback
from pathlib import Path

from tqdm import tqdm

from command.output import never_fail

never_fail()
never_fail()  # once is enough, and twice no harm
logging.basicConfig(level=logging.INFO)
sys.stdin.readline()  # until nobody listens
for _ in range(3):
    print("x" * 100_000)
    print("größe", file=sys.stderr, flush=True)
    logging.info("more")
    for _ in tqdm(range(3), file=sys.stderr):
        pass
    try:
        1 / 0
    except ZeroDivisionError:
        traceback.print_exc()
Path(sys.argv[1]).write_text("to the end")
"""


@pytest.mark.parametrize("how", ["gone", "full", "closed"])
def test_a_process_that_nobody_hears_goes_on_and_ends_well(tmp_path: Path, how: str) -> None:
    """As in `train.py ... 2>&1 | head -1`, on a full disk, and started with `>&- 2>&-`."""
    reader, writer = os.pipe()
    if how == "full":
        if not Path("/dev/full").exists():
            pytest.skip("needs a device without space")
        os.close(writer)
        writer = os.open("/dev/full", os.O_WRONLY)
    script = [sys.executable, "-c", TALK, str(tmp_path / "end")]
    shell = ["bash", "-c", 'exec "$@" >&- 2>&-', "bash"] if how == "closed" else []
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}  # of a terminal that cannot say everything
    with subprocess.Popen(
        [*shell, *script], stdin=subprocess.PIPE, stdout=writer, stderr=writer, cwd=REPOSITORY, env=environment
    ) as process:
        os.close(writer)
        os.close(reader)
        process.communicate(b"\n", timeout=30)
    assert process.returncode == 0
    assert (tmp_path / "end").read_text() == "to the end"


def test_what_can_be_said_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    never_fail()
    assert isinstance(sys.stdout, Unfailing)
    print("größe", end="")
    assert sys.stdout.buffer.getvalue() == rb"gr\xf6\xdfe"
    assert not sys.stdout.isatty()
