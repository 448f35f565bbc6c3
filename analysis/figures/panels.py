"""What the figures of a suite share: panels, lines over runs, axes, the legend above and the small print below.

A line is the IQM over the finished runs, in a band that is the pointwise interval over runs. With fewer than
`statistics.MIN_RUNS` finished runs every run is a thin line of its own, and the thick line is their mean. Where one of
the runs has no value, the line has none. What a figure shows is written under it in three lines at most; all that there
is to say is its caption, the PNG's `Description`.
"""

import textwrap
from collections.abc import Sequence
from math import ceil
from pathlib import Path

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullFormatter

from analysis.cells import values_of
from analysis.curves import Floats
from analysis.groups import Group
from analysis.statistics import MIN_RUNS, Draws, centre, percentile_interval, resampled_iqm
from analysis.style import GREY, WIDTH, Style, Styles, figure_style
from analysis.style import algorithm_name as plain_algorithm_name
from analysis.style import environment_name as plain_environment_name
from analysis.tables.formats import mathtext

SOFTWARE = f"Matplotlib {mpl.__version__}"
COLUMNS = 3
DOTS = (0, (1, 1.5))
LONG_DASHES = (0, (5, 2.5))
LINE = 0.17
"""Height of a line of the legend, inches."""
SMALL_PRINT = 6.5
SMALL_LINE = 0.125
"""Its height, inches."""
PRINTED = 2
"""Lines of small print at most, beside the one with the source."""
CHARACTERS = 20
"""Of the small print in an inch."""
FEW_POINTS = 4
"""Up to this many points a line also has markers, so that a tiny budget shows at all."""


def algorithm_name(variant: str) -> str:
    """Display name of a variant, as text to Matplotlib."""
    return mathtext(plain_algorithm_name(variant))


def environment_name(env: str) -> str:
    """Display name of an environment, as text to Matplotlib."""
    return mathtext(plain_environment_name(env))


def save_figure(figure: Figure, path: Path, source: str) -> None:
    """Write `path`.png and `path`.pdf with their source, without time stamps: equal data give equal files.

    PNG has `source` under Source, the caption under Description and Matplotlib's version under Software, PDF the first
    and the last under Subject and Producer.
    """
    in_pdf = {"CreationDate": None, "Creator": None, "Producer": SOFTWARE, "Subject": source}
    in_png = {"Software": SOFTWARE, "Source": source, "Description": plain(str(figure.get_label()))}
    with mpl.rc_context(figure_style()):
        figure.savefig(f"{path}.png", metadata=in_png)
        figure.savefig(f"{path}.pdf", metadata=in_pdf)


def plain(caption: str) -> str:
    """A caption without Matplotlib's formulas."""
    for formula, text in ((r"\mathrm{tr}\,", "tr "), (r"\rho", "ρ"), (r"\lambda", "λ"), (r"\delta", "δ"), (r"\$", "$")):
        caption = caption.replace(formula, text)
    return caption.replace("$", "")


def panels(rows: int, columns: int, panel_height: float) -> tuple[Figure, list[Axes]]:
    """A figure of that many panels, over the full text, or 0.6 of it for one column."""
    width = WIDTH * (0.6 if columns == 1 else 1)
    figure = Figure(figsize=(width, rows * panel_height + 0.35), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for panel in axes.flat:
        sns.despine(ax=panel)
    return figure, list(axes.flat)


def draw_runs(panel: Axes, x: Floats, curves: Floats, draws: Draws, style: Style) -> None:
    """Aggregate of `curves` (runs, K) over `x` (K,), in its band, or among the runs where they are too few for one."""
    marker: Style = {"marker": "o", "markersize": 3, "clip_on": False} if len(x) <= FEW_POINTS else {}
    runs = len(curves)
    if not len(x):
        panel.plot([], [], **style)  # and no marker or band, which take all space where they have no place
        return
    panel.plot(x, centre(curves, axis=0), **style, **marker, zorder=3)
    if runs >= MIN_RUNS:
        low, high = percentile_interval(resampled_iqm(curves, draws), [runs])
        panel.fill_between(x, low, high, color=style["color"], alpha=0.18, linewidth=0, zorder=2)
    elif runs > 1:
        for values in curves:
            panel.plot(x, values, **style | {"linestyle": "-"}, linewidth=0.6, alpha=0.45, zorder=2)


def say_if_empty(panel: Axes, positive: bool = False) -> None:
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


def steps_label(groups: Sequence[Group], total_steps: int) -> str:
    """Of the axis of steps of one environment's runs; of a game it says how many frames a step has."""
    skips = setting_in_words("env.frame_skip", groups)
    frames = f"\n1 step = {skips} frames" if skips else ""
    return f"environment steps ({steps_unit(total_steps)[1]}){frames}"


def setting_in_words(setting: str, groups: Sequence[Group]) -> str:
    """The values of a setting in the runs of these groups, in words; empty where no run has it."""
    return " or ".join(f"{value:g}" for value in values_of(setting, (cell for group in groups for cell in group.cells)))


def steps_unit(total_steps: int) -> tuple[float, str]:
    """Environment steps in one unit of an axis, and its name."""
    return (1e6, "millions") if total_steps >= 1_000_000 else (1e3, "thousands")


def steps_axis(panel: Axes, total_steps: int, label: str) -> None:
    """An axis of environment steps from 0 to the end of the runs, with ticks that all panels share."""
    scale, _ = steps_unit(total_steps)
    panel.set_xlim(0, max(total_steps, panel.dataLim.x1))  # a run may end a little past its budget
    ticks = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(0, total_steps)  # alike in all panels
    panel.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if tick <= total_steps]))
    panel.xaxis.set_major_formatter(lambda steps, _: f"{steps / scale:g}")
    panel.set_xlabel(label)


