"""Fit a map (UMAP) to descriptors of base samples, and project others onto it."""

from __future__ import annotations

from pathlib import Path

from pretraining.embedding.maps import embed
from pretraining.embedding.soap import Environments
from pretraining.runtime.cli import Output, Parser, run
from pretraining.runtime.files import read_yaml
from pretraining.runtime.tables import write_csv


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--settings", type=Path, required=True, help="YAML of the map")
    parser.add_argument("--base", type=Path, nargs="+", required=True, help="descriptors (HDF5)")
    parser.add_argument("--project", type=Path, nargs="*", default=[], help="descriptors (HDF5)")
    parser.add_argument("--out", type=Output, required=True, help="table of the map, CSV")
    args = parser.parse_args()
    settings = read_yaml(args.settings)
    base, project = (
        {path.stem: Environments.read(path) for path in paths}
        for paths in (args.base, args.project)
    )
    table = embed(base, project, **settings)
    write_csv(args.out, table)
    counts = ", ".join(f"{len(sample):,} of {name}" for name, sample in (base | project).items())
    print(f"{args.out}: environments: {counts}")


if __name__ == "__main__":
    run(main)
