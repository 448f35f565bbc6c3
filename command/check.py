"""Which settings train.py would refuse, found out without a run: `python -m command.check < OVERRIDES`.

Reads a JSON list with the overrides of each run, and prints a JSON list: for each why it would be refused, or null.
"""

import json
import sys
from collections.abc import Sequence

from hydra import compose, initialize_config_dir

from command.cli import check
from command.failures import describe
from command.refusals import COMPOSING, explain
from settings import typed
from tracking.identity import REPOSITORY


def refusal(overrides: Sequence[str]) -> str | None:
    """Why a run with these overrides would be refused; None if it would be trained."""
    try:
        with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
            composed = compose("config", list(overrides))
        check(typed(composed))
    except (*COMPOSING, ValueError) as error:
        return explain(error)
    except Exception as error:  # whatever else keeps a run from its first step
        return describe(error)
    return None


if __name__ == "__main__":
    json.dump([refusal(overrides) for overrides in json.load(sys.stdin)], sys.stdout)
