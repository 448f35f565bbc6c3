"""Names, order, colours and line styles: one of each for a variant, in every table and figure."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import matplotlib as mpl
import seaborn as sns

from analysis.text import shortened

ENVIRONMENTS = {
    "ant": "Ant",
    "halfcheetah": "HalfCheetah",
    "hopper": "Hopper",
    "walker2d": "Walker2d",
    "swimmer": "Swimmer",
    "humanoid": "Humanoid",
    "reacher": "Reacher",
    "inverted_pendulum": "InvertedPendulum",
    "inverted_double_pendulum": "InvertedDoublePendulum",
}
ALGORITHMS = {"adam_pg": "Adam-PG", "npg": "NPG", "trpo": "TRPO", "ppo": "PPO", "acktr": "ACKTR"}

# Okabe and Ito's colours (safe for the common colour blindnesses), then Tol's muted ones.
KNOWN = {"adam_pg": "#000000", "npg": "#0072B2", "trpo": "#E69F00", "ppo": "#009E73", "acktr": "#CC79A7"}
FURTHER = ("#D55E00", "#56B4E9", "#882255", "#999933", "#332288", "#AA4499", "#661100", "#6699CC")
# One pattern each, so that they can be told apart in grey. NPG and TRPO coincide until TRPO's first backtrack: dashes
# on top of a solid line show both. The gaps of others are filled with a light tint, so that a noisy line stays one.
DASHES = {"trpo": (0, (3.5, 2)), "ppo": (0, (1.2, 1.2)), "acktr": (0, (7, 2, 1.5, 2))}
GAPS = {"ppo": "#BFE6DA", "acktr": "#F3DDE9"}
FURTHER_DASHES = ("-", (0, (1.2, 1.2)), (0, (4.5, 1.6, 1.2, 1.6, 1.2, 1.6)))
EXTERNAL = " (external)"
"""Behind the name of a variant whose curves come from elsewhere."""
LONGEST_NAME = 40
"""Characters of a display name."""

GREY = "#707070"
Style = dict[str, Any]
Styles = dict[str, Style]

_LABELS: ContextVar[Mapping[str, str]] = ContextVar("labels", default=ALGORITHMS)

WIDTH = 6.75
"""Width of a figure over the full text of a paper, inches."""


def environment_name(env: str) -> str:
    """Display name of an environment: HalfCheetah, Pong; a name of the user's own stays as it is."""
    if env.startswith("atari_"):
        return env.removeprefix("atari_").replace("_", " ").title()
    return ENVIRONMENTS.get(env, env)


def algorithm_name(variant: str) -> str:
    """Display name of a variant: its label where it has one (`labelled`), else its own name."""
    base = variant.removesuffix(EXTERNAL)
    return _LABELS.get().get(base, base) + variant[len(base) :]


@contextmanager
def labelled(labels: Mapping[str, str]) -> Iterator[None]:
    """Have what is made meanwhile name variants by these labels, and a label that several have with the name."""
    known = {variant: shortened(label, LONGEST_NAME) for variant, label in (ALGORITHMS | dict(labels)).items()}
    count = Counter(known.values())
    shown = {v: label if count[label] == 1 else f"{label} ({v})" for v, label in known.items() if label}
    token = _LABELS.set(shown)
    try:
        yield
    finally:
        _LABELS.reset(token)


def ordered(variants: Iterable[str]) -> list[str]:
    """Variants in the order of every table and legend: the five algorithms, then the others by name."""
    found = set(variants)
    return [v for v in KNOWN if v in found] + sorted(found - KNOWN.keys())


def line_styles(variants: Iterable[str]) -> Styles:
    """Matplotlib's ``color`` and ``linestyle`` of each variant.

    The five algorithms have fixed ones; the others take the rest of the palette in alphabetical order, and
    past its end the same colours with further dashes.
    """
    styles: Styles = {}
    further = 0
    for variant in ordered(variants):
        if variant in KNOWN:
            styles[variant] = {"color": KNOWN[variant], "linestyle": DASHES.get(variant, "-")}
            styles[variant] |= {"gapcolor": GAPS[variant]} if variant in GAPS else {}
            continue
        lap, place = divmod(further, len(FURTHER))
        styles[variant] = {"color": FURTHER[place], "linestyle": FURTHER_DASHES[lap % len(FURTHER_DASHES)]}
        further += 1
    return styles


def external_styles(variants: Iterable[str]) -> Styles:
    """The same of variants whose curves come from elsewhere: the palette from its end, dashed."""
    names = dict.fromkeys(variants)
    return {v: {"color": FURTHER[-1 - i % len(FURTHER)], "linestyle": FURTHER_DASHES[2]} for i, v in enumerate(names)}


def figure_style() -> dict[Any, Any]:
    """Settings for figures in print: small type, thin axes, a light grid, fonts embedded as text."""
    return {
        **mpl.rcParamsDefault,
        **sns.axes_style("ticks"),
        **sns.plotting_context(
            "paper",
            rc={
                "font.size": 8,
                "axes.titlesize": 8.5,
                "axes.labelsize": 8,
                "xtick.labelsize": 7,
                "ytick.labelsize": 7,
                "legend.fontsize": 8,
                "axes.linewidth": 0.6,
                "grid.linewidth": 0.4,
                "lines.linewidth": 1.25,
                "xtick.major.width": 0.6,
                "ytick.major.width": 0.6,
                "xtick.major.size": 2.5,
                "ytick.major.size": 2.5,
                "xtick.minor.size": 1.5,
                "ytick.minor.size": 1.5,
                "xtick.minor.width": 0.4,
                "ytick.minor.width": 0.4,
            },
        ),
        "axes.grid": True,
        "grid.color": "#E6E6E6",
        "axes.edgecolor": "#404040",
        "axes.titlepad": 4,
        "font.family": ["sans-serif"],
        "font.sans-serif": ["DejaVu Sans"],
        "pdf.fonttype": 42,
        "savefig.dpi": 200,
    }
