"""Draw the errors of pre-trained and fine-tuned models against those of their label sources."""

from __future__ import annotations

from pathlib import Path

from pretraining.figures.source_vs_model import source_vs_model, source_vs_model_figure
from pretraining.figures.style import Parser, save
from pretraining.results.runs_table import read_runs
from pretraining.runtime import cli
from pretraining.runtime.tables import write_csv
from pretraining.study.titles import read_styles, read_titles


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True, help="runs table")
    parser.add_argument("--aggregate", choices=("best", "mean"), default="best")
    parser.add_argument("--at", type=cli.whole(), default=400, help="structures of the fine-tuning")
    parser.add_argument("--table", type=cli.Output, required=True, help="the errors as CSV")
    parser.add_argument("--out", type=cli.Output, nargs="+", required=True, help=".pdf, .png, .svg")
    args = parser.parse_args()
    table = source_vs_model(read_runs(args.runs), args.aggregate, args.at)
    write_csv(args.table, table)
    save(
        source_vs_model_figure(table, read_styles(args.styles), read_titles(args.styles)), *args.out
    )


if __name__ == "__main__":
    cli.run(main)
