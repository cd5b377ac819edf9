"""Take the labels that came with the first structures of a prepared set."""

from __future__ import annotations

from pathlib import Path

from pretraining.data.store import Store, StoreWriter
from pretraining.runtime import cli
from pretraining.runtime.errors import UserError


def main() -> None:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--data", required=True, type=Path, help="prepared set with labels")
    parser.add_argument(
        "--n", required=True, type=cli.whole(), help="number of training structures"
    )
    parser.add_argument("--out", required=True, type=cli.Output, help="labelled set")
    args = parser.parse_args()
    with Store(args.data) as store:
        if not store.has_labels:
            raise UserError(f"{args.data}: the set has no labels of its own")
        rows = [*store.indices("val"), *store.indices("test"), *store.indices("train", args.n)]
        with StoreWriter(args.out, has_labels=True) as writer:
            for row in rows:
                writer.add_arrays(store.arrays(row))
            prepared = {"checksum": store.checksum, **store.provenance}
            writer.finish(store.n_val, store.n_test, {"prepared": prepared})


if __name__ == "__main__":
    cli.run(main)
