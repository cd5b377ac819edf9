"""Compute a model's errors on a part of a labelled set, without training it."""

from __future__ import annotations

from pathlib import Path

from pretraining.runtime import cli
from pretraining.runtime.files import mapping
from pretraining.study.settings import check_runtime


def main() -> None:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--model", required=True, type=Path, help="model.ckpt of a run")
    parser.add_argument("--trust", action=cli.Trust)
    parser.add_argument("--data", required=True, type=Path, help="labelled store (HDF5)")
    parser.add_argument("--part", choices=("train", "val", "test"), default="test")
    parser.add_argument("--out", type=cli.Output, help="metrics, JSON")
    parser.add_argument("--predictions", type=cli.Output, help="predictions beside labels, NPZ")
    parser.add_argument(
        "--elements-as",
        nargs="*",
        default=[],
        metavar="Si:C",
        help="take an element for another, which the model knows",
    )
    parser.add_argument("--batch-size", type=cli.whole(), default=20)
    parser.add_argument(
        "--machine",
        type=mapping,
        default={"device": "auto"},
        help="YAML, such as '{device: cpu}': where to run it",
    )
    arguments = parser.parse_args()
    check_runtime(arguments.machine, ("device", "allow_cpu"))

    from pretraining.data.store import Store
    from pretraining.runtime.errors import UserError
    from pretraining.runtime.files import file_sha256, write_atomically
    from pretraining.runtime.records import write_record
    from pretraining.training.device import resolve_device
    from pretraining.training.network.checkpoint import load_model
    from pretraining.training.predict import parse_elements_as, predict_part
    from pretraining.training.predictions import describe

    outputs = [path for path in (arguments.out, arguments.predictions) if path]
    if not outputs:
        raise UserError("nothing to write: give --out, --predictions or both")
    device = resolve_device(**arguments.machine)
    model = load_model(arguments.model, device=device, trust=arguments.trust)
    with Store(arguments.data) as store:
        predictions = predict_part(
            model,
            store,
            arguments.part,
            batch_size=arguments.batch_size,
            device=device,
            elements_as=parse_elements_as(arguments.elements_as),
        )
        about = {"model_sha256": file_sha256(arguments.model), "data_checksum": store.checksum}
    metrics = predictions.errors(arguments.part)
    if arguments.predictions:
        write_atomically(arguments.predictions, predictions.save)
    if arguments.out:
        write_record(arguments.out, metrics | about | {"device": device.type})
    print(f"{outputs[0]}: {arguments.part} {describe(metrics[arguments.part])}")


if __name__ == "__main__":
    cli.run(main)
