"""What the pages in docs/ show, so that tests can run it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def copy_of_the_repository(target: Path) -> Path:
    """A copy in which training, suites and tests work and a page's files can be added."""
    for room in ("algorithms", "command", "conf", "envs", "pipeline", "tests", "tracking", "training"):
        shutil.copytree(ROOT / room, target / room, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("train.py", "settings.py", "pyproject.toml"):
        shutil.copy(ROOT / file, target)
    return target


def follow(page: str, repository: Path) -> list[tuple[str, str]]:
    """Do what the page says, in order: write its files, run its commands; returns (command, what it printed).

    Asserts that no file is there before and that every command exits with 0.
    """
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    said = []
    for language, title, text in BLOCK.findall((ROOT / "docs" / page).read_text(encoding="utf-8")):
        if title:
            file = repository / title
            assert not file.exists(), f"{title} is no new file"
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
            continue
        assert language == "bash", f"{page}: a block of {language} with no title is neither a file nor a command"
        for command in text.splitlines():
            done = subprocess.run(
                ["bash", "-o", "pipefail", "-c", command],
                cwd=repository,
                env=environment,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
            said.append((command, done.stdout))
    return said
