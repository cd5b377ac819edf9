"""Summarise a generated dataset: final energy and coordination of its trajectories."""

from __future__ import annotations

from pathlib import Path

from pretraining.dynamics.summary import as_markdown, summarise
from pretraining.runtime.cli import Output, Parser, number, refuse_overwriting, run
from pretraining.runtime.files import read_section, write_text
from pretraining.runtime.tables import write_csv


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--settings", type=Path, required=True, help="YAML of the dataset")
    parser.add_argument("--dataset", required=True, help="its name there")
    parser.add_argument("--source", required=True, help="label source of the dynamics")
    parser.add_argument("--radius", type=number(), help="of neighbours, Å; default, covalent radii")
    parser.add_argument("--out", type=Output, required=True, help="table to write, CSV")
    parser.add_argument("--markdown", type=Output, required=True)
    args = parser.parse_args()
    dataset = read_section(args.settings, "datasets", args.dataset)
    paths = [Path(path) for path in dataset["path"]]
    written = [("--out", args.out), ("--markdown", args.markdown)]
    refuse_overwriting(written, [(f"datasets.{args.dataset}.path", path) for path in paths])
    table = summarise(paths, args.source, args.radius)
    write_csv(args.out, table)
    write_text(args.markdown, as_markdown(table))


if __name__ == "__main__":
    run(main)
