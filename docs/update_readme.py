"""Bring the README's figure and table up to date with results/published/quick.

    python docs/update_readme.py

So no number in the README is typed.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = "results/published/quick"
BLOCK = re.compile(r"(<!-- quick: .*? -->\n).*?(<!-- /quick -->)", re.DOTALL)


def block() -> str:
    """What the README shows between its markers."""
    table = (ROOT / PUBLISHED / "tables" / "final_scores.md").read_text(encoding="utf-8")
    return (
        f"\n![Learning curves of the suite quick]({PUBLISHED}/figures/learning_curves.png)\n\n"
        f"{table.strip()}\n\n"
        f"All tables of these runs: [{PUBLISHED}]({PUBLISHED}/tables/index.md).\n\n"
    )


def main() -> None:
    """Rewrite the block; an unpublished suite ends it in one line."""
    try:
        text = block()
    except FileNotFoundError as error:
        sys.exit(f"{error.filename}: no such file; run `make quick` and `snakemake publish --config suite=quick` first")
    readme = ROOT / "README.md"
    readme.write_text(BLOCK.sub(lambda m: m[1] + text + m[2], readme.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
