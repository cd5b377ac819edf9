"""Draw what a model predicts of a test set against its labels."""

from __future__ import annotations

from pathlib import Path

from pretraining.figures.parity import parity_figure
from pretraining.figures.style import Parser, save, source_looks
from pretraining.runtime import cli
from pretraining.study.titles import read_styles
from pretraining.training.predictions import Predictions


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--predictions", type=Path, required=True, help="NPZ of evaluate.py")
    parser.add_argument("--title", default="", help="which model, tested on what")
    parser.add_argument("--source", default="none", help="label source of the pre-training")
    parser.add_argument("--shifted", action="store_true", help="energies after a median shift")
    parser.add_argument("--out", type=cli.Output, nargs="+", required=True, help=".pdf, .png, .svg")
    args = parser.parse_args()
    colour = source_looks([args.source], read_styles(args.styles))[args.source]["color"]
    predictions = Predictions.load(args.predictions)
    save(parity_figure(predictions, args.title, colour, shifted=args.shifted), *args.out)


if __name__ == "__main__":
    cli.run(main)
