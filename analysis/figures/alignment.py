"""Alignment error against the damping of the metric that it is measured in."""

from collections.abc import Sequence
from math import ceil

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MultipleLocator, NullFormatter

from analysis.alignment import AlignmentCurves
from analysis.figures.panels import (
    COLUMNS,
    draw_runs,
    environment_name,
    legend_and_note,
    note_on_runs,
    panels,
    variant_handles,
)
from analysis.groups import Group, source
from analysis.statistics import centre
from analysis.style import GREY, Style, Styles, figure_style

OWN_DAMPING: Style = {"marker": "v", "markersize": 3.5, "linestyle": "none", "clip_on": False}
UNSOLVED = "open dots: not every natural gradient behind them is solved to the tolerance"


def alignment_curves(groups: Sequence[Group], styles: Styles) -> Figure:
    """Manifold alignment error e against the damping ρ it is measured with, one panel per environment.

    Args:
        groups: a panel for each environment on which some runs took snapshots, in order.
        styles: of every variant of the suite.
    """
    drawn = [(group, curves) for group in groups if (curves := group.alignment)]
    envs = list(dict.fromkeys(group.env for group, _ in drawn))
    columns = min(COLUMNS, len(envs))
    with mpl.rc_context(figure_style()):
        figure, axes = panels(ceil(len(envs) / columns), columns, panel_height=1.75)
        for index, panel in enumerate(axes[: len(envs)]):
            here = [(group, curves) for group, curves in drawn if group.env == envs[index]]
            for group, curves in here:
                _draw_alignment(panel, group, curves, styles[group.variant])
            _mark_own_damping(panel, here, styles)
            panel.set_title(environment_name(envs[index]))
            panel.set_ylabel(r"alignment error $e$" if index % columns == 0 else "")
            panel.set_xlabel(r"damping $\rho = \lambda d/\mathrm{tr}\,F$" if index + columns >= len(envs) else "")
        for panel in axes[len(envs) :]:
            panel.remove()
        _damping_axes(axes[: len(envs)], [curves for _, curves in drawn])
        handles = variant_handles([group for group, _ in drawn], styles)
        if any(curves.rho_own for _, curves in drawn):
            handles.append(Line2D([], [], **OWN_DAMPING, color=GREY, label="own damping"))
        later = max(1, max(curves.snapshots for _, curves in drawn) - 1)
        notes = [] if all(curves.converged.all() for _, curves in drawn) else [UNSOLVED]
        notes += [
            r"$e = 0$: along the natural gradient of $F + \lambda I$; for large $\rho$ that is the plain gradient",
            f"each run: its mean over {later} update{'s, spread over the training' if later > 1 else ''}",
            *note_on_runs([group for group, _ in drawn], unfinished="not drawn"),
        ]
        legend_and_note(figure, handles, [*notes, source(groups)])
    return figure


def _draw_alignment(panel: Axes, group: Group, curves: AlignmentCurves, style: Style) -> None:
    draw_runs(panel, curves.rhos, curves.errors, group.draws_of(len(curves.errors)), style)
    mean = centre(curves.errors, axis=0)
    for shown, face in ((curves.converged, style["color"]), (~curves.converged, "white")):
        dots: Style = {"marker": "o", "markersize": 2.2, "markerfacecolor": face, "markeredgewidth": 0.7}
        panel.plot(curves.rhos[shown], mean[shown], color=style["color"], linestyle="none", **dots, zorder=3.5)


def _mark_own_damping(panel: Axes, drawn: Sequence[tuple[Group, AlignmentCurves]], styles: Styles) -> None:
    """Triangles at the top, one below the other, since NPG's and TRPO's are nearly the same."""
    marked = [(group, curves.rho_own) for group, curves in drawn if curves.rho_own]
    for place, (group, rho) in enumerate(marked):
        height, color = 0.96 - 0.07 * place, styles[group.variant]["color"]
        panel.plot(rho, height, color=color, **OWN_DAMPING, transform=panel.get_xaxis_transform(), zorder=4)


def _damping_axes(panels: Sequence[Axes], drawn: Sequence[AlignmentCurves]) -> None:
    """One damping axis for all panels, wide enough for every algorithm's own, and one for e from 0 on."""
    low, high = min(c.rhos[0] for c in drawn), max(c.rhos[-1] for c in drawn)
    high = max([high, *(c.rho_own for c in drawn if c.rho_own)])
    top = max(panel.get_ylim()[1] for panel in panels)
    for panel in panels:
        panel.set(xscale="log", xlim=(low / 1.25, high * 1.25), ylim=(0, min(2, max(1.05, top))))
        panel.xaxis.set_major_locator(LogLocator())
        panel.xaxis.set_minor_locator(LogLocator(subs=(3,)))
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.yaxis.set_major_locator(MultipleLocator(0.25))
