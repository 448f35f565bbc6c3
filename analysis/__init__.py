"""From run directories to tables and figures: ``python -m analysis results/<suite>``. Needs no torch."""

import os

# Before Matplotlib is imported, which fails where the session names a backend that is not installed, as in a notebook.
os.environ["MPLBACKEND"] = "Agg"
