"""The grid of training runs: snakemake --cores N --config suite=quick

Draws the cells from conf/suite/<suite>.yaml, trains each in a process of its own (pipeline/run_cell.py) and
analyses whatever came of them. Options that every call shares are in profiles/default/config.yaml.
"""

import os
import re
import sys
from dataclasses import replace
from pathlib import Path

from snakemake.io import IOFile

if Path.cwd().resolve() != Path(workflow.basedir).resolve():
    sys.exit(f"snakemake: runs in {workflow.basedir} alone, where train.py and conf/ are; leave out --directory")

from command.names import check_name, is_hidden
from command.output import never_fail
from pipeline.cell import Contents
from pipeline.forecast import request
from pipeline.lease import GpuError, find_gpus, places
from pipeline.options import OptionError, read_options
from pipeline.overview import overview, state_of
from pipeline.portion import PartError, portion
from pipeline.refusals import describe, refused_by_train, uncomposable
from pipeline.reuse import digest, is_planned, plan, reusable
from pipeline.suite_file import SuiteError
from pipeline.suites import RUN_DIR, device_of, load_suites

never_fail()
CONTENTS = Contents()
FAULT = ""  # why there are no suites
try:
    OPTIONS = read_options(
        config,
        {
            "suite": "full",
            "retry_failed": False,
            "reuse_published": False,
            "part": "",  # K/N: the others are trained elsewhere
            "gpus": "",  # of this machine; all that are visible
            "runs_per_gpu": 0,  # that share one; a run on every core
            "sample": 3,  # this and the next two: of `verify`
            "sample_seed": 0,
            "stop_after": 0,
            "external": "",  # files, or folders of them, with curves from elsewhere; commas between
        },
        workflow.config_settings.config_args or (),
    )
    SUITES = {suite.name: suite for suite in load_suites(OPTIONS["suite"])}
except (OptionError, SuiteError) as error:
    FAULT, SUITES = str(error), {}
    # The rule `published` reads no suite: what is published stays when its suite is gone.
    if isinstance(error, OptionError) or not any(argument.partition(":")[0] == "published" for argument in sys.argv):
        sys.exit(FAULT)

NOT_REUSED = {name: [] for name in SUITES}
PUBLISHED = {
    name: reusable(suite, CONTENTS, NOT_REUSED[name]) if OPTIONS["reuse_published"] else {}
    for name, suite in SUITES.items()
}

try:
    PARTS = {name: portion(suite.cells, OPTIONS["part"]) for name, suite in SUITES.items()}
except PartError as error:
    sys.exit(str(error))
CELLS = {(name, cell.env, cell.variant, str(cell.seed)): cell for name, suite in SUITES.items() for cell in suite.cells}
TRAINED = {name: [cell for cell in cells if cell not in PUBLISHED[name]] for name, cells in PARTS.items()}
RETRIES = 2
STATES = {}  # of every suite, once its cells were asked
EXTERNAL = [path for path in OPTIONS["external"].split(",") if path] if not FAULT else []
GRID = []  # the suites that `all` is to make, once it was asked for

# Whoever reads along may go away without taking a job with him.
TEE = "2>&1 | (trap '' PIPE; tee {log:q} >&2 || true)"

# Jobs run under the Python that runs Snakemake, whichever `python` the PATH finds first.
os.environ.update(PYTHON=sys.executable)
# On this machine a wrapper hands its run one of these GPUs. In a job of a cluster the scheduler has done so.
LEASE = (
    '--gpus "$GPUS" --runs-per-gpu "$RUNS_PER_GPU"' if workflow.is_main_process else '--slurm-job "${{SLURM_JOB_ID:-}}"'
)
os.environ.update(GPUS="", RUNS_PER_GPU="1")


def cell_of(wildcards):
    return CELLS[wildcards.suite, wildcards.env, wildcards.variant, wildcards.seed]


def asked(wildcards):
    """What a cell asks a cluster for."""
    return request(cell_of(wildcards), SUITES[wildcards.suite].total_steps, CONTENTS.root)


def ask_cells():
    """Ask every cell what it is, once, and force what is there and does not count.

    What is done rests on this, whatever Snakemake's own records say or lack. It is called while Snakemake collects
    inputs, before it decides what to do.
    """
    if workflow.is_main_process and not STATES:
        for name, cells in TRAINED.items():
            STATES[name] = state_of(cells, CONTENTS)
            workflow.dag.forcefiles.update(outdated(name, [*STATES[name].changed, *retried(name)]))
        if trains_here():
            hand_out_gpus()


def on_gpu(cell):
    return device_of(cell.overrides) != "cpu"


