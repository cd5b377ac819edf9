"""Refuse a grid that needs more structures of a set than it has."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pretraining import cli
from pretraining.errors import UserError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--summary", required=True, type=Path, help="summary of a prepared set")
    parser.add_argument("--needed", required=True, type=int, help="size of the largest run")
    args = parser.parse_args()
    summary = json.loads(args.summary.read_text(encoding="utf-8"))
    pool = summary["counts"]["train"]
    if args.needed > pool:
        raise UserError(
            f"the grid needs {args.needed} training structures of '{summary['dataset']}', but "
            f"filters and split leave {pool}: lower the sizes in the configuration's experiments"
        )


if __name__ == "__main__":
    cli.run(main)
