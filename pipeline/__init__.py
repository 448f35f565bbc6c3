"""The grid of runs: suites and their cells, and the wrapper that runs one cell for Snakemake.

suites.py        conf/suite/<name>.yaml -> cells
fingerprint.py   what a cell would be trained from today
run_cell.py      train.py in a process of its own, and what its end means
"""
