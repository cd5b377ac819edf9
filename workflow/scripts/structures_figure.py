"""Draw energy and coordination of generated structures against their density."""

from __future__ import annotations

from pathlib import Path

from pretraining.dynamics.summary import CLASSES, ENERGY
from pretraining.figures.dynamics import structures_figure
from pretraining.figures.style import Parser, save
from pretraining.runtime.cli import Output, run
from pretraining.runtime.tables import read_csv


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--table", type=Path, required=True, help="table of the trajectories, CSV")
    parser.add_argument("--out", type=Output, nargs="+", required=True, help=".pdf, .png, .svg")
    args = parser.parse_args()
    table = read_csv(args.table, ("density", "anneal_T", ENERGY, *CLASSES))
    save(structures_figure(table), *args.out)


if __name__ == "__main__":
    run(main)
