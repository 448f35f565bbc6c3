"""Learning curves: small multiples over the environments and, where scores have a common scale, one panel of all."""

from collections.abc import Sequence
from math import ceil

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis.aggregate import Aggregate
from analysis.cells import Cell
from analysis.condensed import SCORE
from analysis.curves import Floats
from analysis.external import External
from analysis.figures.panels import (
    COLUMNS,
    DOTS,
    draw_runs,
    environment_name,
    legend_and_note,
    note_on_runs,
    panels,
    say_if_empty,
    steps_axis,
    steps_label,
    steps_unit,
    variant_handles,
)
from analysis.groups import Group, source
from analysis.statistics import centre
from analysis.style import GREY, Style, Styles, algorithm_name, figure_style

X_AXES = ("steps", "updates", "time")
"""What a learning curve is drawn over: environment steps, updates, or processor time."""
LABELS = {"updates": "updates", "time": "processor time (minutes)"}
EXTERNAL_LINE = 0.9


def learning_curves(
    groups: Sequence[Group],
    styles: Styles,
    total_steps: int,
    random: dict[str, float],
    x: str = "steps",
    aggregates: Sequence[Aggregate] = (),
    external: Sequence[External] = (),
) -> Figure:
    """Score against environment steps, updates or processor time; one panel per environment, one line per variant.

    Args:
        groups: a panel for each of their environments, in order. Unfinished runs are drawn thinly as far as
            they got, with a cross at the end.
        styles: of every variant of the suite, and of the external ones.
        total_steps: the budget of a run.
        random: mean return of the random policy by environment.
        x: one of `X_AXES`. Processor time is that of the whole run, spread evenly over its steps.
        aggregates: normalised curves over all tasks, for a panel of their own; over environment steps alone.
        external: curves from elsewhere; over environment steps alone.
    """
    envs = list(dict.fromkeys(group.env for group in groups))
    extra = [] if x != "steps" else list(aggregates)
    count = len(envs) + bool(extra)
    columns = min(COLUMNS, count)
    with mpl.rc_context(figure_style()):
        figure, axes = panels(ceil(count / columns), columns, panel_height=1.6)
        for panel, env in zip(axes, envs, strict=False):
            here = [group for group in groups if group.env == env]
            for group in here:
                _draw_group(panel, group, styles[group.variant], x)
            for curves in (one for one in external if one.env == env and x == "steps"):
                _draw_external(panel, curves, styles[curves.variant])
            say_if_empty(panel)
            if np.isfinite(random.get(env, np.nan)):
                panel.axhline(random[env], color=GREY, linewidth=0.8, linestyle=DOTS, zorder=1)
            panel.set_title(environment_name(env))
        if extra:
            _draw_aggregates(axes[len(envs)], extra, styles)
        for panel in axes[count:]:
            panel.remove()
        if extra and len(envs) % columns == 0:  # alone in its row
            grid = axes[0].get_gridspec()
            assert grid is not None
            axes[len(envs)].set_subplotspec(grid[-1, :])
        if x == "steps":
            labels = [steps_label([group for group in groups if group.env == env], total_steps) for env in envs]
            for index, panel in enumerate(axes[: len(envs)]):
                below = labels[index + columns : index + columns + 1]
                steps_axis(panel, total_steps, "" if [labels[index]] == below else labels[index])  # one for a column
            if extra:
                steps_axis(axes[len(envs)], total_steps, f"environment steps ({steps_unit(total_steps)[1]})")
        else:
            for index, panel in enumerate(axes[:count]):
                panel.set_xlim(0, None)
                panel.xaxis.set_major_locator(MaxNLocator(5))
                panel.set_xlabel(LABELS[x] if index + columns >= count else "")
        for index, panel in enumerate(axes[: len(envs)]):
            panel.set_ylabel("episode return" if index % columns == 0 else "")
        handles = variant_handles([group for group in groups if any(cell.run for cell in group.cells)], styles)
        shown = dict.fromkeys(one.variant for one in external if x == "steps")
        handles += [Line2D([], [], **styles[v], linewidth=EXTERNAL_LINE, label=algorithm_name(v)) for v in shown]
        if random:
            handles.append(Line2D([], [], color=GREY, linewidth=0.8, linestyle=DOTS, label="random policy"))
        notes = note_on_runs(groups, unfinished="drawn thinly up to ×")
        if extra:
            notes.append(f"all tasks: {extra[0].words}")
        if x == "time":
            notes.append("time of a whole run, spread evenly over its steps")
        if shown:
            notes.append("external: from elsewhere, IQM over their runs; no part of the comparison")
        legend_and_note(figure, handles, [*notes, source(groups)])
    return figure


def _draw_group(panel: Axes, group: Group, style: Style, x: str) -> None:
    places = [_places(cell, group.scores.steps, x) for cell in group.runs]
    known = [place for place in places if place is not None]
    if known and len(known) == len(places):
        draw_runs(panel, np.median(known, axis=0), group.scores.values, group.draws, style)
    for cell in group.cells:
        if cell.state != "finished" and cell.run is not None:
            _draw_unfinished(panel, cell, style, x)


def _places(cell: Cell, steps: Floats, x: str) -> Floats | None:
    """Where the points of the grid lie on the axis, (K,); None for a run that does not say."""
    run = cell.run
    if run is None or x == "steps":
        return steps
    if x == "time":
        return None if run.cpu_time is None else run.cpu_time / 60 * steps / run.env_steps
    return run.counts["updates"] * steps / run.env_steps


def _draw_unfinished(panel: Axes, cell: Cell, style: Style, x: str) -> None:
    assert cell.run is not None
    curve = cell.run.curves[SCORE]
    scored = curve.measurements > 0
    places = _places(cell, curve.steps, x)
    if places is None:
        return
    thin = style | {"linestyle": "-", "linewidth": 0.6, "alpha": 0.6}
    panel.plot(places[scored], curve.values[scored], **thin, zorder=2)
    cross: Style = {"marker": "x", "markersize": 4, "clip_on": False, "zorder": 4}
    panel.plot(places[scored][-1:], curve.values[scored][-1:], **style, **cross)


def _draw_external(panel: Axes, curves: External, style: Style) -> None:
    """The aggregate over the runs that have a score, without a band: these runs are no part of the comparison."""
    whole = ~np.isnan(curves.values).any(axis=0)
    panel.plot(
        curves.steps[whole], centre(curves.values[:, whole], axis=0), **style, linewidth=EXTERNAL_LINE, zorder=2.8
    )


def _draw_aggregates(panel: Axes, aggregates: Sequence[Aggregate], styles: Styles) -> None:
    for one in aggregates:
        style = styles[one.variant]
        panel.plot(one.steps, one.curve, **style, zorder=3)
        if one.band:
            panel.fill_between(one.steps, *one.band, color=style["color"], alpha=0.18, linewidth=0, zorder=2)
    panel.axhline(0, color=GREY, linewidth=0.8, linestyle=DOTS, zorder=1)
    panel.set_title(f"All {aggregates[0].tasks} tasks")
    panel.set_ylabel("normalised score")
