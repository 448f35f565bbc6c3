"""Figure of the claims on trial: interval against the rule."""

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.groups import Results
from analysis.style import GREY, WIDTH, Style, figure_style
from analysis.tables.claims import claims
from analysis.tables.formats import Record

VERDICTS = {"supported": "#009E73", "contradicted": "#D55E00", "undecided": GREY}
"""Colour of a verdict; its marker says it too."""
MARKERS = {"supported": "o", "contradicted": "X", "undecided": "D"}


def figure(results: Results) -> Figure | None:
    """Every measured part of a claim with its interval against the bound of its rule, a row each; None without any."""
    records = [record for record in claims(results).records if record["value"] is not None]
    if not records:
        return None
    with mpl.rc_context(figure_style()):
        drawn = Figure(figsize=(WIDTH, 0.32 * len(records) + 0.7), layout="constrained")
        panel = drawn.add_subplot()
        for place, record in enumerate(records):
            _draw(panel, -place, record)
        panel.axvline(0, color="#000000", linewidth=0.8)
        panel.set_yticks([-place for place in range(len(records))])
        panel.set_yticklabels([f"{r['number']} {r['part']} ({r['rule']})" for r in records])
        panel.set_xlabel("measure less the bound of its rule, in units of its interval's larger side")
        panel.set_xlim(-2.6, 2.6)
        panel.grid(axis="y", visible=False)
        note = "dot: supported; cross: contradicted; diamond: undecided; hollow: too few runs, in its own unit. "
        drawn.supxlabel(note + results.source, fontsize=5, x=0.01, ha="left")
    return drawn


def _draw(panel: Axes, y: float, record: Record) -> None:
    """One row, scaled so that rows of all units can stand below each other."""
    bound, value = float(record["bound"]), float(record["value"])
    verdict = str(record["verdict"])
    style: Style = {"color": VERDICTS[verdict], "marker": MARKERS[verdict], "markersize": 5.0}
    if record["low"] is None or record["high"] is None:
        panel.plot([float(np.clip(value - bound, -2.5, 2.5))], [y], **style, markerfacecolor="none")
        return
    ends = np.array([record["low"], record["high"]], dtype=np.float64) - bound
    sides = np.abs(ends - (value - bound))
    unit = max([side for side in sides if np.isfinite(side) and side > 0], default=1.0)
    panel.plot(np.clip(ends / unit, -2.5, 2.5), [y, y], color=style["color"], linewidth=1.5)
    panel.plot([float(np.clip((value - bound) / unit, -2.5, 2.5))], [y], **style)
