"""Draw an MD stability test: pictures, coordination, survival and layering against time."""

from __future__ import annotations

from pathlib import Path

from pretraining.figures.dynamics import stability_figure
from pretraining.figures.style import save
from pretraining.runtime.cli import Output, Parser, number, run
from pretraining.runtime.tables import read_csv


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--table", type=Path, required=True, help="table of the trajectories, CSV")
    parser.add_argument("--title", default="")
    parser.add_argument("--radius", type=number(), required=True, help="of neighbours, Å")
    parser.add_argument(
        "--snapshots", type=number(equal=True), nargs="*", default=[], help="times, ps"
    )
    parser.add_argument("--out", type=Output, nargs="+", required=True, help=".pdf, .png, .svg")
    args = parser.parse_args()
    table = read_csv(args.table, ("group", "kind", "status", "time_ps", "planned_ps", "folder"))
    save(stability_figure(table, args.title, args.radius, args.snapshots), *args.out)


if __name__ == "__main__":
    run(main)
