"""Archive a study's tables, figures, records, configuration, versions and checksums."""

from __future__ import annotations

from pathlib import Path

from pretraining.operations.archive import write_archive
from pretraining.runtime import cli
from pretraining.study.config import load_config, validate_study

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--config", required=True, help="the study (YAML), - for standard input")
    parser.add_argument("--written", nargs="*", default=[], type=Path, help="its files as written")
    parser.add_argument("--models", action="store_true", help="with models and learning curves")
    parser.add_argument("--out", required=True, type=cli.Output, help="archive (ZIP)")
    args = parser.parse_args()

    config = load_config("/dev/stdin" if args.config == "-" else args.config)
    config = validate_study(config, args.config)
    number = write_archive(args.out, config, args.written, ROOT, args.models)
    print(f"{args.out}: {number:,} files, {args.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    cli.run(main)
