"""Prepare a dataset: load, filter, check, split, subtract the energy reference, store."""

from __future__ import annotations

import json
from pathlib import Path

from pretraining.data.prepare import prepare
from pretraining.runtime.cli import Output, Parser, refuse_overwriting, run, whole
from pretraining.study.config import load_config

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--dataset", required=True, help="name of the dataset in the configuration")
    parser.add_argument("--out", type=Output, required=True, help="prepared set to write (HDF5)")
    parser.add_argument("--summary", type=Output, required=True, help="JSON; a page goes beside it")
    parser.add_argument(
        "--sizes", type=whole(0), nargs="+", default=[], help="training sizes that it must have"
    )
    parser.add_argument(
        "--reference-from", type=Path, help="isolated-atom energies of the reference's source"
    )
    parser.add_argument(
        "--handlers",
        type=json.loads,
        default={},
        help="JSON: elements that sources and models know that are to handle the set, by name",
    )
    args = parser.parse_args()
    config = load_config(args.config)
    paths = config.get("datasets", {}).get(args.dataset, {}).get("path", [])
    paths = [paths] if isinstance(paths, str) else paths
    page = args.summary.with_suffix(".md")
    refuse_overwriting(
        [("--out", args.out), ("--summary", args.summary), ("page of --summary", page)],
        [(f"datasets.{args.dataset}.path", ROOT / path) for path in paths],
    )
    summary = prepare(
        config,
        args.dataset,
        ROOT,
        args.out,
        args.summary,
        args.sizes,
        args.reference_from,
        args.handlers,
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
