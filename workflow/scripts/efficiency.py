"""Write how few structures pre-trained models need, and what pre-training gains."""

from __future__ import annotations

from pathlib import Path

from pretraining.results.efficiency import as_markdown, efficiency, gains
from pretraining.results.published import claims_of_efficiency, read_claims
from pretraining.results.runs_table import read_runs
from pretraining.runtime import cli
from pretraining.runtime.files import write_text
from pretraining.runtime.tables import write_csv
from pretraining.study.titles import published_names, read_styles


def main() -> None:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True, help="runs table")
    parser.add_argument("--out", type=cli.Output, required=True, help="efficiency as CSV")
    parser.add_argument(
        "--gains", type=cli.Output, help="gains at equal numbers of structures, as CSV"
    )
    parser.add_argument("--markdown", type=cli.Output, help="summary")
    parser.add_argument("--target", help="only this target")
    parser.add_argument("--styles", type=Path, help="titles and kinds of the sources")
    parser.add_argument("--published", type=Path, help="published single numbers")
    parser.add_argument("--differences", type=cli.Output, help="computed minus published, as CSV")
    args = parser.parse_args()
    runs = read_runs(args.runs)
    table, gained = efficiency(runs, args.target), gains(runs, args.target)
    claims = None
    if args.published:
        published = read_claims(args.published, published_names(args.styles))
        claims = claims_of_efficiency(published, table, gained, runs)
    write_csv(args.out, table)
    if args.gains:
        write_csv(args.gains, gained)
    if args.differences and claims is not None:
        write_csv(args.differences, claims)
    if args.markdown:
        write_text(args.markdown, as_markdown(table, read_styles(args.styles), claims))


if __name__ == "__main__":
    cli.run(main)
