"""Turn published weights of NequIP 0.5.6 into a run's folder, to stand in for a pre-training."""

from __future__ import annotations

from pathlib import Path

from pretraining.runtime import cli


def main() -> None:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--weights", required=True, type=Path, help="state dict (.pth)")
    parser.add_argument("--sha256", help="checksum that the file must have")
    parser.add_argument(
        "--avg-num-neighbors",
        required=True,
        type=cli.number(),
        help="of the set that the weights were trained on (C-SYNTH-23M at 4 Å: about 31)",
    )
    parser.add_argument("--settings", required=True, type=Path, help="YAML: network, training, …")
    parser.add_argument("--transform", default="none", help="of the structures trained on")
    parser.add_argument("--elements", nargs="+", default=["C"], help="before the transform")
    parser.add_argument("--out", required=True, type=cli.Folder, help="folder of the run")
    arguments = parser.parse_args()
    cli.refuse_overwriting([("--out", arguments.out)], [("--weights", arguments.weights)])

    from pretraining.data.transforms import Transform
    from pretraining.study.settings import load_settings
    from pretraining.training.network.checkpoint import import_weights

    settings = load_settings(arguments.settings, "pretrain")
    import_weights(
        arguments.weights,
        arguments.out,
        avg_num_neighbors=arguments.avg_num_neighbors,
        settings=settings,
        transform=Transform.from_settings(arguments.transform, settings.transforms),
        elements=arguments.elements,
        sha256=arguments.sha256,
    )
    print(f"{arguments.out / 'model.ckpt'}: weights of {arguments.weights}")


if __name__ == "__main__":
    cli.run(main)
