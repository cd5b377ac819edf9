"""Prepare a dataset: load, filter, check, split, subtract the energy reference, store."""

from __future__ import annotations

import argparse
from pathlib import Path

from pretraining.data.prepare import prepare
from pretraining.runtime.cli import run
from pretraining.study.config import load_config

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--dataset", required=True, help="name of the dataset in the configuration")
    parser.add_argument("--out", type=Path, required=True, help="prepared set to write (HDF5)")
    parser.add_argument("--summary", type=Path, required=True, help="JSON; a page goes beside it")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[], help="training sizes that it must have"
    )
    parser.add_argument(
        "--reference-from", type=Path, help="isolated-atom energies of the reference's source"
    )
    args = parser.parse_args()
    summary = prepare(
        load_config(args.config),
        args.dataset,
        ROOT,
        args.out,
        args.summary,
        args.sizes,
        args.reference_from,
    )
    counts = summary["counts"]
    print(
        f"{args.out}: {counts['kept']:,} of {counts['raw']:,} structures; "
        f"{counts['val']:,} validation, {counts['test']:,} test, {counts['train']:,} training"
    )
    for note in summary["notes"]:
        print(f"note: {note}")


if __name__ == "__main__":
    run(main)
