"""Train one network: pre-training, direct training or fine-tuning."""

from __future__ import annotations

# ruff: noqa: E402
import time

STARTED = time.monotonic()

from pathlib import Path

from pretraining.runtime import cli
from pretraining.runtime.files import mapping
from pretraining.study.settings import KINDS


def main() -> int:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--kind", required=True, choices=KINDS)
    parser.add_argument("--data", required=True, type=Path, help="labelled store (HDF5)")
    parser.add_argument(
        "--n", required=True, type=cli.whole(), help="train on the first N of the pool"
    )
    parser.add_argument(
        "--seed",
        required=True,
        type=cli.whole(0, cli.LARGEST_SEED),
        help="of weights and order of batches",
    )
    parser.add_argument("--settings", required=True, type=Path, help="YAML: network, training, …")
    parser.add_argument("--transform", default="none", help="name of a transform of the settings")
    parser.add_argument("--initial", type=Path, help="model.ckpt that a fine-tuning starts from")
    parser.add_argument("--trust", action=cli.Trust)
    parser.add_argument(
        "--machine",
        dest="runtime",
        type=mapping,
        default={},
        help="YAML, such as '{device: cpu}': runtime options, in place of the settings",
    )
    parser.add_argument("--out", required=True, type=cli.Folder, help="folder of the run")
    arguments = parser.parse_args()
    read = [("--data", arguments.data), ("--initial", arguments.initial or arguments.data)]
    cli.refuse_overwriting([("--out", arguments.out)], read)

    from pretraining.training.run import Request, train

    return train(Request(**vars(arguments)), started=STARTED)


if __name__ == "__main__":
    cli.run(main)
