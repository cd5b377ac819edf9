"""Draw an MD stability test: pictures, coordination, survival and layering against time."""

from __future__ import annotations

from pathlib import Path

from pretraining.figures.dynamics import stability_figure
from pretraining.figures.style import Parser, save
from pretraining.runtime.cli import Output, number, run
from pretraining.runtime.tables import read_csv
from pretraining.study.generation import FIRST_FIVE_FOLD


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--table", type=Path, required=True, help="table of the trajectories, CSV")
    parser.add_argument("--title", default="")
    parser.add_argument("--radius", type=number(), help="of neighbours, Å; default, covalent radii")
    parser.add_argument(
        "--snapshots", type=moment, nargs="*", default=[], help=f"times, ps, or {FIRST_FIVE_FOLD}"
    )
    parser.add_argument("--out", type=Output, nargs="+", required=True, help=".pdf, .png, .svg")
    args = parser.parse_args()
    columns = ("group", "kind", "status", "time_ps", "planned_ps", "folder", "first_five_fold_ps")
    table = read_csv(args.table, columns)
    save(stability_figure(table, args.title, args.radius, args.snapshots), *args.out)


def moment(text: str) -> float | str:
    """Return the time of a snapshot."""
    return text if text == FIRST_FIVE_FOLD else number(equal=True)(text)


if __name__ == "__main__":
    run(main)
