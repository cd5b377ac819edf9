"""Predict energies and forces of structures with a trained model; writes extended XYZ.

Energies are absolute, as the labels were before an energy reference was subtracted.
"""

from __future__ import annotations

from pathlib import Path

from pretraining.runtime import cli


def main() -> None:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--model", required=True, type=Path, help="model.ckpt of a run, or a .pth")
    parser.add_argument("--trust", action=cli.Trust)
    parser.add_argument("--structures", required=True, type=Path, help="any file that ASE reads")
    parser.add_argument("--out", required=True, type=cli.Output, help="extended XYZ to write")
    parser.add_argument(
        "--avg-num-neighbors",
        type=cli.number(),
        help="of the training set of published weights (.pth)",
    )
    parser.add_argument("--elements", nargs="+", default=["C"], help="atom types of a .pth")
    parser.add_argument("--elements-as", nargs="*", default=[], metavar="Si:C")
    parser.add_argument(
        "--relative",
        action="store_true",
        help="energies relative to the energy reference of the labels, as in training",
    )
    parser.add_argument("--batch-size", type=cli.whole(), default=20)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    arguments = parser.parse_args()

    from pretraining.training.device import resolve_device
    from pretraining.training.network.checkpoint import load_model, zero_in
    from pretraining.training.predict import parse_elements_as, predict_file

    device = resolve_device(arguments.device)
    model = load_model(
        arguments.model,
        avg_num_neighbors=arguments.avg_num_neighbors,
        type_names=arguments.elements,
        device=device,
        trust=arguments.trust,
    )
    count = predict_file(
        model,
        arguments.structures,
        arguments.out,
        batch_size=arguments.batch_size,
        device=device,
        elements_as=parse_elements_as(arguments.elements_as),
        zero=None if arguments.relative else zero_in(arguments.model),
    )
    print(f"{arguments.out}: {count} structures")


if __name__ == "__main__":
    cli.run(main)
