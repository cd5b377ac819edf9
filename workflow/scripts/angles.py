"""Draw the angles between predicted and DFT forces, before and after fine-tuning."""

from __future__ import annotations

from pathlib import Path

from pretraining.figures.angles import angles_figure
from pretraining.figures.style import Parser, save
from pretraining.results.published import read_claims
from pretraining.runtime import cli
from pretraining.runtime.errors import UserError
from pretraining.runtime.tables import write_csv
from pretraining.study.titles import published_names, read_styles


def main() -> None:
    parser = Parser(description=__doc__)
    text = "NPZ of evaluate.py, at the path that the workflow gives them (…/source~ace/…/n~25/…)"
    parser.add_argument("--predictions", type=Path, nargs="+", required=True, help=text)
    parser.add_argument("--note", default="", help="what the models are")
    parser.add_argument("--published", type=Path, help="published single numbers")
    parser.add_argument("--out", type=cli.Output, nargs="+", required=True, help=".pdf, .png, .svg")
    parser.add_argument("--table", type=cli.Output, help="means and medians, CSV")
    args = parser.parse_args()
    named = [dict(p.split("~", 1) for p in path.parts if "~" in p) for path in args.predictions]
    for names, path in zip(named, args.predictions, strict=True):
        if not {"source", "target"} <= set(names):
            raise UserError(f"--predictions: {path} does not tell its source and target: {text}")
    files = {
        (names["source"], int(names.get("n", 0))): path
        for names, path in zip(named, args.predictions, strict=True)
    }
    published = {}
    if args.published:
        claims = read_claims(args.published, published_names(args.styles))
        claims = claims[(claims["quantity"] == "angle") & (claims["npre"] == named[0].get("npre"))]
        claims = claims[claims["target"] == named[0].get("target")]
        cells = zip(claims["source"], claims["n"].astype(int), strict=True)
        published = dict(zip(cells, claims["value"], strict=True))
    note = f"{args.note} · " if args.note else ""
    figure, table = angles_figure(files, read_styles(args.styles), note, published)
    save(figure, *args.out)
    if args.table:
        write_csv(args.table, table)


if __name__ == "__main__":
    cli.run(main)
