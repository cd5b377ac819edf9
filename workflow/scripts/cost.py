"""Add up what the training runs cost: hours, electricity and carbon dioxide."""

from __future__ import annotations

import sys
from pathlib import Path

from pretraining.results.cost import (
    CARBON_KG_PER_KWH,
    POWER_W,
    as_markdown,
    collect_trainings,
    cost,
    pretrainings_left_out,
    training_runs,
)
from pretraining.results.published import read_claims
from pretraining.results.runs_table import read_runs
from pretraining.runtime import cli
from pretraining.runtime.errors import UserError
from pretraining.runtime.files import write_text
from pretraining.runtime.tables import write_csv
from pretraining.study import estimate


def main() -> None:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--runs", type=Path, nargs="+", default=[], help="runs tables")
    parser.add_argument("--grid", type=Path, help="table of all training runs, TSV")
    parser.add_argument("--results", type=Path, default=Path(), help="folder of the runs")
    parser.add_argument("--allow-missing", action="store_true", help="go on without a result")
    parser.add_argument("--out", type=cli.Output, required=True, help="costs as CSV")
    parser.add_argument("--markdown", type=cli.Output)
    parser.add_argument(
        "--power-w", type=cli.number(equal=True), default=POWER_W, help="power of a GPU in W"
    )
    parser.add_argument(
        "--carbon-kg-per-kwh", type=cli.number(equal=True), default=CARBON_KG_PER_KWH
    )
    parser.add_argument("--published", type=Path, help="published single numbers to set beside")
    parser.add_argument("--costs", type=Path, help="published medians, for missing runs")
    args = parser.parse_args()
    tables = [read_runs(path) for path in args.runs]
    if args.grid:
        runs = collect_trainings(args.grid, args.results, allow_missing=args.allow_missing)
        tables.append(runs)
    if not tables:
        raise UserError("nothing to add up: give --runs, --grid or both")
    published = read_claims(args.published) if args.published else None
    costs = estimate.published_costs(args.costs) if args.costs else None
    runs = training_runs(tables)
    table = cost(runs, args.power_w, args.carbon_kg_per_kwh, published, costs)
    left_out = pretrainings_left_out(runs)
    if left_out:
        print(f"note: {left_out} pre-trainings are not among the runs", file=sys.stderr)
    write_csv(args.out, table)
    if args.markdown:
        text = as_markdown(table, args.power_w, args.carbon_kg_per_kwh, left_out)
        write_text(args.markdown, text)


if __name__ == "__main__":
    cli.run(main)
