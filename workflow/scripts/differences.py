"""List every difference between a computed Table 1 and the published one."""

from __future__ import annotations

from pathlib import Path

from pretraining.results.table1 import compare, compare_markdown, read_table1
from pretraining.runtime import cli
from pretraining.runtime.files import write_text
from pretraining.runtime.tables import write_csv
from pretraining.study.titles import read_styles


def main() -> None:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--table", type=Path, required=True, help="computed table")
    parser.add_argument("--published", type=Path, required=True, help="table to compare with")
    parser.add_argument("--styles", type=Path, help="titles of the sources")
    parser.add_argument(
        "--out", type=cli.Output, required=True, help="computed minus published, CSV"
    )
    parser.add_argument("--markdown", type=cli.Output, required=True)
    args = parser.parse_args()
    differences = compare(read_table1(args.table), read_table1(args.published))
    write_csv(args.out, differences)
    write_text(args.markdown, compare_markdown(differences, read_styles(args.styles)))


if __name__ == "__main__":
    cli.run(main)
