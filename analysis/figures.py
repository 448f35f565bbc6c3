"""Figures of a suite: alignment curves, learning curves, and per environment the geometry of the updates.

A line is the IQM over the finished runs, in a band that is the pointwise 95 % percentile bootstrap interval
over runs. With fewer than three finished runs every run is a thin line of its own, and the thick line is
their mean. Where one of the runs has no value, the line has none. What a figure shows is written under it.
"""

from collections.abc import Sequence
from math import ceil
from pathlib import Path

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, MultipleLocator, NullFormatter

from analysis.alignment import AlignmentCurves
from analysis.cells import values_of
from analysis.condensed import SCORE
from analysis.curves import Floats
from analysis.groups import Group, source
from analysis.statistics import MIN_RUNS, Draws, iqm, percentile_interval, resampled_iqm
from analysis.style import GREY, WIDTH, Style, Styles, figure_style
from analysis.style import algorithm_name as plain_algorithm_name
from analysis.style import environment_name as plain_environment_name
from analysis.tables.formats import mathtext

SOFTWARE = f"Matplotlib {mpl.__version__}"
COLUMNS = 3
DOTS = (0, (1, 1.5))
LONG_DASHES = (0, (5, 2.5))
OWN_DAMPING: Style = {"marker": "v", "markersize": 3.5, "linestyle": "none", "clip_on": False}
LINE = 0.17
"""Height of a line of the legend, inches."""
FEW_POINTS = 4
"""Up to this many points a line also has markers, so that a tiny budget shows at all."""
DECADES = 6
"""Of a logarithmic axis at most: a run whose policy has become deterministic has a trace and a KL near 0."""


def algorithm_name(variant: str) -> str:
    """Display name of a variant, as text to Matplotlib."""
    return mathtext(plain_algorithm_name(variant))


def environment_name(env: str) -> str:
    """Display name of an environment, as text to Matplotlib."""
    return mathtext(plain_environment_name(env))


def save_figure(figure: Figure, path: Path, source: str) -> None:
    """Write `path`.png and `path`.pdf with their source, without time stamps: equal data give equal files.

    PNG has `source` under Source and Matplotlib's version under Software, PDF under Subject and Producer.
    """
    in_pdf = {"CreationDate": None, "Creator": None, "Producer": SOFTWARE, "Subject": source}
    with mpl.rc_context(figure_style()):
        figure.savefig(f"{path}.png", metadata={"Software": SOFTWARE, "Source": source})
        figure.savefig(f"{path}.pdf", metadata=in_pdf)


