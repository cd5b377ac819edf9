# The grid, and the helpers that rules look things up with (helpers/). All of it runs again in every
# job, so nothing heavier than pandas is imported.
import functools
import json
import math
import os
import re
import shlex
import shutil
import sys
import time
from pathlib import Path

import yaml
from snakemake.settings.types import DeploymentMethod

STARTED = time.time()

sys.path.insert(0, str(Path(workflow.basedir) / "workflow"))

from pretraining.study import estimate
from pretraining.study import grid as grids
from pretraining.study import generation as protocol
from pretraining.data import remote
from pretraining.data import retrieve as retrieval
from pretraining.study import stability as robustness
from pretraining.study import embeddings as samples
from pretraining.operations import status
from pretraining.study.config import validate_study
from pretraining.runtime.yaml_file import read_yaml
from pretraining.study.queries import (
    datasets_of,
    fitted_zero,
    label_source,
)
from pretraining.runtime.errors import UserError
from pretraining.runtime.files import write_atomically
from pretraining.runtime.slurm import stop_after_leftovers
from pretraining.study.views import ADDRESS_KEYS, SOURCE_OPTIONS, config_view, dataset_view
from pretraining.study.settings import RUNTIME_OPTIONS, COMPILE_ABOVE_S
from pretraining.study.sources import Source, parameter_files, relative_to

try:
    # Snakemake keeps the last of two equal keys without a word.
    for file in workflow.configfiles:
        read_yaml(file)
    files = " + ".join(os.path.relpath(file) for file in workflow.configfiles)
    folder = os.path.relpath(Path(workflow.configfiles[-1]).parent) if files else "."
    config = validate_study(relative_to(config, folder), files or "--config", root=".")
except UserError as error:
    # One line says it; Snakemake's own report would bury it in a traceback.
    sys.exit(f"error: {error}")

GRID = grids.grid_table(config)
COSTS = estimate.published_costs("resources/published/training-cost.csv")
SECONDS = dict(zip(GRID["path"], estimate.estimated_seconds(GRID, COSTS)))
try:
    grids.check_pools(GRID, config)
    MOVED = {name: robustness.models(config, GRID, name) for name in config["dynamics"]}
except UserError as error:
    sys.exit(f"error: {error}")
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
STAND_INS = grids.imported_runs(config)

# The folders of runs, as pretraining.study.grid.Run.path spells them.
PARENT = "structures~{structures}/transform~{transform}/source~{source}/npre~{npre}"
PRETRAINING = f"pretrain/{PARENT}/seed~{{seed}}"
IMPORTED = f"imported/{PARENT}/seed~{{seed}}"
DIRECT = "direct/target~{target}/source~none/n~{n}/seed~{seed}"
FINETUNING = f"finetune/target~{{target}}/{PARENT}/preseed~{{preseed}}/n~{{n}}/seed~{{seed}}"

# The test set of the published Table 1 and learning curves.
PUBLISHED_TARGET = "C-GAP-17"
TABLE_FORMATS = ["csv", "md", "tex"]
FIGURE_FORMATS = ["pdf", "png"]


def one_of(names):
    """Return a regular expression that matches exactly the given names."""
    return "|".join(sorted(re.escape(str(name)) for name in names)) or "(?!)"


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
    # Not a list of all runs: Snakemake would look through it for every file.
    model=r"(pretrain|imported|direct|finetune)/.+/seed~\d+",
    embedding=one_of(config["embeddings"]),
    moved=one_of(config["dynamics"]),
    replica=r"[1-9]\d*",
    sample=one_of({name for e in config["embeddings"].values() for name in samples.samples_of(e)}),
    table=one_of(["runs", *(f"{name}-runs" for name in config["experiments"])]),
