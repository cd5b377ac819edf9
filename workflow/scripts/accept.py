"""Accept results that were copied here, as far as they are of this configuration.

Each training run is held against the configuration by its own record. What is of other settings,
data or models is named, and made again by the next Snakemake with all that follows from it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pretraining.operations import moving
from pretraining.runtime import cli
from pretraining.runtime.errors import UserError
from pretraining.study.config import load_config, validate_study
from pretraining.study.grid import grid_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "targets", nargs="*", help="as of snakemake, if not all (such as check_sources)"
    )
    parser.add_argument(
        "--config",
        type=Path,
        default=Path("config/config.yaml"),
        help="configuration of the study (default: %(default)s)",
    )
    parser.add_argument("--dry-run", "-n", action="store_true", help="only say what would be done")
    args = parser.parse_args()

    if moving.locked(Path.cwd()):
        raise UserError(
            "Snakemake is at work in this folder; wait for it, or, if it was killed: "
            "snakemake --unlock"
        )
    config = validate_study(load_config(args.config), str(args.config))
    checker, refusals, settings = moving.examine(config, grid_table(config))
    for refusal in refusals:
        print(f"not accepted: {refusal.what}: {refusal.why}")
    refused = sum(refusal.what.startswith("runs/") for refusal in refusals)
    print(
        f"{config['results']}: {checker.accepted:,} training runs accepted, {refused:,} not, "
        f"{checker.missing:,} not there"
    )
    if args.dry_run:
        return
    left = moving.accept(config, args.config, refusals, settings, args.targets)
    if "Job stats:" in left:
        print("Snakemake would now run:" + left.split("Job stats:")[1].split("total")[0].rstrip())
    else:
        print(left.strip().splitlines()[-1])


if __name__ == "__main__":
    cli.run(main)
