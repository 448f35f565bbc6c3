"""The grid of runs: suites and their cells, and the wrapper that runs one cell for Snakemake.

suites.py        conf/suite/<name>.yaml -> cells
options.py       what --config may say
fingerprint.py   what a cell would be trained from today
overview.py      what is done, what is out of date and why
forecast.py      core-hours and disk of what is left, from finished runs or costs.csv
run_cell.py      train.py in a process of its own, and what its end means
"""
