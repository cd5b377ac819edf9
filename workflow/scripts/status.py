"""Show the state of a study: training runs by state, hours, and failures with their causes.

It reads only the runs' own records, also while Snakemake is at work.
"""

from __future__ import annotations

from pathlib import Path

from pretraining.data.glance import read_study
from pretraining.operations import status
from pretraining.runtime import cli
from pretraining.study import estimate
from pretraining.study.grid import grid_table

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    parser = cli.Parser(description=__doc__)
    parser.add_study()
    parser.add_argument("--sizes", action="store_true", help="a line for each number of structures")
    parser.add_argument(
        "--names",
        type=cli.whole(0),
        default=10,
        help="largest number of runs named for a state (default: 10)",
    )
    args = parser.parse_args()

    config = read_study(args.config, args.results)
    grid = grid_table(config)
    costs = estimate.published_costs(ROOT / "resources/published/training-cost.csv")
    table = status.run_table(config, grid, costs)
    print(status.summary(config, grid, table, args.sizes, args.names))


if __name__ == "__main__":
    cli.run(main)
