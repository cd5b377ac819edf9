"""Accept results that were copied here, as far as they fit the configuration.

Each result is compared with the configuration by its own record. What has other settings, data or
models is named, and the next Snakemake makes it again with all that follows from it.
"""

from __future__ import annotations

from pathlib import Path

from pretraining.data.glance import read_study
from pretraining.operations.accept import accept
from pretraining.operations.fit import examine
from pretraining.runtime import cli
from pretraining.runtime.errors import UserError
from pretraining.study.grid import grid_table


def main() -> None:
    parser = cli.Parser(description=__doc__)
    parser.add_argument(
        "targets", nargs="*", help="of snakemake, if not all (such as check_sources)"
    )
    parser.add_argument(
        "--config",
        type=Path,
        default=Path("config/config.yaml"),
        help="configuration of the study (default: %(default)s)",
    )
    parser.add_argument("--dry-run", "-n", action="store_true", help="only say what fits")
    args = parser.parse_args()

    if any(Path(".snakemake/locks").glob("*")):
        raise UserError(
            "Snakemake is at work in this folder; wait for it, or, if it was killed: "
            "snakemake --unlock"
        )
    config = read_study([args.config])
    grid = grid_table(config)
    refusals = examine(config, grid)
    for refusal in refusals:
        print(f"not accepted: {refusal.what}: {refusal.why}")
    made = sum(Path(config["results"], path, "metrics.json").is_file() for path in grid["path"])
    refused = sum(refusal.what.startswith("runs/") for refusal in refusals)
    print(
        f"{config['results']}: {made - refused:,} training runs accepted, {refused:,} not, "
        f"{len(grid) - made:,} not there"
    )
    if args.dry_run:
        return
    left = accept(config, args.config, refusals, args.targets)
    if "Job stats:" in left:
        print("Snakemake would now run:" + left.split("Job stats:")[1].split("total")[0].rstrip())
    else:
        print(left.strip().splitlines()[-1])


if __name__ == "__main__":
    cli.run(main)
