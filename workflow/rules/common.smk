# The configuration and its grid of runs. Every job executes this again: nothing heavier than pandas
# is imported.
import atexit
import functools
import json
import logging
import math
import os
import re
import shlex
import sys
import time
from pathlib import Path

from snakemake.settings.types import DeploymentMethod

STARTED = time.time()

# The package is found here by Snakemake, and by the interpreter of every job.
WORKFLOW = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parent
sys.path.insert(0, str(WORKFLOW))
PACKAGES = [sys.path[0], *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
os.environ.update(PYTHONPATH=os.pathsep.join(dict.fromkeys(filter(None, PACKAGES))))

from pretraining.data.glance import glance
from pretraining.operations import status
from pretraining.runtime.errors import UserError
from pretraining.runtime.slurm import stop_after_leftovers
from pretraining.study import estimate
from pretraining.study import generation as protocol
from pretraining.study import grid as grids
from pretraining.study.plan import plan, read_files
from pretraining.study.queries import (
    STRUCTURE_KEYS,
    datasets_read,
    datasets_tested,
    label_source,
    samples_of,
)


def say_last(text):
    """Print something when all else has been said."""
    if text:
        atexit.register(print, text, file=sys.stderr)


def refuse(message):
    """End in one line; in some functions Snakemake catches this, and would bury it."""
    say_last(f"error: {message}")
    logging.disable()
    sys.exit(1)


# A --configfile replaces the paper's grid: merged, the two grids would both be run.
if not workflow.overwrite_configfiles:
    try:
        read_files(["config/config.yaml"])
    except UserError as error:
        refuse(error)

    configfile: "config/config.yaml"


try:
    PLAN = plan(config, workflow.configfiles, glance)
except UserError as error:
    refuse(error)
config, GRID = PLAN.config, PLAN.grid
if PLAN.decisions and workflow.is_main_process:
    logger.info("\n  ".join([f"Left to the data in {PLAN.files}:", *map(str, PLAN.decisions)]))

COSTS = estimate.published_costs("resources/published/training-cost.csv")
EXPECTED_SECONDS = estimate.estimated_seconds(GRID, COSTS)
# The rows of the grid by path.
RUNS = GRID.assign(seconds=EXPECTED_SECONDS).set_index("path").to_dict("index")
if DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method:
    # The environment brings the interpreter.
    for source in config["sources"].values():
        if "env" in source:
            source.pop("python", None)
CALCULATED = {name for name, source in config["sources"].items() if "calculator" in source}
GENERATED = {
    name: {run.name: run for run in protocol.trajectories(dataset["generate"])}
    for name, dataset in config["datasets"].items()
    if "generate" in dataset
}

# The folders of runs, as pretraining.study.grid.Run.path spells them.
PARENT = "structures~{structures}/transform~{transform}/source~{source}/npre~{npre}"
PRETRAINING = f"pretrain/{PARENT}/seed~{{seed}}"
IMPORTED = f"imported/{PARENT}/seed~{{seed}}"
DIRECT = "direct/target~{target}/source~none/n~{n}/seed~{seed}"
FINETUNING = f"finetune/target~{{target}}/{PARENT}/preseed~{{preseed}}/n~{{n}}/seed~{{seed}}"


def one_of(names):
    """Return a regular expression that matches exactly the given names."""
    return "|".join(sorted(re.escape(str(name)) for name in names)) or "(?!)"


def reported(path, caption, category, labels):
    """Return a file that the report shows."""
    form = path.rpartition(".")[2].upper().replace("MD", "Markdown")
    caption = f"../report/{caption}.rst"
    return report(path, caption=caption, category=category, labels={**labels, "format": form})


def figure(path, caption, category, labels):
    """Return the files of a figure that the report shows."""
    return [
        reported(f"{path}.{form}", caption, category, labels)
        for form in config["figures"]["formats"]
    ]


wildcard_constraints:
    dataset=one_of(config["datasets"]),
    target=one_of(config["datasets"]),
    structures=one_of(config["datasets"]),
    source=one_of(config["sources"]),
    transform=one_of(config["transforms"]),
    experiment=one_of(config["experiments"]),
    npre=one_of(set(GRID["npre"])),
    n=one_of(set(GRID["n"])),
    preseed=one_of(set(GRID["preseed"])),
    seed=one_of(set(GRID["seed"])),
    chunk=r"eval|\d{5}",
    generated=one_of(GENERATED),
    run=one_of({run for runs in GENERATED.values() for run in runs}),
    # Not a list of all runs: Snakemake would search it for every file.
    model=r"(pretrain|imported|direct|finetune)/[A-Za-z0-9._+~/-]+/seed~\d+",
    embedding=one_of(config["embeddings"]),
    test=one_of(config["dynamics"]),
    replica=r"[1-9]\d*",
    sample=one_of({name for e in config["embeddings"].values() for name in samples_of(e)}),
    table=one_of(["runs", *(f"{name}-runs" for name in config["experiments"])]),
