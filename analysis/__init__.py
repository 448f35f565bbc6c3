"""From run directories to tables and figures: ``python -m analysis results/<suite>``. Needs no torch."""
