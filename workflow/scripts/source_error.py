"""Compare a label source with the target's own labels on the target's test set."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from pretraining.data.store import Store
from pretraining.labels.chunks import read_provenance
from pretraining.labels.compare import source_error
from pretraining.runtime.cli import Output, Parser, run
from pretraining.runtime.records import record_of, write_record


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="prepared target (HDF5)")
    parser.add_argument("--labels", type=Path, help="the target as a source has labelled it")
    parser.add_argument("--source", required=True, help="name of the label source")
    parser.add_argument("--chunk", type=Path, required=True, help="its labelled eval chunk")
    parser.add_argument("--out", type=Output, required=True, help="metrics to write (JSON)")
    args = parser.parse_args()
    with ExitStack() as stack:
        store = stack.enter_context(Store(args.data))
        labelled = stack.enter_context(Store(args.labels)) if args.labels else None
        metrics = source_error(store, args.source, args.chunk, labelled)
        about = {"data_checksum": (labelled or store).checksum}
    if record_of(args.chunk).is_file():
        about["labels"] = read_provenance([record_of(args.chunk)])
    write_record(args.out, metrics | about)
    for warning in metrics["warnings"]:
        print(f"warning: source '{args.source}': {warning}")
    test = metrics["test"]
    print(
        f"{args.source}: {test['energy_rmse_mev_per_atom']:.1f} meV/atom "
        f"({test['energy_rmse_after_median_shift_mev_per_atom']:.1f} after a median shift of "
        f"{test['median_shift_ev_per_atom']:.3f} eV/atom), "
        f"{test['force_rmse_ev_per_angstrom']:.3f} eV/Å on {test['n_structures']} structures"
    )


if __name__ == "__main__":
    run(main)
