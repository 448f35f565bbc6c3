"""Final scores beside published ones."""

from collections.abc import Sequence
from math import ceil

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures.panels import COLUMNS, algorithm_name, environment_name, legend_and_note, panels
from analysis.groups import source
from analysis.literature import Beside, ends
from analysis.statistics import MIN_RUNS
from analysis.style import GREY, Style, Styles, figure_style

OURS: Style = {"marker": "o", "markersize": 4.5, "linestyle": "none"}
COMPARABLE: Style = {"marker": "D", "markersize": 3.8, "linestyle": "none", "color": "#303030"}
OTHER: Style = {"marker": "D", "markersize": 3.2, "linestyle": "none", "color": "#A8A8A8", "markerfacecolor": "none"}


def literature(found: Sequence[Beside], styles: Styles) -> Figure:
    """A panel per environment and a row per algorithm: our runs and their interval above, published scores below.

    Published scores that are not comparable are open and grey.
    """
    envs = list(dict.fromkeys(one.group.env for one in found))
    variants = [v for v in styles if any(one.group.variant == v for one in found)]
    columns = min(COLUMNS, len(envs))
    with mpl.rc_context(figure_style()):
        figure, axes = panels(ceil(len(envs) / columns), columns, panel_height=0.55 + 0.26 * len(variants))
        for index, (panel, env) in enumerate(zip(axes, envs, strict=False)):
            for place, variant in enumerate(variants):
                here = [one for one in found if (one.group.env, one.group.variant) == (env, variant)]
                _draw(panel, here, len(variants) - 1 - place, styles)
            names = [algorithm_name(variant) for variant in reversed(variants)] if index % columns == 0 else []
            panel.set_yticks(range(len(variants)), names or [""] * len(variants))
            panel.set_ylim(-0.6, len(variants) - 0.4)
            panel.grid(axis="y", visible=False)
            panel.tick_params(axis="y", length=0)
            panel.set_title(environment_name(env))
        for index, panel in enumerate(axes):
            if index >= len(envs):
                panel.remove()
            elif index + columns >= len(envs):
                panel.set_xlabel("episode return")
        handles = [
            Line2D([], [], **OURS, color=GREY, label="here, over runs"),
            *([] if all(o.differs for o in found) else [Line2D([], [], **COMPARABLE, label="published, comparable")]),
            Line2D([], [], **OTHER, label="published, not comparable"),
        ]
        groups = list({id(one.group): one.group for one in found}.values())
        notes = [
            "not comparable: another algorithm, task version, budget or statistic (see the table); nothing is ranked",
            f"bars: interval over runs, small dots: the runs where they are fewer than {MIN_RUNS}",
        ]
        legend_and_note(figure, handles, [*notes, source(groups)])
    return figure


def _draw(panel: Axes, here: Sequence[Beside], height: float, styles: Styles) -> None:
    if not here:
        return
    group = here[0].group
    color = styles[group.variant]["color"]
    low, high = ends(group)
    if low is None or high is None:
        panel.plot(group.finals, np.full(len(group.finals), height + 0.2), ".", color=color, markersize=2.5, zorder=2)
    else:
        panel.hlines(height + 0.2, low, high, color=color, linewidth=1.2, zorder=2)
    panel.plot(group.final, height + 0.2, color=color, **OURS, zorder=4)
    for one in here:
        style, above = (OTHER, 2) if one.differs else (COMPARABLE, 5)
        panel.plot(one.published.score, height - 0.2, **style, zorder=above)
