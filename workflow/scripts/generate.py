"""Generate one trajectory of a dataset: melt, quench and anneal of a random cell."""

from __future__ import annotations

from pathlib import Path

from pretraining.data.energy_references import read_reference
from pretraining.dynamics.generate import Request, generate
from pretraining.dynamics.trajectory import CHECKPOINT_SECONDS
from pretraining.runtime.cli import Output, Parser, number, run, whole
from pretraining.runtime.files import mapping, read_section
from pretraining.runtime.lease import Lease, running
from pretraining.runtime.stop import Interrupted, StopRequest
from pretraining.study.generation import Trajectory
from pretraining.study.sources import check_interpreter, load_source


def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--config", type=Path, required=True, help="YAML: the protocol under 'generate', 'sources'"
    )
    parser.add_argument(
        "--runtime",
        type=mapping,
        default={},
        help="YAML, such as '{neutral_kwargs: {}}': runtime options that replace the source's",
    )
    parser.add_argument("--density", type=number(), required=True, help="g/cm³")
    parser.add_argument("--anneal", type=number(), help="anneal temperature, K")
    parser.add_argument("--replica", type=whole(), default=1)
    parser.add_argument(
        "--reference", type=Path, required=True, help="isolated-atom energies, JSON"
    )
    parser.add_argument(
        "--out", type=Output, required=True, help="trajectory to write, extended XYZ"
    )
    parser.add_argument("--log", type=Output, required=True, help="its thermodynamics, CSV")
    parser.add_argument("--checkpoint-seconds", type=number(equal=True), default=CHECKPOINT_SECONDS)
    args = parser.parse_args()
    protocol = read_section(args.config, "generate")
    source = load_source(args.config, protocol["source"], args.runtime)
    check_interpreter(source)
    request = Request(
        source=source,
        reference=read_reference(args.reference),
        protocol=protocol,
        trajectory=Trajectory(args.density, args.anneal, args.replica),
        frames=args.out,
        log=args.log,
    )
    with StopRequest() as stop:
        try:
            with Lease(running(args.out), request.trajectory.name):
                generate(request, stop, args.checkpoint_seconds)
        except Interrupted as interruption:
            return stop.leave(f"{request.trajectory.name}: {interruption}")
    return 0


if __name__ == "__main__":
    run(main)
