"""Figures of a suite, for print: one file for each."""

from analysis.figures.alignment import alignment_curves
from analysis.figures.claims import claims
from analysis.figures.geometry import geometry
from analysis.figures.learning import X_AXES, learning_curves
from analysis.figures.literature import literature
from analysis.figures.panels import SOFTWARE, save_figure
from analysis.figures.tuning import tuning

__all__ = [
    "SOFTWARE",
    "X_AXES",
    "alignment_curves",
    "claims",
    "geometry",
    "learning_curves",
    "literature",
    "save_figure",
    "tuning",
]
