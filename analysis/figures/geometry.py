"""Geometry of the updates on one environment: Fisher trace, KL per step and manifold alignment error."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MultipleLocator

from analysis.cells import values_of
from analysis.curves import Curve, Floats
from analysis.figures.panels import (
    LONG_DASHES,
    algorithm_name,
    draw_runs,
    environment_name,
    legend_and_note,
    log_axis,
    note_on_runs,
    panels,
    say_if_empty,
    setting_in_words,
    steps_axis,
    steps_label,
    variant_handles,
)
from analysis.groups import Group, source
from analysis.statistics import MIN_RUNS, centre, percentile_interval, resampled_iqm
from analysis.style import GREY, Styles, figure_style

DECADES = {"fisher_trace": 6, "kl": 3}
"""Of a logarithmic axis at most: a run whose policy has become deterministic has a trace and a KL near 0."""
DIPS, DIP = 0.05, 2
"""This quantile of a line of KL, and what is not further below it than this factor, is in view; dips such as of a
learning rate near 0 may leave the panel."""
PARTS = 8
"""Equal parts of a run, of each of which the alignment error is shown as one point."""
MARKERS = "os^DvPX"
FOLLOWS_DELTA = ("normalised", "kl", "line_search", None)
"""Step rules that aim at `algorithm.delta`; an algorithm that is no pair has none."""


def geometry(groups: Sequence[Group], styles: Styles, total_steps: int) -> Figure:
    """Fisher trace, KL per accepted step and manifold alignment error of the runs on one environment.

    Each variant's own δ is a line of its colour, grey where several share it; an algorithm that aims at no δ has none.
    """
    drawn = [group for group in groups if group.runs]
    with mpl.rc_context(figure_style()):
        figure, axes = panels(1, 3, panel_height=1.75)
        trace, kl, alignment = axes
        gaps = set()
        for panel, name in ((trace, "fisher_trace"), (kl, "kl")):
            for group in drawn:
                curves = group.kpi(name)
                draw_runs(panel, curves.steps, curves.values, group.draws, styles[group.variant])
                known = ~np.isnan(curves.values)
                if (known.any(axis=0) & ~known.all(axis=0)).any():
                    gaps.add(group.variant)
        for place, group in enumerate(drawn):
            offset = (place - (len(drawn) - 1) / 2) * 0.012 * total_steps
            _draw_points(alignment, group, styles, _marker(groups, group), offset)
        for panel in axes:
            say_if_empty(panel, positive=panel is not alignment)
        deltas = _draw_deltas(kl, drawn, styles)
        trace.set(title=r"Fisher trace $\mathrm{tr}\,F$", yscale="log")
        kl.set(title=r"KL per step $D$", yscale="log")
        lines = _kl_lines(drawn)
        log_axis(kl, DECADES["kl"], _in_view(lines, deltas))
        cut = log_axis(trace, DECADES["fisher_trace"]) or any((line < kl.get_ylim()[0]).any() for line in lines)
        for panel in axes:
            steps_axis(panel, total_steps, steps_label(groups, total_steps))
        alignment.set_title(r"Manifold alignment error $e$")
        rho = setting_in_words("diagnostics.rho", groups)
        alignment.set_ylabel(rf"$e$ at $\rho = {rho}$" if rho else "$e$")
        alignment.yaxis.set_major_locator(MultipleLocator(0.25))
        alignment.set_ylim(0, min(2, max(1.05, alignment.get_ylim()[1])))
        handles = variant_handles(drawn, styles)
        for handle, group in zip(handles, sorted(drawn, key=lambda g: list(styles).index(g.variant)), strict=True):
            handle.set(marker=_marker(groups, group), markersize=3.5)
        if deltas:
            handles.append(Line2D([], [], color=GREY, linewidth=0.9, linestyle=LONG_DASHES, label=r"own $\delta$"))
        legend_and_note(figure, handles, [*_notes(drawn, gaps, cut), *_ends(groups)], environment_name(groups[0].env))
    return figure


def _notes(groups: Sequence[Group], gaps: set[str], cut: bool) -> list[str]:
    unsolved = [algorithm_name(group.variant) for group in groups if group.unsolved]
    gapped = [algorithm_name(group.variant) for group in groups if group.variant in gaps]
    notes = []
    if unsolved:
        notes.append(f"$e$ of {', '.join(unsolved)}: not every natural gradient is solved to the tolerance")
    if gapped:
        notes.append(f"{', '.join(gapped)}: no line where one of the runs has no value")
    if cut:
        notes.append("what lies far below the lines is cut off")
    return notes


def _ends(groups: Sequence[Group]) -> list[str]:
    bars = "bars as the band" if any(len(group.runs) >= MIN_RUNS for group in groups) else "bars: range over runs"
    points = f"$e$: means of at most {PARTS} parts of a run without its first update; {bars}"
    return [*note_on_runs(groups, unfinished="not drawn"), points, source(groups)]


def _marker(groups: Sequence[Group], group: Group) -> str:
    return MARKERS[list(groups).index(group) % len(MARKERS)]


def _draw_points(panel: Axes, group: Group, styles: Styles, marker: str, offset: float) -> None:
    """The alignment error as points in their intervals, or in the range of the runs where these are few."""
    x, values = in_parts(group.kpi("alignment_error"))
    color = styles[group.variant]["color"]
    middle = centre(values, axis=0)
    few = len(values) < MIN_RUNS
    low, high = (
        (values.min(axis=0), values.max(axis=0))
        if few
        else percentile_interval(resampled_iqm(values, group.draws), [len(values)])
    )
    panel.vlines(x + offset, low, high, color=color, linewidth=0.9, alpha=0.7, zorder=2, clip_on=False)
    panel.plot(x + offset, middle, color=color, linestyle="none", marker=marker, markersize=3, zorder=3, clip_on=False)


def in_parts(curve: Curve) -> tuple[Floats, Floats]:
    """Means over `PARTS` consecutive parts of a run's measurements, the first left out where there are others.

    Args:
        curve: `steps` (P,), `values` (runs, P).

    Returns:
        Mean steps, (≤ PARTS,), and means of the runs, (runs, ≤ PARTS); NaN where a run has no value in a part.
    """
    later = slice(1 if len(curve.steps) > 1 else 0, None)
    steps, values = curve.steps[later], curve.values[:, later]
    parts = [part for part in np.array_split(np.arange(len(steps)), PARTS) if part.size]
    if not parts:
        return steps, values
    known = ~np.isnan(values)
    counts = np.stack([known[:, part].sum(axis=1) for part in parts], axis=1)
    sums = np.stack([np.where(known, values, 0)[:, part].sum(axis=1) for part in parts], axis=1)
    means = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
    return np.array([steps[part].mean() for part in parts]), means


def own_delta(group: Group) -> float | None:
    """KL per update that the variant aims at, nats; None where it aims at none, or its runs at several."""
    rules = values_of("algorithm.step_rule", group.cells)
    deltas = values_of("algorithm.delta", group.cells)
    if len(deltas) != 1 or not isinstance(deltas[0], int | float) or any(rule not in FOLLOWS_DELTA for rule in rules):
        return None
    return float(deltas[0])


def _draw_deltas(panel: Axes, groups: Sequence[Group], styles: Styles) -> list[float]:
    """A dashed line for every δ that some variant aims at; returns them."""
    owners: dict[float, list[str]] = {}
    for group in groups:
        if (delta := own_delta(group)) is not None:
            owners.setdefault(delta, []).append(group.variant)
    for delta, variants in owners.items():
        color = styles[variants[0]]["color"] if len(variants) == 1 else GREY
        panel.axhline(delta, color=color, linewidth=0.9, linestyle=LONG_DASHES, alpha=0.8, zorder=2.5)
        place = panel.get_yaxis_transform()
        panel.text(1.015, delta, rf"$\delta$ {delta:g}", transform=place, va="center", color=color, fontsize=7)
    return sorted(owners)


def _kl_lines(groups: Sequence[Group]) -> list[Floats]:
    """The positive values of every line of KL."""
    lines = [centre(group.kpi("kl").values, axis=0) for group in groups]
    return [line[np.isfinite(line) & (line > 0)] for line in lines]


def _in_view(lines: Sequence[Floats], deltas: Sequence[float]) -> Floats:
    """Values that the axis of KL spans: of every line all but its lowest dips, and every δ."""
    ends = [(max(line.min(), np.quantile(line, DIPS) / DIP), line.max()) for line in lines if line.size]
    return np.array([*deltas, *np.ravel(ends)], dtype=np.float64)
