"""Describe a sample of atomic environments of a prepared set by SOAP vectors."""

from __future__ import annotations

import time
from pathlib import Path

from pretraining.data.store import Store
from pretraining.embedding.soap import describe
from pretraining.runtime.cli import Output, Parser, run
from pretraining.runtime.files import read_yaml


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--settings", type=Path, required=True, help="YAML of the sample")
    parser.add_argument("--data", type=Path, required=True, help="prepared set (HDF5)")
    parser.add_argument("--out", type=Output, required=True, help="descriptors to write (HDF5)")
    args = parser.parse_args()
    settings = read_yaml(args.settings, "descriptor", "seed", "sample", "transforms")
    start = time.perf_counter()
    with Store(args.data) as store:
        environments = describe(store, settings)
    environments.write(args.out, settings)
    seconds = time.perf_counter() - start
    n, dimension = environments.vectors.shape
    print(f"{args.out}: {n:,} environments, {dimension} components each, in {seconds:.0f} s")


if __name__ == "__main__":
    run(main)
