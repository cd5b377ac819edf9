"""Write the table of results that experiments compare, one row a result."""

from __future__ import annotations

from pathlib import Path

from pretraining.runtime import cli
from pretraining.runtime.files import write_text
from pretraining.study.config import load_config, validate_study
from pretraining.study.grid import grid_table, results_table


def main() -> None:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--config", required=True, type=Path, help="configuration of the study")
    parser.add_argument("--experiments", nargs="+", required=True)
    parser.add_argument("--out", required=True, type=cli.Output, help="table, TSV")
    args = parser.parse_args()
    config = validate_study(load_config(args.config), str(args.config))
    table = results_table(config, grid_table(config), args.experiments)
    write_text(args.out, table.to_csv(sep="\t", index=False))


if __name__ == "__main__":
    cli.run(main)
