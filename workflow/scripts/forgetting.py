"""Write what models lose on general test sets when they are trained on a special dataset."""

from __future__ import annotations

from pathlib import Path

from pretraining.results.forgetting import as_markdown, forgetting
from pretraining.results.published import claims_of_forgetting, read_claims
from pretraining.results.runs_table import read_runs
from pretraining.runtime import cli
from pretraining.runtime.files import write_text
from pretraining.runtime.tables import write_csv
from pretraining.study.titles import published_names, read_styles


def main() -> None:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True, help="runs table")
    parser.add_argument("--out", type=cli.Output, required=True, help="ratios as CSV")
    parser.add_argument("--markdown", type=cli.Output)
    parser.add_argument("--styles", type=Path, help="titles and kinds of the sources")
    parser.add_argument("--published", type=Path, help="published single numbers")
    args = parser.parse_args()
    table = forgetting(read_runs(args.runs))
    write_csv(args.out, table)
    if args.markdown:
        claims = None
        if args.published:
            published = read_claims(args.published, published_names(args.styles))
            claims = claims_of_forgetting(published, table)
        write_text(args.markdown, as_markdown(table, read_styles(args.styles), claims))


if __name__ == "__main__":
    cli.run(main)
