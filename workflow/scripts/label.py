"""Label structures with a label source: energies relative to isolated atoms, and forces."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pretraining.cli import run
from pretraining.handover import hand_over
from pretraining.labelling import label, read_reference, read_structures
from pretraining.labels import isolated_energies
from pretraining.sources import load_source, provenance


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="YAML with a section 'sources'")
    parser.add_argument("--source", required=True, help="name of the source")
    parser.add_argument("--structures", type=Path, help="any file that ASE reads")
    parser.add_argument("--index", default=":", help="START:STOP, which structures of the file")
    parser.add_argument("--out", type=Path, help="extended XYZ to write")
    parser.add_argument("--reference", type=Path, help="JSON of isolated-atom energies to use")
    parser.add_argument("--write-reference", type=Path, help="compute that JSON, nothing else")
    parser.add_argument("--elements", nargs="+", help="elements for --write-reference")
    parser.add_argument("--provenance", type=Path, help="JSON to write: how the labels were made")
    args = parser.parse_args()
    if args.write_reference:
        if not args.elements:
            parser.error("--write-reference needs --elements")
    elif not (args.structures and args.out):
        parser.error("--structures and --out are needed")
    if not re.fullmatch(r"\d*:\d*", args.index):
        parser.error(f"--index {args.index}: give START:STOP, counted from 0")
    return args


def write_json(path: Path, content: dict) -> None:
    """Write JSON so that the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(f"{path}.tmp")
    partial.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    os.replace(partial, path)


def main() -> None:
    args = arguments()
    source = load_source(args.config, args.source)
    hand_over(source)
    if args.write_reference:
        write_json(args.write_reference, isolated_energies(source, args.elements))
        return
    start = args.index.split(":")[0]
    frames = read_structures(args.structures, args.index)
    elements = {symbol for atoms in frames for symbol in atoms.get_chemical_symbols()}
    if args.reference:
        reference = read_reference(args.reference)
    else:
        reference = isolated_energies(source, elements)
    failed = label(source, frames, reference, args.out, first=int(start or 0))
    if failed:
        listed = ", ".join(map(str, failed))
        print(f"no label for {len(failed)} of {len(frames)} structures: {listed}", file=sys.stderr)
    if args.provenance:
        write_json(args.provenance, provenance(source, reference))


if __name__ == "__main__":
    run(main)