def hand_out_gpus():
    """Find the GPUs for the cells that need one, and have Snakemake start no more of these than there are places.

    Ends with one line where a GPU that is asked for is missing.
    """
    cells = [cell for name in STATES for cell in to_train(name) if on_gpu(cell)]
    if not cells and not OPTIONS["gpus"]:
        return
    if fixed := [device for cell in cells if (device := device_of(cell.overrides)) != "cuda"]:
        sys.exit(f"device={fixed[0]}: the pipeline chooses the GPU of a cell; write cuda there, and --config gpus=...")
    try:
        gpus = find_gpus(OPTIONS["gpus"])
        shared = places(len(gpus), OPTIONS["runs_per_gpu"], workflow.cores)
    except GpuError as error:
        sys.exit(f"--config {error}" if str(error).startswith(("gpus", "runs_per_gpu")) else str(error))
    os.environ.update(GPUS=",".join(gpus), RUNS_PER_GPU=str(shared))
    workflow.register_resource("gpu", len(gpus) * shared)
    say(f"{len(cells)} cells on GPUs {', '.join(gpus)}, {shared} at most on each")


def retried(name):
    """The failed cells of a suite that are tried again."""
    return STATES[name].failed if OPTIONS["retry_failed"] else []


def to_train(name):
    """The cells of a suite that this call is to train."""
    return [*STATES[name].new, *STATES[name].changed, *retried(name)]


def tables_and_figures(wildcards):
    """What `all` asks for: the time to refuse what cannot be trained, and to say what is ahead."""
    if FAULT:
        sys.exit(FAULT)
    ask_cells()
    if workflow.is_main_process and not GRID:
        GRID.extend(SUITES)
        refuse_cells()
        for name, suite in SUITES.items():
            part = f", part {OPTIONS['part']}" if OPTIONS["part"] else ""
            published = [cell for cell in PARTS[name] if cell in PUBLISHED[name]]
            planned = replace(suite, cells=tuple(PARTS[name]))
            ahead = overview(planned, STATES[name], CONTENTS, published, retried(name))
            for line in (*NOT_REUSED[name], *ahead):
                say(f"suite {name}{part}: {line}")
        if len(SUITES) > 1:
            say(f"less: --config suite=NAME with one of {', '.join(SUITES)}, or with quick for a first look in minutes")
    done = ("tables/index.md", "figures/.complete", "report.html")
    return [f"results/{name}/{file}" for name in SUITES for file in done]


def trains_here():
    """Whether cells are to train on this machine now, and not elsewhere or not at all as with -n."""
    settings = workflow.executor_plugin.common_settings
    return settings.local_exec and not settings.dryrun_exec and not settings.touch_exec


def refuse_cells():
    """End with a line for each reason why train.py would refuse cells that are to train."""
    lines = []
    for name in STATES:
        refused = uncomposable(TRAINED[name], CONTENTS)
        if not refused and trains_here():
            refused = refused_by_train(to_train(name), CONTENTS)
        lines += [f"suite {name}: {line}" for line in describe(refused)]
    if lines:
        sys.exit("\n".join(lines))


def outdated(name, cells):
    """The files of a suite to be made again: results of these cells, a plan of another grid, tables of unknown origin."""
    results = Path("results") / name
    yield from (f"{cell.run_dir}/status.json" for cell in cells)
    if not is_planned(results, plan(SUITES[name], PUBLISHED[name])):
        yield f"{results}/suite.json"
    tables = f"{results}/tables/index.md"
    if workflow.persistence.metadata(IOFile(tables)) is None:
        yield tables


def any_of(names):
    return "|".join(re.escape(name) for name in sorted(set(names)))


def say(message):
    print(message, file=sys.stderr, flush=True)


def published_names():
    """The suites that `published` builds, whether they have a file in conf/ or not; none: all that are published."""
    if "suite" not in config:
        return []
    try:
        check_name("suite", OPTIONS["suite"].partition("@")[0])
    except ValueError as error:
        sys.exit(str(error))
    return list(SUITES) or [OPTIONS["suite"]]


wildcard_constraints:
    suite=any_of(SUITES),
    env=any_of(env for _, env, _, _ in CELLS),
    variant=any_of(variant for _, _, variant, _ in CELLS),
    seed=any_of(seed for _, _, _, seed in CELLS),


localrules:
    all,
    suite,
    analyse,
    publish,
    published,


rule all:
    input:
        tables_and_figures,