def learning_curves(groups: Sequence[Group], styles: Styles, total_steps: int, random: dict[str, float]) -> Figure:
    """Score against environment steps, one panel per environment, one line per variant.

    Args:
        groups: a panel for each of their environments, in order. Unfinished runs are drawn thinly as far as
            they got, with a cross at the end.
        styles: of every variant of the suite.
        total_steps: the budget of a run.
        random: mean return of the random policy by environment.
    """
    envs = list(dict.fromkeys(group.env for group in groups))
    columns = min(COLUMNS, len(envs))
    with mpl.rc_context(figure_style()):
        figure, panels = _panels(ceil(len(envs) / columns), columns, panel_height=1.6)
        for panel, env in zip(panels, envs, strict=False):
            for group in [group for group in groups if group.env == env]:
                if group.runs:
                    _draw_runs(panel, group.scores.steps, group.scores.values, group.draws, styles[group.variant])
                _draw_unfinished(panel, group, styles[group.variant])
            _say_if_empty(panel)
            if np.isfinite(random.get(env, np.nan)):
                panel.axhline(random[env], color=GREY, linewidth=0.8, linestyle=DOTS, zorder=1)
            panel.set_title(environment_name(env))
        for panel in panels[len(envs) :]:
            panel.remove()
        labels = [_steps_label([group for group in groups if group.env == env], total_steps) for env in envs]
        for index, panel in enumerate(panels[: len(envs)]):
            below = labels[index + columns : index + columns + 1]
            _steps_axis(panel, total_steps, "" if [labels[index]] == below else labels[index])  # one for a column
            panel.set_ylabel("episode return" if index % columns == 0 else "")
        handles = _handles([group for group in groups if any(cell.run for cell in group.cells)], styles)
        if random:
            handles.append(Line2D([], [], color=GREY, linewidth=0.8, linestyle=DOTS, label="random policy"))
        _legend_and_note(figure, handles, [_note(groups, unfinished="drawn thinly up to ×"), source(groups)])
    return figure


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
        figure, panels = _panels(ceil(len(envs) / columns), columns, panel_height=1.75)
        for index, panel in enumerate(panels[: len(envs)]):
            here = [(group, curves) for group, curves in drawn if group.env == envs[index]]
            for group, curves in here:
                _draw_alignment(panel, group, curves, styles[group.variant])
            _mark_own_damping(panel, here, styles)
            panel.set_title(environment_name(envs[index]))
            panel.set_ylabel(r"alignment error $e$" if index % columns == 0 else "")
            panel.set_xlabel(r"damping $\rho = \lambda d/\mathrm{tr}\,F$" if index + columns >= len(envs) else "")
        for panel in panels[len(envs) :]:
            panel.remove()
        _damping_axes(panels[: len(envs)], [curves for _, curves in drawn])
        handles = _handles([group for group, _ in drawn], styles)
        if any(curves.rho_own for _, curves in drawn):
            handles.append(Line2D([], [], **OWN_DAMPING, color=GREY, label="own damping"))
        later = max(1, max(curves.snapshots for _, curves in drawn) - 1)
        notes = [
            r"$e = 0$: along the natural gradient of $F + \lambda I$; for large $\rho$ that is the plain gradient",
            f"each run: its mean over {later} update{'s, spread over the training' if later > 1 else ''}",
            _note([group for group, _ in drawn], unfinished="not drawn"),
        ]
        if not all(curves.converged.all() for _, curves in drawn):
            notes.append("open dots: not every natural gradient behind them is solved to the tolerance")
        _legend_and_note(figure, handles, [*notes, source(groups)])
    return figure


def geometry(groups: Sequence[Group], styles: Styles, total_steps: int, delta_ref: float) -> Figure:
    """Fisher trace, KL per accepted step and manifold alignment error of the runs on one environment."""
    with mpl.rc_context(figure_style()):
        figure, panels = _panels(1, 3, panel_height=1.75)
        trace, kl, alignment = panels
        gaps = set()
        for panel, name in ((trace, "fisher_trace"), (kl, "kl"), (alignment, "alignment_error")):
            for group in groups:
                if group.runs:
                    curves = group.kpi(name)
                    _draw_runs(panel, curves.steps, curves.values, group.draws, styles[group.variant])
                    known = ~np.isnan(curves.values)
                    if (known.any(axis=0) & ~known.all(axis=0)).any():
                        gaps.add(group.variant)
            _say_if_empty(panel, positive=panel is not alignment)
            _steps_axis(panel, total_steps, _steps_label(groups, total_steps))
        trace.set(title=r"Fisher trace $\mathrm{tr}\,F$", yscale="log")
        kl.set(title=r"KL per step $D$", yscale="log")
        bottom, top = kl.get_ylim()
        kl.set_ylim(min(bottom if bottom > 0 else delta_ref, delta_ref / 1.5), max(top, delta_ref * 1.5))
        kl.axhline(delta_ref, color=GREY, linewidth=0.9, linestyle=LONG_DASHES, zorder=2.5)
        kl.annotate(r"$\delta$", (1.015, delta_ref), xycoords=kl.get_yaxis_transform(), va="center", color=GREY)
        cut = [_log_axis(trace), _log_axis(kl, delta_ref)]
        alignment.set_title(r"Manifold alignment error $e$")
        rho = _values("diagnostics.rho", groups)
        alignment.set_ylabel(rf"$e$ at $\rho = {rho}$" if rho else "$e$")
        alignment.yaxis.set_major_locator(MultipleLocator(0.25))
        alignment.set_ylim(0, min(2, max(1.05, alignment.get_ylim()[1])))
        handles = _handles([group for group in groups if group.runs], styles)
        label = rf"$\delta = {delta_ref:g}$"
        handles.append(Line2D([], [], color=GREY, linewidth=0.9, linestyle=LONG_DASHES, label=label))
        notes = [_note(groups, unfinished="not drawn"), source(groups)]
        unsolved = [algorithm_name(group.variant) for group in groups if group.unsolved]
        gapped = [algorithm_name(group.variant) for group in groups if group.variant in gaps]
        if gapped:
            notes.insert(0, f"{', '.join(gapped)}: no line where one of the runs has no value")
        if any(cut):
            notes.insert(0, f"what lies more than {DECADES} decades below the highest value of a panel is cut off")
        if unsolved:
            notes.insert(0, f"$e$ of {', '.join(unsolved)}: not every natural gradient is solved to the tolerance")
        _legend_and_note(figure, handles, notes, environment_name(groups[0].env))
    return figure


