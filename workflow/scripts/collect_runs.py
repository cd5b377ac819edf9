"""Gather the metrics of all runs into one table."""

from __future__ import annotations

from pathlib import Path

from pretraining.results.runs_table import collect, read_grid
from pretraining.runtime import cli
from pretraining.runtime.tables import write_csv


def main() -> None:
    parser = cli.Parser(description=__doc__)
    parser.add_argument(
        "--grid", type=Path, required=True, help="wanted results, one row a result (TSV or CSV)"
    )
    parser.add_argument("--results", type=Path, default=Path(), help="folder of relative paths")
    parser.add_argument("--out", type=cli.Output, required=True)
    parser.add_argument("--allow-missing", action="store_true", help="keep going without a result")
    args = parser.parse_args()
    runs = collect(read_grid(args.grid), args.results, allow_missing=args.allow_missing)
    write_csv(args.out, runs)
    missing = int((runs["status"] == "missing").sum())
    print(f"{args.out}: {len(runs)} runs" + (f", {missing} of them missing" if missing else ""))


if __name__ == "__main__":
    cli.run(main)