# status.json is the only file of a run that is declared, because Snakemake deletes outputs and logs before it starts
# a job: the tables, the checkpoint and train.log must survive that, since train.py finds out what to do with them.
#
# A cell is done for as long as its run is of today's identity, which is a parameter. The run directory is asked as
# well, since Snakemake's own records may be gone. What may change without a rerun is no parameter: the shell command
# (the trigger `code` is off, see profiles/default), the number of attempts (a resource), the directory (from the output).
#
# Low seeds come first: a grid cut short is a grid with fewer seeds.
#
# The retries stand here and not in the profile, since the wrapper must know which attempt is the last one also
# inside a cluster job, where Snakemake says `--retries 0`.
rule train:
    input:
        lambda wildcards: ask_cells() or [],
    output:
        f"{RUN_DIR}/status.json",
    log:
        "results/{suite}/logs/{env}/{variant}/seed-{seed}.log",
    priority: lambda wildcards: -int(wildcards.seed)
    retries: RETRIES
    threads: 1
    resources:
        attempt=lambda wildcards, attempt: attempt,
        attempts=RETRIES + 1,
        gpu=lambda wildcards: int(on_gpu(cell_of(wildcards))),
        # of a job of a cluster alone; minutes, and megabytes
        runtime=lambda wildcards: asked(wildcards).minutes,
        mem_mb=lambda wildcards: asked(wildcards).megabytes,
    params:
        identity=lambda wildcards: CONTENTS.hash(cell_of(wildcards)),
        overrides=lambda wildcards: cell_of(wildcards).overrides,
        run_dir=subpath(output[0], parent=True),
    shell:
        '"$PYTHON" -m pipeline.run_cell {params.run_dir:q} --identity {params.identity:q} '
        "--attempt {resources.attempt} --attempts {resources.attempts} --pipeline-pid $PPID "
        f'{LEASE} -- "$PYTHON" train.py {{params.overrides:q}} {TEE}'


# Rewritten whenever the grid changes, as it does with the suite file, a new algorithm or a newly published cell.
rule suite:
    output:
        "results/{suite}/suite.json",
    log:
        "results/{suite}/logs/suite.log",
    params:
        reuse="--reuse" if OPTIONS["reuse_published"] else "",
        digest=lambda wildcards: digest(plan(SUITES[wildcards.suite], PUBLISHED[wildcards.suite])),
    shell:
        '"$PYTHON" -m pipeline.reuse {wildcards.suite:q} {params.reuse} --digest {params.digest} '
        "> {output:q} 2> {log:q} || (cat {log:q} >&2; exit 1)"


# Repeated whenever a cell, the grid or the code that reads them changes.
rule analyse:
    input:
        cells=lambda wildcards: ask_cells() or [f"{cell.run_dir}/status.json" for cell in TRAINED[wildcards.suite]],
        published=lambda wildcards: list(PUBLISHED[wildcards.suite].values()),
        suite="results/{suite}/suite.json",
        external=EXTERNAL,
        code=sorted(
            str(path)
            for room in ("analysis", "tracking")
            for path in Path(room).rglob("*.*")
            if path.suffix in (".py", ".csv", ".html", ".css", ".js") and not any(map(is_hidden, path.parts))
        ),
    output:
        tables="results/{suite}/tables/index.md",
        figures=touch("results/{suite}/figures/.complete"),
        report=report("results/{suite}/report.html", caption="analysis/report/caption.rst", category="{suite}"),
    log:
        "results/{suite}/logs/analyse.log",
    params:
        results=subpath(input.suite, parent=True),
        external=["--external", *EXTERNAL] if EXTERNAL else [],
    shell:
        '"$PYTHON" -m analysis {params.results:q} {params.external:q} > {log:q} 2>&1'


# The rules below make nothing that Snakemake could find up to date: whoever names them, runs them.


# What there is of the suites, into results/published/.
rule publish:
    log:
        f"results/logs/publish-{OPTIONS['suite']}.log",
    params:
        names=list(SUITES),
    shell:
        f'"$PYTHON" -m pipeline.publish {{params.names:q}} {TEE}'


# Published cells of other code than today's, taken over where the code of today gives the same bits.
rule carry:
    log:
        f"results/logs/carry-{OPTIONS['suite']}.log",
    threads: workflow.cores
    params:
        names=list(SUITES),
    shell:
        f'"$PYTHON" -m pipeline.carry {{params.names:q}} --jobs {{threads}} {TEE}'


# Tables and figures of the published suites from their cells alone, compared with those that are there.
rule published:
    log:
        "results/logs/published.log",
    params:
        names=published_names(),
    shell:
        f'"$PYTHON" -m pipeline.rebuild {{params.names:q}} {TEE}'


# Some published cells trained again, as far as shows whether they come out the same.
rule verify:
    log:
        f"results/logs/verify-{OPTIONS['suite']}.log",
    params:
        names=list(SUITES),
        sample=OPTIONS["sample"],
        sample_seed=OPTIONS["sample_seed"],
        stop_after=OPTIONS["stop_after"],
    shell:
        '"$PYTHON" -m pipeline.verify {params.names:q} --sample {params.sample} --sample-seed {params.sample_seed} '
        f"--stop-after {{params.stop_after}} {TEE}"


onsuccess:
    for name in GRID:
        say(
            f"suite {name}: read results/{name}/report.html; tables in results/{name}/tables/index.md, figures in results/{name}/figures/"
        )


onerror:
    for name in GRID:
        say(f"suite {name}: not complete; the same command goes on where this one ended")
