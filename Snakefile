"""The grid of training runs: snakemake --cores N --config suite=quick

Draws the cells from conf/suite/<suite>.yaml, trains each in a process of its own (pipeline/run_cell.py) and
analyses whatever came of them. Options that every call shares are in profiles/default/config.yaml.
"""

import json
import os
import re
import sys
from pathlib import Path

from pipeline.fingerprint import fingerprint
from pipeline.suites import RUN_DIR, SuiteError, load_suite

try:
    SUITE = load_suite(str(config.get("suite", "mujoco")))
except SuiteError as error:
    sys.exit(str(error))

RESULTS = f"results/{SUITE.name}"
RUN = RUN_DIR.replace("{suite}", SUITE.name)
CELLS = {(cell.env, cell.variant, str(cell.seed)): cell for cell in SUITE.cells}
STATUS = [f"{cell.run_dir}/status.json" for cell in SUITE.cells]
RETRIES = 2

# Jobs run under the Python that runs Snakemake, whichever `python` the PATH finds first.
os.environ.update(PYTHON=sys.executable)


def cell_of(wildcards):
    return CELLS[wildcards.env, wildcards.variant, wildcards.seed]


def any_of(names):
    return "|".join(re.escape(name) for name in sorted(set(names)))


def say(message):
    print(f"suite {SUITE.name}: {message}", file=sys.stderr, flush=True)


rule all:
    input:
        f"{RESULTS}/tables/index.md",
        f"{RESULTS}/figures/.complete",


# status.json is the only file of a run that is declared, because Snakemake deletes outputs and logs before it starts
# a job: the tables, the checkpoint and train.log must survive that, since train.py finds out what to do with them.
#
# A cell is done for as long as its parameters stay what they were: its overrides, and the fingerprint of the code,
# conf and packages that train it. What may change without a rerun is no parameter: the shell command (the trigger
# `code` is off, see profiles/default), the number of attempts (a resource), the directory (from the output).
#
# Low seeds come first: a grid cut short is a grid with fewer seeds.
#
# The retries stand here and not in the profile, since the wrapper must know which attempt is the last one also
# inside a cluster job, where Snakemake says `--retries 0`.
rule train:
    output:
        f"{RUN}/status.json",
    log:
        f"{RESULTS}/logs/{{env}}/{{variant}}/seed-{{seed}}.log",
    wildcard_constraints:
        env=any_of(cell.env for cell in SUITE.cells),
        variant=any_of(cell.variant for cell in SUITE.cells),
        seed=any_of(str(cell.seed) for cell in SUITE.cells),
    priority: lambda wildcards: -int(wildcards.seed)
    retries: RETRIES
    threads: 1
    resources:
        attempt=lambda wildcards, attempt: attempt,
        attempts=RETRIES + 1,
    params:
        overrides=lambda wildcards: cell_of(wildcards).overrides,
        fingerprint=lambda wildcards: fingerprint(cell_of(wildcards)),
        run_dir=subpath(output[0], parent=True),
    shell:
        '"$PYTHON" -m pipeline.run_cell {params.run_dir} --attempt {resources.attempt} '
        "--attempts {resources.attempts} --pipeline-pid $PPID "
        '-- "$PYTHON" train.py {params.overrides:q} 2>&1 | tee {log} >&2'


# Rewritten whenever the grid changes, as it does with the suite file or a new algorithm.
rule suite:
    output:
        f"{RESULTS}/suite.json",
    log:
        f"{RESULTS}/logs/suite.log",
    params:
        name=SUITE.name,
        grid=lambda wildcards: json.dumps(SUITE.describe()),
    shell:
        '"$PYTHON" -m pipeline.suites {params.name} > {output} 2> {log}'


# Repeated whenever a cell, the grid or the code that reads them changes.
rule analyse:
    input:
        cells=STATUS,
        suite=f"{RESULTS}/suite.json",
        code=sorted(map(str, [*Path("analysis").rglob("*.py"), *Path("tracking").rglob("*.py")])),
    output:
        tables=f"{RESULTS}/tables/index.md",
        figures=touch(f"{RESULTS}/figures/.complete"),
    log:
        f"{RESULTS}/logs/analyse.log",
    params:
        results=subpath(input.suite, parent=True),
    shell:
        '"$PYTHON" -m analysis {params.results} > {log} 2>&1'


onstart:
    say(f"{len(STATUS)} cells, {sum(map(os.path.exists, STATUS))} with a result so far")


onsuccess:
    say(f"tables in {RESULTS}/tables/index.md, figures in {RESULTS}/figures/")


onerror:
    say("not complete; the same command goes on where this one ended")
