"""Gather the metrics of all runs into one table."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pretraining.results.runs_table import collect, grid_of, read_grid
from pretraining.runtime import cli
from pretraining.runtime.errors import UserError
from pretraining.runtime.tables import write_csv


def main() -> None:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--grid", type=Path, help="wanted results, one row a result (TSV or CSV)")
    parser.add_argument("--metrics", nargs="+", type=Path, default=[], help="further metrics files")
    parser.add_argument("--results", type=Path, default=Path(), help="folder of relative paths")
    parser.add_argument("--out", type=cli.Output, required=True)
    parser.add_argument("--allow-missing", action="store_true", help="keep going without a result")
    args = parser.parse_args()
    if args.grid is None and not args.metrics:
        raise UserError("nothing to collect: give --grid, --metrics or both")
    grids = [read_grid(args.grid)] if args.grid else []
    grid = pd.concat([*grids, grid_of(args.metrics)], ignore_index=True)
    runs = collect(grid, args.results, allow_missing=args.allow_missing)
    write_csv(args.out, runs)
    missing = int((runs["status"] == "missing").sum())
    print(f"{args.out}: {len(runs)} runs" + (f", {missing} of them missing" if missing else ""))


if __name__ == "__main__":
    cli.run(main)
