"""Join the labelled chunks of a prepared set into a labelled set."""

from __future__ import annotations

from pathlib import Path

from pretraining.data.sanity.units import unit_warnings
from pretraining.data.store import Store
from pretraining.labels.chunks import join
from pretraining.runtime.cli import Output, Parser, run, whole
from pretraining.study.queries import FITTED


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="prepared set (HDF5)")
    parser.add_argument("--source", required=True, help="name of the label source")
    parser.add_argument(
        "--chunks", type=Path, nargs="+", required=True, help="labelled: eval, 00000, 00001, …"
    )
    parser.add_argument(
        "--provenance", type=Path, nargs="+", default=[], help="JSON of how each was labelled"
    )
    parser.add_argument("--n", type=whole(), help="number of training structures (all)")
    parser.add_argument(
        "--fit", choices=FITTED, help="zero of the energies (that of the isolated atoms)"
    )
    parser.add_argument("--out", type=Output, required=True, help="labelled set to write (HDF5)")
    args = parser.parse_args()
    with Store(args.data) as store:
        result = join(store, args.source, args.chunks, args.out, args.n, args.fit, args.provenance)
    if len(result["made"]) > 1:
        for made in result["made"]:
            code, chunks = made["code"], ", ".join(made["chunks"])
            print(f"warning: {code['package']} {code['version']} labelled {chunks}")
        print("warning: chunks were labelled by different versions of the code or its libraries")
    with Store(args.out) as store:
        for warning in unit_warnings(store):
            print(f"warning: source '{args.source}': {warning}")
    for failure in result["failed"]:
        print(f"no label: structure {failure['index']}: {failure['reason']}")
    print(
        f"{args.out}: {result['val']:,} validation, {result['test']:,} test, "
        f"{result['train']:,} training structures; {len(result['failed'])} without a label"
    )


if __name__ == "__main__":
    run(main)
