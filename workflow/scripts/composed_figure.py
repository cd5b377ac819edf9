"""Draw the panels of a specialised target (as in Fig. 4) or of another element (as in Fig. 5)."""

from __future__ import annotations

import argparse
from pathlib import Path

from pretraining.figures.composed import alchemical, specialised
from pretraining.figures.learning_curves import panel_table
from pretraining.figures.panels import Options, comparable
from pretraining.figures.style import Parser, save
from pretraining.results.published import published_points, with_published_errors
from pretraining.results.runs_table import RMSE, read_runs
from pretraining.results.selection import Selection, on_test_set, select, select_each, sets_tested
from pretraining.runtime import cli
from pretraining.runtime.errors import UserError
from pretraining.runtime.files import read_yaml
from pretraining.runtime.tables import read_csv, write_csv
from pretraining.study.titles import published_names, read_styles, read_titles

COMPARE = {"pretrain_size": "npre", "source": "source"}


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True, help="runs table")
    parser.add_argument("--figure", choices=("specialised", "alchemical"), required=True)
    parser.add_argument("--target", required=True, help="dataset that was trained on")
    parser.add_argument("--compare", choices=sorted(COMPARE), default="source")
    parser.add_argument("--out", type=cli.Output, nargs="+", required=True, help=".pdf, .png, .svg")
    parser.add_argument("--table", type=cli.Output, help="the numbers of all panels, CSV")
    parser.add_argument("--aggregate", choices=("best", "mean"), default="best")
    parser.add_argument("--metric", choices=sorted(RMSE), default="force")
    parser.add_argument("--bars-at", type=cli.whole(), default=400, help="structures of the bars")
    parser.add_argument("--bars-of", choices=("all", "last"), default="all", help="transforms")
    parser.add_argument("--untuned", action="store_true", help="lines of pre-trained models")
    parser.add_argument("--source-errors", action="store_true", help="lines of the label sources")
    parser.add_argument("--published-points", type=Path, help="published best seeds and seed 42")
    parser.add_argument("--published-errors", type=Path, help="published single numbers")
    parser.add_argument("--embedding", type=Path, help="map of environments, CSV")
    parser.add_argument("--embedding-style", type=Path, help="how it is drawn, YAML")
    args = parser.parse_args()
    if (args.embedding is None) != (args.embedding_style is None):
        raise UserError("--embedding and --embedding-style: give both or neither")
    options = Options(
        compare=COMPARE[args.compare],
        aggregate=args.aggregate,
        metrics=(args.metric,),
        untuned=args.untuned,
        sources=args.source_errors,
    )
    runs, compare = read_runs(args.runs), {"compare": options.compare, "what": str(args.runs)}
    titles = {"titles": read_titles(args.styles), "embedding": embedding_panel(args)}
    styles = read_styles(args.styles)
    names = published_names(args.styles) or {}
    if args.figure == "specialised":
        selections = [
            select(on_test_set(runs, args.target, tested), Selection(target=tested), **compare)
            for tested in sets_tested(runs, args.target)
        ]
    else:
        selections = select_each(runs, Selection(target=args.target), **compare)
    selections = [
        with_published_errors(s, args.published_errors, names.get(s.chosen.target, ""))
        for s in comparable(selections, options)
    ]
    shown = selections[:1] if args.figure == "specialised" else selections
    how = {"compare": options.compare, "aggregate": args.aggregate}
    name = names.get(args.target, "")
    published = published_points(None, args.published_points, name, shown, **how)
    if args.figure == "specialised":
        figure = specialised(selections, options, styles, **titles, published=published)
    else:
        bars = {"bars_at": args.bars_at, "bars_of": args.bars_of, "published": published}
        figure = alchemical(selections, options, styles, **bars, **titles)
    save(figure, *args.out)
    if args.table:
        table = panel_table(selections, options, args.figure, args.bars_at, published)
        write_csv(args.table, table)


def embedding_panel(args: argparse.Namespace):
    """Return what draws the map of environments into a panel; None without one."""
    if args.embedding is None:
        return None
    from pretraining.figures.maps import COLUMNS, draw_embedding, legend_handles

    style = read_yaml(args.embedding_style, "samples", "colour_by")
    table = read_csv(args.embedding, COLUMNS)
    samples, colour_by = style["samples"], style["colour_by"][0]

    def draw(axes) -> None:
        draw_embedding(axes, table, samples, colour_by)
        # In one column: a panel is narrower than a figure of its own.
        axes.legend(
            handles=legend_handles(samples, colour_by),
            loc="upper center",
            bbox_to_anchor=(0.5, 0.0),
            fontsize=6.2,
            handletextpad=0.2,
            labelspacing=0.3,
            borderaxespad=0.2,
        )

    return draw


if __name__ == "__main__":
    cli.run(main)
