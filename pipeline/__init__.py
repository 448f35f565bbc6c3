"""The grid of runs: suites and their cells, the wrapper that runs one cell for Snakemake, and what is published."""