def log_axis(panel: Axes, decades: float, shown: Floats | None = None) -> bool:
    """Plain numbers at 1, 2, 5 within a decade or two, powers of ten beyond; True where something is cut off.

    The axis spans what is drawn, or the values `shown` where they are given, and `decades` below their highest at most.
    """
    if panel.lines and not np.isfinite(panel.dataLim.minposy):  # of which Matplotlib makes no logarithmic axis
        panel.set_ylim(1, 10)
    low, high = panel.get_ylim()
    ends = np.array([panel.dataLim.minposy, panel.dataLim.y1]) if shown is None else shown
    ends = ends[np.isfinite(ends) & (ends > 0)]
    cut = False
    if ends.size:
        lowest, highest = max(ends.min(), ends.max() / 10**decades), ends.max()
        cut = bool(panel.dataLim.minposy < lowest or panel.dataLim.y1 > highest)
        if cut or shown is not None:
            low, high = lowest / 1.25, highest * 1.25
            panel.set_ylim(low, high)
    few_decades = high / low < 100
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few_decades else (1,)))
    panel.yaxis.set_minor_locator(LogLocator(subs=tuple(range(1, 10))))
    panel.yaxis.set_minor_formatter(NullFormatter())
    if few_decades and 1e-4 <= low < high <= 1e4:
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    return cut


def variant_handles(groups: Sequence[Group], styles: Styles) -> list[Line2D]:
    """A line of the legend for each variant of `groups`."""
    shown = {group.variant for group in groups}
    return [
        Line2D([], [], **style, label=algorithm_name(variant)) for variant, style in styles.items() if variant in shown
    ]


def legend_and_note(figure: Figure, handles: list[Line2D], notes: list[str], title: str | None = None) -> None:
    """The legend above all panels, and under them `notes`, the last of which is the source.

    What does not fit in the small print is in the caption, the figure's label. The note is the title of a legend
    without entries, for which the layout makes room.
    """
    widths = [0.6 + 0.06 * len(str(handle.get_label())) for handle in handles]  # of the entries, about, in inches
    *said, origin = notes
    figure.set_label("; ".join([*([title] if title else []), *said]))
    lines = textwrap.wrap("; ".join(said), round(CHARACTERS * figure.get_figwidth()), break_long_words=False)
    if len(lines) > PRINTED:
        lines = [*lines[: PRINTED - 1], f"{lines[PRINTED - 1].rpartition(';')[0] or lines[PRINTED - 1]}; …"]
    if any(line.count("$") % 2 for line in lines):  # a formula that a line break has cut in two
        lines = [plain(line) for line in lines]
    note = "\n".join([*lines, origin])
    rows = max(1, ceil(1.15 * sum(widths) / figure.get_figwidth()))
    above = LINE * (rows + (title is not None))
    figure.set_figheight(figure.get_figheight() + above + SMALL_LINE * note.count("\n"))
    figure.legend(
        handles=handles,
        loc="outside upper center",
        ncols=max(1, ceil(len(handles) / rows)),
        frameon=False,
        title=title,
        title_fontsize=9,
        columnspacing=1.4,
        handlelength=2.8,
    )
    under = figure.legend(
        handles=[],
        loc="outside lower center",
        frameon=False,
        title=note,
        title_fontsize=SMALL_PRINT,
        borderpad=0,
        borderaxespad=0,
    )
    under.get_title().set_color(GREY)
    under.get_title().set_multialignment("center")


def note_on_runs(groups: Sequence[Group], unfinished: str) -> list[str]:
    """What a line and what surrounds it is, from the number of runs behind the lines of `groups`; warnings first."""
    runs = sorted({len(group.runs) for group in groups} - {0})
    few = [n for n in runs if n < MIN_RUNS]
    many = [n for n in runs if n >= MIN_RUNS]
    parts = []
    planned = sum(len(group.cells) for group in groups)
    finished = sum(len(group.runs) for group in groups)
    mixed = sorted({algorithm_name(group.variant) for group in groups if group.mixed})
    if mixed:
        parts.append(f"{', '.join(mixed)}: no line on a task where settings or code differ between the runs")
    if finished < planned:
        said = "count; the others" if mixed else "finished; unfinished ones"
        parts.append(f"{finished} of {planned} planned runs {said} are {unfinished}")
    if not runs:
        parts.append("no finished run yet")
    if many:
        parts.append(f"line: IQM over {_span(many)} runs; band: pointwise 95 % percentile bootstrap interval")
    if few == [1]:
        parts.append("a line without a band is a single run" if many else "each line is a single run")
    elif few:
        parts.append(f"{'fewer runs: ' if many else ''}thin: each run; thick: mean over {_span(few)} runs")
    return parts


def _span(numbers: list[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
