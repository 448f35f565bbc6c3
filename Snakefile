"""The grid of training runs: snakemake --cores N --config suite=quick

Draws the cells from conf/suite/<suite>.yaml, trains each in a process of its own (pipeline/run_cell.py) and
analyses whatever came of them. Options that every call shares are in profiles/default/config.yaml.
"""

import json
import os
import re
import sys
from inspect import signature
from pathlib import Path

from snakemake.io import IOFile

from pipeline.fingerprint import made_from
from pipeline.options import OptionError, read_options
from pipeline.overview import failed_cells, overview
from pipeline.reuse import plan, reusable
from pipeline.suites import RUN_DIR, SuiteError, load_suite
from tracking.published import PublishedError

try:
    OPTIONS = read_options(
        config,
        {
            "suite": "mujoco",
            "retry_failed": False,
            "reuse_published": True,
            "sample": 3,  # this and the next two: of `verify`
            "sample_seed": 0,
            "stop_after": 0,
        },
    )
    SUITE = load_suite(OPTIONS["suite"])
    PUBLISHED = reusable(SUITE) if OPTIONS["reuse_published"] else {}
except (OptionError, SuiteError, PublishedError) as error:
    sys.exit(str(error))

RESULTS = f"results/{SUITE.name}"
RUN = RUN_DIR.replace("{suite}", SUITE.name)
CELLS = {(cell.env, cell.variant, str(cell.seed)): cell for cell in SUITE.cells}
TRAINED = [cell for cell in SUITE.cells if cell not in PUBLISHED]
STATUS = [f"{cell.run_dir}/status.json" for cell in TRAINED]
MADE_FROM = {cell: [f"{name}: {value}" for name, value in made_from(cell).items()] for cell in SUITE.cells}
RETRIED = failed_cells(TRAINED) if OPTIONS["retry_failed"] else []
RETRIES = 2

# Jobs run under the Python that runs Snakemake, whichever `python` the PATH finds first.
os.environ.update(PYTHON=sys.executable)


def cell_of(wildcards):
    return CELLS[wildcards.env, wildcards.variant, wildcards.seed]


def ingredient(place):
    """The parameter that is entry number `place` of what a cell is made from; its last one where others have more."""

    def entry(wildcards):
        entries = MADE_FROM[cell_of(wildcards)]
        return entries[min(place, len(entries) - 1)]

    entry.__signature__ = signature(entry)  # or Snakemake works it out anew for every cell, which takes longest of all
    return entry


def tables_and_figures(wildcards):
    """What `all` asks for.

    When Snakemake calls this it can read its records and has not decided yet what to do: the time to say what is ahead,
    and to force failed cells, as Snakemake itself does with those that it finds half done.
    """

    def recorded(file):
        return workflow.persistence.params(IOFile(file, rule=rules.train.rule))

    if workflow.is_main_process:
        workflow.dag.forcefiles.update(f"{cell.run_dir}/status.json" for cell in RETRIED)
        if PUBLISHED:
            say(f"{len(PUBLISHED)} of {len(SUITE.cells)} cells are published, which reuse_published=false trains again")
        made_from = {cell: MADE_FROM[cell] for cell in TRAINED}
        for line in overview(made_from, SUITE.total_steps, recorded, RETRIED) if TRAINED else []:
            say(line)
    return [f"{RESULTS}/tables/index.md", f"{RESULTS}/figures/.complete"]


def any_of(names):
    return "|".join(re.escape(name) for name in sorted(set(names)))


def say(message):
    print(f"suite {SUITE.name}: {message}", file=sys.stderr, flush=True)


rule all:
    input:
        tables_and_figures,


# status.json is the only file of a run that is declared, because Snakemake deletes outputs and logs before it starts
# a job: the tables, the checkpoint and train.log must survive that, since train.py finds out what to do with them.
#
# A cell is done for as long as its parameters stay what they were: its overrides, and the code, conf and packages it
# is made from. These are one parameter each, so that Snakemake names those that have changed. What may change without
# a rerun is no parameter: the shell command (the trigger `code` is off, see profiles/default), the number of attempts
# (a resource), the directory (from the output).
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
        *map(ingredient, range(max(map(len, MADE_FROM.values())))),
        overrides=lambda wildcards: cell_of(wildcards).overrides,
        run_dir=subpath(output[0], parent=True),
    shell:
        '"$PYTHON" -m pipeline.run_cell {params.run_dir} --attempt {resources.attempt} '
        "--attempts {resources.attempts} --pipeline-pid $PPID "
        '-- "$PYTHON" train.py {params.overrides:q} 2>&1 | tee {log} >&2'


# Rewritten whenever the grid changes, as it does with the suite file, a new algorithm or a newly published cell.
rule suite:
    output:
        f"{RESULTS}/suite.json",
    log:
        f"{RESULTS}/logs/suite.log",
    params:
        name=SUITE.name,
        retrain="" if OPTIONS["reuse_published"] else "--retrain",
        grid=lambda wildcards: json.dumps(plan(SUITE, PUBLISHED)),
    shell:
        '"$PYTHON" -m pipeline.reuse {params.name} {params.retrain} > {output} 2> {log}'


# Repeated whenever a cell, the grid or the code that reads them changes.
rule analyse:
    input:
        cells=STATUS,
        published=list(PUBLISHED.values()),
        suite=f"{RESULTS}/suite.json",
        code=sorted(
            str(path)
            for room in ("analysis", "tracking")
            for path in Path(room).rglob("*.*")
            if path.suffix in (".py", ".csv")
        ),
    output:
        tables=f"{RESULTS}/tables/index.md",
        figures=touch(f"{RESULTS}/figures/.complete"),
    log:
        f"{RESULTS}/logs/analyse.log",
    params:
        results=subpath(input.suite, parent=True),
    shell:
        '"$PYTHON" -m analysis {params.results} > {log} 2>&1'


# The three rules below make nothing that Snakemake could find up to date: whoever names them, runs them.


# What there is of the suite, into results/published/.
rule publish:
    log:
        f"{RESULTS}/logs/publish.log",
    params:
        name=SUITE.name,
    shell:
        '"$PYTHON" -m pipeline.publish {params.name} 2>&1 | tee {log} >&2'


# Tables and figures of the published suites from their cells alone, compared with those that are there.
rule published:
    log:
        f"{RESULTS}/logs/published.log",
    params:
        names=OPTIONS["suite"] if "suite" in config else "",
    shell:
        '"$PYTHON" -m pipeline.rebuild {params.names} 2>&1 | tee {log} >&2'


# Some published cells trained again, as far as shows whether they come out the same.
rule verify:
    log:
        f"{RESULTS}/logs/verify.log",
    params:
        name=SUITE.name,
        sample=OPTIONS["sample"],
        sample_seed=OPTIONS["sample_seed"],
        stop_after=OPTIONS["stop_after"],
    shell:
        '"$PYTHON" -m pipeline.verify {params.name} --sample {params.sample} --sample-seed {params.sample_seed} '
        "--stop-after {params.stop_after} 2>&1 | tee {log} >&2"


onsuccess:
    say(f"tables in {RESULTS}/tables/index.md, figures in {RESULTS}/figures/")


onerror:
    say("not complete; the same command goes on where this one ended")
