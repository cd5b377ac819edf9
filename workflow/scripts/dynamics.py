"""Run trajectories of an MD stability test, each until its end or the model's failure."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from pretraining.runtime import cli
from pretraining.runtime.files import mapping, read_section
from pretraining.runtime.lease import Lease
from pretraining.runtime.stop import Interrupted, StopRequest
from pretraining.study.settings import check_runtime


def main() -> int:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="model.ckpt of a run")
    parser.add_argument("--trust", action=cli.Trust)
    parser.add_argument("--start", type=Path, required=True, help="start structure")
    parser.add_argument("--settings", type=Path, required=True, help="YAML with 'dynamics'")
    parser.add_argument(
        "--replicas",
        type=cli.whole(),
        nargs="+",
        default=[1],
        help="numbers from 1; each has its own initial velocities",
    )
    parser.add_argument(
        "--machine",
        type=mapping,
        default={},
        help="YAML, such as '{device: cpu}': where to run it",
    )
    parser.add_argument("--out", required=True, type=cli.Folder, help="folder of replica~1, …")
    parser.add_argument("--checkpoint-seconds", type=cli.number(equal=True), default=60.0)
    arguments = parser.parse_args()
    folders = [("--out", arguments.out / f"replica~{number}") for number in arguments.replicas]
    cli.refuse_overwriting(folders, [("--model", arguments.model), ("--start", arguments.start)])
    check_runtime(arguments.machine, ("device", "allow_cpu", "compile"))
    protocol = read_section(arguments.settings, "dynamics")

    with StopRequest() as stop:
        try:
            from pretraining.dynamics.stability.run import Request, run

            request = Request(
                model=arguments.model,
                start=arguments.start,
                protocol=protocol,
                replicas=arguments.replicas,
                out=arguments.out,
                trust=arguments.trust,
                **arguments.machine,
            )
            with ExitStack() as leases:
                for replica in sorted(request.replicas):
                    path = request.folder(replica) / "running.json"
                    leases.enter_context(Lease(path, request.name(replica)))
                run(request, stop, arguments.checkpoint_seconds)
        except Interrupted as interruption:
            return stop.leave(f"{arguments.out}: {interruption}")
    return 0


if __name__ == "__main__":
    cli.run(main)
