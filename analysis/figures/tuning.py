"""Figure of a search for settings: scores against ranks."""

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.groups import Results
from analysis.style import KNOWN, WIDTH, Style, algorithm_name, figure_style, line_styles, ordered
from analysis.tuning import DEFAULTS, trials

RING: Style = {"marker": "o", "markersize": 6, "markerfacecolor": "none", "linestyle": "none"}


def tuning(results: Results) -> Figure:
    """Score against rank, a line for each algorithm: how much tuning buys it, and how flat its best is.

    A ring marks the defaults.
    """
    found = [trial for trial in trials(results) if trial.score is not None]
    algorithms = ordered(trial.algorithm for trial in found)
    styles = line_styles(algorithms)
    with mpl.rc_context(figure_style()):
        drawn = Figure(figsize=(WIDTH / 2, 2.6), layout="constrained")
        panel = drawn.add_subplot()
        for algorithm in algorithms:
            mine = [trial for trial in found if trial.algorithm == algorithm]
            points = np.array([(trial.rank, trial.score) for trial in mine], dtype=np.float64)
            panel.plot(*points.T, **styles[algorithm], marker=".", markersize=3, label=algorithm_name(algorithm))
            defaults = points[[trial.number == DEFAULTS for trial in mine]]
            panel.plot(*defaults.T, color=styles[algorithm]["color"], **RING)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set_xlabel("rank of the configuration")
        panel.set_ylabel("normalised score, mean over tasks")
        if algorithms:
            panel.legend(loc="best", frameon=False, ncols=1 if len(algorithms) <= len(KNOWN) else 2)
        else:
            panel.text(0.5, 0.5, "no configuration is complete", ha="center", transform=panel.transAxes)
        drawn.supxlabel(f"rings: the defaults. {results.source}", fontsize=5, x=0.01, ha="left")
    return drawn
