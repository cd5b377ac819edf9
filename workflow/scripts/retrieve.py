"""Get the files of datasets and label sources: download them, or check what lies in place."""

from __future__ import annotations

from pathlib import Path

from pretraining.data.remote import overview
from pretraining.data.retrieve import identity_of, remote_files, retrieve, study_items
from pretraining.runtime.cli import Output, Parser, run
from pretraining.runtime.errors import UserError
from pretraining.runtime.files import mapping, read_yaml
from pretraining.runtime.records import write_record
from pretraining.study.config import validate_study

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="a study, or a part of one")
    parser.add_argument(
        "--addresses",
        type=mapping,
        default={},
        help="JSON: where the parameter files of label sources are, by path",
    )
    parser.add_argument("--list", action="store_true", help="only say what there is to get")
    parser.add_argument("--out", type=Output, help="JSON to write: files, checksums and sizes")
    args = parser.parse_args()
    config = read_yaml(args.config)
    if "experiments" in config:
        config = validate_study(config, str(args.config))
    for source in config.get("sources", {}).values():
        for file in source.get("files", []):
            file.update(args.addresses.get(file["path"], {}))
    items = study_items(config)
    files = {item: remote_files(config, item) for item in items}
    print(overview(files, ROOT), flush=True)
    if args.list:
        return
    faults, result = [], []
    for item in items:
        try:
            result += retrieve(item, files[item], ROOT)
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise UserError(" | ".join(faults))
    if args.out:
        wanted = sorted({identity_of(file) for item in items for file in files[item]})
        write_record(args.out, {"files": result, "wanted": wanted})


if __name__ == "__main__":
    run(main)
