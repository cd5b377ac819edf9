"""Write the start structure of an MD stability test."""

from __future__ import annotations

from pathlib import Path

from ase.io import write

from pretraining.dynamics.stability.start import start_structure
from pretraining.runtime.cli import Output, Parser, refuse_overwriting, run
from pretraining.runtime.files import read_section, write_atomically
from pretraining.runtime.records import record_of, write_record


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--settings", type=Path, required=True, help="YAML with 'start'")
    parser.add_argument("--data", type=Path, help="prepared set (HDF5), unless 'start' has a file")
    parser.add_argument("--out", type=Output, required=True, help="extended XYZ to write")
    args = parser.parse_args()
    start = read_section(args.settings, "start")
    if "file" in start:
        refuse_overwriting([("--out", args.out)], [("start.file", Path(start["file"]))])
    atoms, made = start_structure(start, args.data)
    write_atomically(args.out, lambda path: write(path, atoms, format="extxyz"))
    write_record(record_of(args.out), made, args.out)
    told = ", ".join(f"{key} {value}" for key, value in atoms.info.items())
    print(f"{args.out}: {len(atoms)} atoms ({told})")


if __name__ == "__main__":
    run(main)
