"""Check a study's configuration as Snakemake reads it, and say what is planned.

A fault ends in one line with file and key, or line and column. Nothing is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from snakemake.common.configfile import load_configfile
from snakemake.utils import update_config

from pretraining.data.glance import glance
from pretraining.data.retrieve import remote_files, study_items
from pretraining.runtime import cli
from pretraining.study import estimate
from pretraining.study.plan import Plan, plan, read_files
from pretraining.study.queries import datasets_read, sources_read
from pretraining.study.sources import changed_files, interpreter_of

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    parser = cli.Parser(description=__doc__)
    parser.add_argument(
        "config",
        nargs="*",
        default=["config/config.yaml"],
        help="files as after --configfile; later ones take precedence (default: %(default)s)",
    )
    files = parser.parse_args().config
    read_files(files)
    config: dict[str, Any] = {}
    for file in files:
        update_config(config, load_configfile(file))
    study = plan(config, files, glance)
    check_what_jobs_look_up(study)
    print(described(study))


def check_what_jobs_look_up(study: Plan) -> None:
    """Raise a `UserError` for what the rules would notice only later."""
    config = study.config
    for item in study_items(config):
        remote_files(config, item)
    for name in sources_read(config):
        source = config["sources"][name]
        if "calculator" in source:
            interpreter_of(name, source)
            stamp = Path(config["results"]) / f"retrieved/source~{name}.json"
            changed_files(name, source, stamp)


def described(study: Plan) -> str:
    """Return what is planned: data, sources, and runs with their hours."""
    config, grid = study.config, study.grid
    finished = estimate.finished_seconds(grid, config["results"])
    costs = estimate.published_costs(ROOT / "resources/published/training-cost.csv")
    seconds = estimate.expected_seconds(config, grid, costs, finished)
    named = {
        "experiments": config["experiments"],
        "datasets": sorted(datasets_read(config)),
        "sources": sorted(sources_read(config)),
        "maps": config["embeddings"],
        "MD tests": config["dynamics"],
    }
    lines = [f"{study.files}: no fault found; results in {config['results']}"]
    lines += [f"{what}: {', '.join(names)}" for what, names in named.items() if names]
    lines += ["decided:", *map(str, study.decisions)] if study.decisions else []
    return "\n".join([*lines, "", estimate.summarise(config, grid, seconds, finished)])


if __name__ == "__main__":
    cli.run(main)
