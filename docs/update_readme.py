"""Bring the README's figure and tables up to date with the runs in results/quick.

    python docs/update_readme.py

Copies what it shows to docs/quick/, with the list of the runs behind it, so that no number in the README is typed.
"""

import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS, COPY = ROOT / "results" / "quick", ROOT / "docs" / "quick"
SHOWN = ("figures/learning_curves.png", "tables/final_scores.md", "tables/sample_efficiency.md", "tables/cells.csv")
BLOCK = re.compile(r"(<!-- quick: .*? -->\n).*?(<!-- /quick -->)", re.DOTALL)


def block(copy: Path = COPY) -> str:
    """What the README shows between its markers."""
    return (
        "\n![Learning curves of the suite quick](docs/quick/learning_curves.png)\n\n"
        f"{(copy / 'final_scores.md').read_text(encoding='utf-8').strip()}\n\n"
        "Sample efficiency of the same runs: [docs/quick/sample_efficiency.md](docs/quick/sample_efficiency.md); "
        "the runs themselves: [docs/quick/cells.csv](docs/quick/cells.csv).\n\n"
    )


def main() -> None:
    """Copy and rewrite; a missing file ends it in one line."""
    missing = [name for name in SHOWN if not (RESULTS / name).is_file()]
    if missing:
        sys.exit(f"{RESULTS / missing[0]}: no such file; run `make quick` first")
    COPY.mkdir(exist_ok=True)
    for name in SHOWN:
        shutil.copyfile(RESULTS / name, COPY / Path(name).name)
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    readme.write_text(BLOCK.sub(lambda m: m[1] + block() + m[2], text), encoding="utf-8")


if __name__ == "__main__":
    main()
