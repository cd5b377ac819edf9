"""Write Table 1: energy errors by label source and number of DFT-labelled structures."""

from __future__ import annotations

import sys
from pathlib import Path

from pretraining.results.runs_table import read_runs
from pretraining.results.selection import Selection, select
from pretraining.results.table1 import TABLE_COLUMNS, as_latex, as_markdown, read_table1, table1
from pretraining.runtime import cli
from pretraining.runtime.errors import UserError
from pretraining.runtime.files import write_text
from pretraining.runtime.tables import write_csv
from pretraining.study.titles import read_styles


def main() -> None:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--runs", type=Path, help="runs table; without it --published is rendered")
    parser.add_argument("--out", type=cli.Output, required=True, help="table as CSV")
    parser.add_argument("--markdown", type=cli.Output)
    parser.add_argument("--latex", type=cli.Output)
    parser.add_argument("--target")
    parser.add_argument("--npre", type=cli.whole(), help="pre-training size")
    parser.add_argument("--structures")
    parser.add_argument("--transform")
    parser.add_argument("--preseed", help="seed of the pre-training")
    parser.add_argument("--styles", type=Path, help="titles and kinds of the sources")
    parser.add_argument("--published", type=Path, help="published Table 1, beside or alone")
    args = parser.parse_args()
    styles = read_styles(args.styles)
    beside = read_table1(args.published) if args.published and args.runs else None
    if args.runs is None:
        if args.published is None:
            raise UserError("no table to write: give --runs or --published")
        table, heading = read_table1(args.published), "Table 1, published values."
    else:
        wanted = Selection(
            target=args.target,
            npre=args.npre,
            structures=args.structures,
            transform=args.transform,
            preseed=args.preseed,
        )
        selected = select(read_runs(args.runs), wanted, what=str(args.runs))
        for note in selected.notes:
            print(f"note: {note}", file=sys.stderr)
        table, chosen = table1(selected), selected.chosen
        heading = f"Table 1 for {chosen.target}."
        if chosen.npre is not None:
            heading = f"Table 1 for {chosen.target}, {chosen.npre:,} pre-training structures."
    write_csv(args.out, table[[*TABLE_COLUMNS, "unconverged"]])
    if args.markdown:
        write_text(args.markdown, as_markdown(table, styles, heading, beside))
    if args.latex:
        write_text(args.latex, as_latex(table, styles))


if __name__ == "__main__":
    cli.run(main)
