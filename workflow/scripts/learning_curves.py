"""Draw learning curves by pre-training size (as in Fig. 2) or by label source (as in Fig. 3).

With --draw, of the same runs: training times and what they buy, or the errors over both sizes.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pretraining.figures.learning_curves import learning_curves, panel_table
from pretraining.figures.loss_surface import loss_surface
from pretraining.figures.panels import Options, comparable
from pretraining.figures.style import Parser, save
from pretraining.figures.training_time import training_time_figure
from pretraining.results.published import (
    published_points,
    published_times,
    with_published_errors,
)
from pretraining.results.runs_table import RMSE, read_runs
from pretraining.results.selection import Selection, select_each
from pretraining.runtime import cli
from pretraining.runtime.tables import write_csv
from pretraining.study.queries import PUBLISHED_TARGET
from pretraining.study.titles import read_styles

FIGURES = {"fig2": "npre", "fig3": "source"}
COMPARE = {"npre": "npre", "pretrain_size": "npre", "source": "source"}


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--runs", type=Path, help="runs table; without it only --published")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--figure", choices=sorted(FIGURES), help="as in the paper")
    what.add_argument("--compare", choices=sorted(COMPARE), help="a curve for each of these")
    parser.add_argument("--draw", choices=("curves", "time", "surface"), default="curves")
    parser.add_argument("--out", type=cli.Output, nargs="+", required=True, help=".pdf, .png, .svg")
    parser.add_argument("--table", type=cli.Output, help="the numbers of all panels, CSV")
    parser.add_argument("--aggregate", choices=("best", "mean"), default="best")
    parser.add_argument("--metrics", nargs="+", choices=sorted(RMSE), default=sorted(RMSE))
    parser.add_argument("--target")
    parser.add_argument("--source", help="label source (by pre-training size)")
    parser.add_argument("--npre", type=cli.whole(), help="pre-training size (by label source)")
    parser.add_argument("--structures")
    parser.add_argument("--transform")
    parser.add_argument("--preseed", help="seed of the pre-training")
    parser.add_argument("--published", type=Path, help="published Table 1")
    parser.add_argument("--published-points", type=Path, help="published best seeds and seed 42")
    parser.add_argument("--published-times", type=Path, help="published training times")
    parser.add_argument("--published-errors", type=Path, help="published single numbers")
    parser.add_argument("--published-as", help="name of the test set there; default, its own")
    parser.add_argument("--untuned", action="store_true", help="lines of pre-trained models")
    parser.add_argument("--source-errors", action="store_true", help="lines of the label sources")
    args = parser.parse_args()
    compare = FIGURES[args.figure] if args.figure else COMPARE[args.compare]
    selections = []
    if args.runs:
        names = ("target", "source", "npre", "structures", "transform", "preseed")
        wanted = Selection(**{name: getattr(args, name) for name in names})
        runs = read_runs(args.runs)
        selections = select_each(runs, wanted, compare=compare, what=str(args.runs))
        for note in dict.fromkeys(note for selected in selections for note in selected.notes):
            print(f"note: {note}", file=sys.stderr)
    options = Options(
        compare=compare,
        aggregate=args.aggregate,
        metrics=args.metrics,
        untuned=args.untuned,
        sources=args.source_errors,
    )
    selections = comparable(selections, options)
    target = selections[0].chosen.target if selections else PUBLISHED_TARGET
    name, styles = args.published_as or target, read_styles(args.styles)
    selections = [with_published_errors(s, args.published_errors, name) for s in selections]
    if args.draw == "time":
        published = published_times(args.published_times, name)
        figure, table = training_time_figure(selections, options, styles, published)
        save(figure, *args.out)
        if args.table:
            write_csv(args.table, table)
        return
    published = None
    if args.published or args.published_points:
        files = (args.published, args.published_points)
        how = {"compare": compare, "aggregate": args.aggregate}
        published = published_points(*files, name, selections, **how)
        if published is None:
            print(f"note: nothing is published for {name}", file=sys.stderr)
    draw = loss_surface if args.draw == "surface" else learning_curves
    save(draw(selections, options, styles, published), *args.out)
    if args.table:
        write_csv(args.table, panel_table(selections, options, published=published))


if __name__ == "__main__":
    cli.run(main)
