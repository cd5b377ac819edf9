"""Summarise an MD stability test: a table of trajectories, survival curves, a page."""

from __future__ import annotations

from pathlib import Path

from pretraining.dynamics.stability.survival import as_markdown, summarise, survival_curves
from pretraining.runtime.cli import Output, Parser, run
from pretraining.runtime.files import write_text
from pretraining.runtime.tables import write_csv


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--outcomes", type=Path, nargs="*", required=True, help="outcome.json, …")
    parser.add_argument("--out", type=Output, required=True, help="table of trajectories, CSV")
    parser.add_argument("--survival", type=Output, required=True, help="survival curves, CSV")
    parser.add_argument("--markdown", type=Output, required=True, help="page to write")
    args = parser.parse_args()
    table = summarise(args.outcomes)
    write_csv(args.out, table)
    write_csv(args.survival, survival_curves(table))
    write_text(args.markdown, as_markdown(table))
    for group, part in table.groupby("group", sort=False):
        print(f"{group}: {(part['status'] == 'survived').sum()} of {len(part)} survive")


if __name__ == "__main__":
    run(main)