def _panels(rows: int, columns: int, panel_height: float) -> tuple[Figure, list[Axes]]:
    width = WIDTH * (0.6 if columns == 1 else 1)
    figure = Figure(figsize=(width, rows * panel_height + 0.35), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for panel in axes.flat:
        sns.despine(ax=panel)
    return figure, list(axes.flat)


def _draw_runs(panel: Axes, x: Floats, curves: Floats, draws: Draws, style: Style) -> None:
    """Aggregate of `curves` (runs, K) over `x` (K,), in its band, or among the runs where they are too few for one."""
    marker: Style = {"marker": "o", "markersize": 3, "clip_on": False} if len(x) <= FEW_POINTS else {}
    runs = len(curves)
    if not len(x):
        panel.plot(
            [], [], **style
        )  # and no marker or band, which in the layout take all space where they have no place
        return
    panel.plot(x, iqm(curves, axis=0), **style, **marker, zorder=3)
    if runs >= MIN_RUNS:
        low, high = percentile_interval(resampled_iqm(curves, draws))
        panel.fill_between(x, low, high, color=style["color"], alpha=0.18, linewidth=0, zorder=2)
    elif runs > 1:
        for values in curves:
            panel.plot(x, values, **style | {"linestyle": "-"}, linewidth=0.6, alpha=0.45, zorder=2)


def _say_if_empty(panel: Axes, positive: bool = False) -> None:
    """A panel that shows no value has no numbers on its axis either, which would be nobody's.

    With `positive` its axis is logarithmic, which shows no 0, as all values are of a task with one action.
    """
    values = [np.asarray(line.get_ydata(), dtype=np.float64) for line in panel.lines]
    finite = np.concatenate([*values, np.empty(0)])
    finite = finite[np.isfinite(finite)]
    if not (finite > 0 if positive else np.isfinite(finite)).any():
        said = "no value above 0" if finite.size else "no value" if panel.lines else "nothing to draw yet"
        panel.text(0.5, 0.5, said, transform=panel.transAxes, ha="center", color=GREY)
        panel.tick_params(axis="y", which="both", left=False, labelleft=False)


def _draw_alignment(panel: Axes, group: Group, curves: AlignmentCurves, style: Style) -> None:
    _draw_runs(panel, curves.rhos, curves.errors, group.draws_of(len(curves.errors)), style)
    mean = iqm(curves.errors, axis=0)
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


def _draw_unfinished(panel: Axes, group: Group, style: Style) -> None:
    for cell in group.cells:
        if cell.state == "finished" or cell.run is None:
            continue
        curve = cell.run.curves[SCORE]
        scored = curve.measurements > 0
        thin = style | {"linestyle": "-", "linewidth": 0.6, "alpha": 0.6}
        panel.plot(curve.steps[scored], curve.values[scored], **thin, zorder=2)
        cross: Style = {"marker": "x", "markersize": 4, "clip_on": False, "zorder": 4}
        panel.plot(curve.steps[scored][-1:], curve.values[scored][-1:], **style, **cross)


def _steps_label(groups: Sequence[Group], total_steps: int) -> str:
    """Of the axis of steps of one environment's runs; of a game it says how many frames a step has."""
    skips = _values("env.frame_skip", groups)
    frames = f"\n1 step = {skips} frames" if skips else ""
    return f"environment steps ({_steps_unit(total_steps)[1]}){frames}"


def _values(setting: str, groups: Sequence[Group]) -> str:
    """The values of a setting in the runs of these groups, in words; empty where no run has it."""
    return " or ".join(f"{value:g}" for value in values_of(setting, (cell for group in groups for cell in group.cells)))


def _steps_unit(total_steps: int) -> tuple[float, str]:
    return (1e6, "millions") if total_steps >= 1_000_000 else (1e3, "thousands")


def _steps_axis(panel: Axes, total_steps: int, label: str) -> None:
    scale, _ = _steps_unit(total_steps)
    panel.set_xlim(0, max(total_steps, panel.dataLim.x1))  # a run may end a little past its budget
    ticks = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(0, total_steps)  # alike in all panels
    panel.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if tick <= total_steps]))
    panel.xaxis.set_major_formatter(lambda steps, _: f"{steps / scale:g}")
    panel.set_xlabel(label)


