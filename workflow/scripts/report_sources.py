"""Set the checks of all label sources side by side: a page, a table and a figure."""

from __future__ import annotations

from pathlib import Path

from pretraining.figures.source_checks import figure_of_sources
from pretraining.figures.style import Parser, save
from pretraining.labels.check.summary import as_csv, page, read_checks, table_of_sources
from pretraining.runtime.cli import Output, number, run
from pretraining.runtime.files import write_text
from pretraining.study.titles import read_styles


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--checks", type=Path, nargs="+", required=True, help="JSON of check_source.py"
    )
    parser.add_argument(
        "--tolerance",
        type=number(equal=True),
        default=0.01,
        help="of forces, in units of the largest one",
    )
    parser.add_argument("--markdown", type=Output, required=True, help="page to write")
    parser.add_argument("--out", type=Output, required=True, help="table to write (CSV)")
    parser.add_argument("--figure", type=Output, nargs="+", default=[], help="figures to write")
    args = parser.parse_args()
    results = read_checks(args.checks)
    styles = read_styles(args.styles)
    table = table_of_sources(results, args.tolerance, styles)
    write_text(args.out, as_csv(table))
    write_text(args.markdown, page(table, results, args.tolerance))
    save(figure_of_sources(results, args.tolerance, styles), *args.figure)
    for row in table.to_dict("records"):
        print(f"{row['title']} {row['element']}: {row['status']}", *row["remarks"], sep="\n  ")


if __name__ == "__main__":
    run(main)
