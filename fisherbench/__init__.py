"""FisherBench in Python: load the policy of a finished run, play it, measure its geometry.

    from fisherbench import load_policy
    policy = load_policy("results/adhoc/runs/hopper/trpo/seed-0")

The rooms that it is made of (envs/, algorithms/, tracking/ and others) are installed under no name. They are found
beside this package, in the checkout that `pip install -e .` was given.
"""

import sys
from pathlib import Path

_REPOSITORY = Path(__file__).resolve().parents[1]
if not (_REPOSITORY / "algorithms").is_dir():
    raise ImportError(
        f"fisherbench: {_REPOSITORY} is no checkout of FisherBench; install it with pip install -e PATH_OF_THE_CHECKOUT"
    )
if str(_REPOSITORY) not in sys.path:
    sys.path.append(str(_REPOSITORY))  # last, so that it hides no module of the user's

from fisherbench.geometry import Geometry  # noqa: E402
from fisherbench.policy import LoadedPolicy, Sample, load_policy  # noqa: E402

__all__ = ["Geometry", "LoadedPolicy", "Sample", "load_policy"]
