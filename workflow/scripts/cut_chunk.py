"""Cut a chunk out of a prepared set, for a label source."""

from __future__ import annotations

from pathlib import Path

from pretraining.data.store import Store
from pretraining.labels.chunks import chunk_rows, write_chunk
from pretraining.runtime.cli import Output, Parser, run, whole


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="prepared set (HDF5)")
    parser.add_argument("--chunk", required=True, help="eval, or the number of a training chunk")
    parser.add_argument("--size", type=whole(), default=1000, help="structures in a training chunk")
    parser.add_argument("--out", type=Output, required=True, help="extended XYZ to write")
    args = parser.parse_args()
    with Store(args.data) as store:
        rows = chunk_rows(store, args.chunk, args.size, store.n_train)
        written = write_chunk(store, rows, args.out, args.size)
    repeated = len(rows) - written
    note = f"; {repeated:,} repeat earlier ones and take their labels" if repeated else ""
    print(f"{args.out}: {written:,} structures{note}")


if __name__ == "__main__":
    run(main)