def _log_axis(panel: Axes, *inside: float) -> bool:
    """Plain numbers at 1, 2, 5 within a decade or two, powers of ten beyond; True where the bottom is cut off.

    That is where data lie more than `DECADES` below the highest. The values `inside` stay inside.
    """
    if panel.lines and not np.isfinite(panel.dataLim.minposy):  # of which Matplotlib makes no logarithmic axis
        panel.set_ylim(1, 10)
    low, high = panel.get_ylim()
    highest = max([float(panel.dataLim.y1), *inside])
    lowest = min([highest / 10**DECADES, *(value / 1.5 for value in inside)])
    cut = bool(panel.dataLim.minposy < lowest)
    if cut:
        low, high = lowest, highest * 1.5
        panel.set_ylim(low, high)
    few_decades = high / low < 100
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few_decades else (1,)))
    panel.yaxis.set_minor_locator(LogLocator(subs=tuple(range(1, 10))))
    panel.yaxis.set_minor_formatter(NullFormatter())
    if few_decades and 1e-3 <= low < high <= 1e4:
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    return cut


def _handles(groups: Sequence[Group], styles: Styles) -> list[Line2D]:
    shown = {group.variant for group in groups}
    return [
        Line2D([], [], **style, label=algorithm_name(variant)) for variant, style in styles.items() if variant in shown
    ]


def _legend_and_note(figure: Figure, handles: list[Line2D], notes: list[str], title: str | None = None) -> None:
    """The legend above all panels and `notes` under them.

    The note is the title of a legend without entries, for which the layout makes room.
    """
    widths = [0.6 + 0.06 * len(str(handle.get_label())) for handle in handles]  # of the entries, about, in inches
    note = "\n".join(notes)
    rows = max(1, ceil(1.15 * sum(widths) / figure.get_figwidth()))
    figure.set_figheight(figure.get_figheight() + LINE * (rows + note.count("\n") + (title is not None)))
    figure.legend(
        handles=handles,
        loc="outside upper center",
        ncols=max(1, ceil(len(handles) / rows)),
        frameon=False,
        title=title,
        columnspacing=1.4,
        handlelength=2.2,
    )
    under = figure.legend(
        handles=[],
        loc="outside lower center",
        frameon=False,
        title=note,
        title_fontsize=6.5,
        borderpad=0,
        borderaxespad=0,
    )
    under.get_title().set_color(GREY)
    under.get_title().set_multialignment("center")


def _note(groups: Sequence[Group], unfinished: str) -> str:
    """What a line and what surrounds it is, from the number of runs behind the lines of `groups`."""
    runs = sorted({len(group.runs) for group in groups} - {0})
    few = [n for n in runs if n < MIN_RUNS]
    many = [n for n in runs if n >= MIN_RUNS]
    parts = [] if runs else ["no finished run yet"]
    if many:
        parts.append(f"line: IQM over {_span(many)} runs; band: pointwise 95 % percentile bootstrap interval")
    if few == [1]:
        parts.append("a line without a band is a single run" if many else "each line is a single run")
    elif few:
        parts.append(f"{'fewer runs: ' if many else ''}thin: each run; thick: mean over {_span(few)} runs")
    planned = sum(len(group.cells) for group in groups)
    finished = sum(len(group.runs) for group in groups)
    mixed = sorted({algorithm_name(group.variant) for group in groups if group.mixed})
    if mixed:
        parts.append(f"{', '.join(mixed)}: no line on a task where settings or code differ between the runs")
    if finished < planned:
        said = "count; the others" if mixed else "finished; unfinished ones"
        parts.append(f"{finished} of {planned} planned runs {said} are {unfinished}")
    return "\n".join(parts)


def _span(numbers: list[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
