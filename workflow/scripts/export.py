"""Export the models of a run's seeds for ASE and LAMMPS: a folder that needs NequIP only.

With packages, compiled models, an example, a LAMMPS input, a model card and checksums.
"""

from __future__ import annotations

from pathlib import Path

from pretraining.data.glance import read_study
from pretraining.runtime import cli
from pretraining.study.grid import grid_table


def main() -> None:
    parser = cli.Parser(description=__doc__)
    parser.add_study()
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--run", type=Path, help="folder of a run; its other seeds come along")
    which.add_argument(
        "--best", metavar="TARGET", help="the cell with the lowest validation error on this target"
    )
    parser.add_argument("--out", type=cli.Folder, required=True, help="folder to write")
    parser.add_argument(
        "--compile",
        choices=("best", "all", "none"),
        default="best",
        help="compile the best seed's model, all or none: minutes each (default: %(default)s)",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="to compile for")
    args = parser.parse_args()

    config = read_study(args.config, args.results)
    results = Path(config["results"])

    from pretraining.operations.export import best_cell, cell_of_run, export, finished_runs

    runs = finished_runs(grid_table(config), results)
    cell = cell_of_run(runs, args.run, results) if args.run else best_cell(runs, args.best)
    export(config, results, runs, cell, args.out, args.compile, args.device)
    print(f"{args.out}: {len(cell)} models, the best of {cell.iloc[0]['path']}")


if __name__ == "__main__":
    cli.run(main)
