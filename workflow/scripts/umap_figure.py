"""Draw a map of atomic environments from its table."""

from __future__ import annotations

from pathlib import Path

from pretraining.figures.maps import COLUMNS, embedding_figure
from pretraining.figures.style import Parser, save
from pretraining.runtime.cli import Output, run
from pretraining.runtime.files import read_yaml
from pretraining.runtime.tables import read_csv


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--map", type=Path, required=True, help="table of the map, CSV")
    parser.add_argument("--style", type=Path, required=True, help="YAML of what is drawn and how")
    parser.add_argument("--out", type=Output, nargs="+", required=True, help=".pdf, .png, .svg")
    args = parser.parse_args()
    style = read_yaml(args.style, "samples", "colour_by")
    save(embedding_figure(read_csv(args.map, COLUMNS), style), *args.out)


if __name__ == "__main__":
    run(main)
