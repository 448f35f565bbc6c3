"""Figures of a suite, for print: learning curves, alignment curves, geometry of the updates, and the literature."""

from analysis.figures.alignment import alignment_curves
from analysis.figures.geometry import geometry
from analysis.figures.learning import X_AXES, learning_curves
from analysis.figures.literature import literature
from analysis.figures.panels import SOFTWARE, save_figure

__all__ = ["SOFTWARE", "X_AXES", "alignment_curves", "geometry", "learning_curves", "literature", "save_figure"]
