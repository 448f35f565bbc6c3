"""Figure of the claims on trial: every interval against its rule."""

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.groups import Results
from analysis.style import GREY, WIDTH, Style, figure_style
from analysis.tables.claims import claims as claims_table
from analysis.tables.formats import Record, interval, mathtext

COLOURS = {"supported": "#009E73", "contradicted": "#D55E00", "undecided": GREY}
"""Of a verdict; its marker says it too."""
MARKERS = {"supported": "o", "contradicted": "X", "undecided": "D"}
EDGE = 1.1
"""Where an end that is infinite is drawn; the farthest of a row that is finite is at 1."""


def claims(results: Results) -> Figure | None:
    """Every interval of a claim's measure against the bound of its rule, a row each; None without any.

    Rows have scales of their own and all the same direction: right of the line a rule is met.
    """
    records = [record for record in claims_table(results).records if record["low"] is not None]
    if not records:
        return None
    with mpl.rc_context(figure_style()):
        drawn = Figure(figsize=(WIDTH, 0.24 * len(records) + 0.8), layout="constrained")
        panel = drawn.add_subplot()
        for place, record in enumerate(records):
            _draw(panel, -place, record)
        panel.axvline(0, color="#000000", linewidth=0.8)
        places = [-place for place in range(len(records))]
        panel.set_yticks(places, [mathtext(f"{r['number']} {r['part']} ({r['rule']})") for r in records])
        values = panel.secondary_yaxis("right")
        values.set_yticks(places, [interval(r["value"], r["low"], r["high"]) for r in records])
        panel.set(xlim=(-EDGE, EDGE), ylim=(0.6 - len(records), 0.6), xticks=[])
        panel.set_xlabel("← fails its rule          meets it →")
        panel.grid(axis="y", visible=False)
        note = "dot: supported; cross: contradicted; diamond: undecided. Every row has its own scale."
        drawn.supxlabel(f"{note} {results.source}", fontsize=5, x=0.01, ha="left")
    return drawn


def _draw(panel: Axes, y: float, record: Record) -> None:
    """One row: distances from the bound, as shares of the largest."""
    towards = 1 if str(record["rule"]).startswith(("≥", ">")) else -1
    ends = [record[name] for name in ("low", "value", "high")]
    distances = towards * (np.array(ends, dtype=np.float64) - float(record["bound"]))
    largest = max(np.abs(distances[np.isfinite(distances)]), default=0.0) or 1.0
    drawn = np.clip(distances / largest, -EDGE, EDGE)
    colour, marker = COLOURS[str(record["verdict"])], MARKERS[str(record["verdict"])]
    style: Style = {"color": colour, "marker": marker, "markersize": 5.0, "linestyle": "none"}
    panel.plot(drawn[[0, 2]], [y, y], color=colour, linewidth=1.5)
    panel.plot(drawn[[1]], [y], **style)
