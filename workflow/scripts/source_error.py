"""Compare a label source with the target's own labels on the target's test set."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from pretraining.data.store import Store
from pretraining.labels.compare import source_error
from pretraining.runtime.cli import Output, Parser, run
from pretraining.runtime.files import write_json


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
    write_json(args.out, metrics)
    test = metrics["test"]
    print(
        f"{args.source}: {test['energy_rmse_mev_per_atom']:.1f} meV/atom "
        f"({test['energy_rmse_after_median_shift_mev_per_atom']:.1f} after a median shift of "
        f"{test['median_shift_ev_per_atom']:.3f} eV/atom), "
        f"{test['force_rmse_ev_per_angstrom']:.3f} eV/Å on {test['n_structures']} structures"
    )


if __name__ == "__main__":
    run(main)
