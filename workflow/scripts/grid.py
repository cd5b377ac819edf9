"""Write the table of runs and print a summary of it."""

from __future__ import annotations

import json
from pathlib import Path

from pretraining.runtime import cli
from pretraining.runtime.files import write_text
from pretraining.study import estimate
from pretraining.study.config import load_config, validate_study
from pretraining.study.grid import grid_table


def main() -> None:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--config", required=True, type=Path, help="configuration of the study")
    parser.add_argument("--costs", required=True, type=Path, help="published medians, CSV")
    parser.add_argument(
        "--procedure", type=json.loads, default={}, help="JSON: network and training, for hours"
    )
    parser.add_argument("--out", required=True, type=cli.Output, help="table of runs, TSV")
    args = parser.parse_args()

    config = validate_study(load_config(args.config), str(args.config)) | args.procedure
    grid = grid_table(config)
    finished = estimate.finished_seconds(grid, config["results"])
    costs = estimate.published_costs(args.costs)
    seconds = estimate.expected_seconds(config, grid, costs, finished)
    table = grid.assign(
        status=finished.notna().map({True: "finished", False: "to do"}),
        estimated_hours=(seconds / 3600).round(4),
    )
    write_text(args.out, table.to_csv(sep="\t", index=False))
    print(estimate.summarise(config, grid, seconds, finished))
    print(f"Table of runs: {args.out}")


if __name__ == "__main__":
    cli.run(main)
