"""Measure the coverage of projected samples by base samples, in descriptor space."""

from __future__ import annotations

from pathlib import Path

from pretraining.embedding.maps import as_markdown, coverage_table
from pretraining.embedding.soap import Environments
from pretraining.runtime.cli import Output, Parser, run
from pretraining.runtime.files import write_text
from pretraining.runtime.tables import write_csv


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--base", type=Path, nargs="+", required=True, help="descriptors (HDF5)")
    parser.add_argument("--project", type=Path, nargs="*", default=[], help="descriptors (HDF5)")
    parser.add_argument("--out", type=Output, required=True, help="table to write, CSV")
    parser.add_argument("--markdown", type=Output, required=True)
    args = parser.parse_args()
    base, project = (
        {path.stem: Environments.read(path) for path in paths}
        for paths in (args.base, args.project)
    )
    table = coverage_table(base, project)
    write_csv(args.out, table)
    write_text(args.markdown, as_markdown(table))


if __name__ == "__main__":
    run(main)
