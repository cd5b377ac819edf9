"""Take the labels of a prepared set that came with it, or that others have published."""

from __future__ import annotations

from pathlib import Path

from pretraining.data.store import Store, StoreWriter
from pretraining.labels.compare import own_labels, source_labels
from pretraining.labels.published import published_labels
from pretraining.runtime import cli
from pretraining.runtime.errors import UserError
from pretraining.study.queries import FITTED


def main() -> None:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--data", required=True, type=Path, help="prepared set")
    parser.add_argument(
        "--n", required=True, type=cli.whole(), help="number of training structures"
    )
    parser.add_argument("--published", type=Path, help="record of the retrieved files of labels")
    parser.add_argument("--source", help="source that they are compared with, and not own labels")
    parser.add_argument("--chunk", type=Path, help="the eval chunk as it has labelled it")
    parser.add_argument("--fit", choices=FITTED, help="zero of published energies")
    parser.add_argument("--out", required=True, type=cli.Output, help="labelled set")
    args = parser.parse_args()
    with Store(args.data) as store:
        if not (store.has_labels or args.chunk):
            raise UserError(f"{args.data}: the set has no labels of its own")
        labels, made = {}, {}
        if args.published:
            chunk, source = args.chunk, args.source
            known = source_labels(store, source, chunk) if chunk else own_labels(store)
            labels, made = published_labels(store, args.published, known, source, args.fit)
        rows = [*store.indices("val"), *store.indices("test"), *store.indices("train", args.n)]
        with StoreWriter(args.out, has_labels=True) as writer:
            for row in rows:
                writer.add_arrays(store.arrays(row) | labels.get(row, {}))
            prepared = {"checksum": store.checksum, **store.provenance}
            writer.finish(store.n_val, store.n_test, {"prepared": prepared, **made})


if __name__ == "__main__":
    cli.run(main)
