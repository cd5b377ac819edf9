"""Label structures with a label source: energies relative to isolated atoms, and forces."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from pretraining.data.energy_references import read_reference
from pretraining.labels.evaluate import isolated_energies, provenance
from pretraining.labels.label import check_structures, label, read_structures
from pretraining.runtime.cli import Output, Parser, log, refuse_overwriting, run, whole
from pretraining.runtime.errors import UserError
from pretraining.runtime.files import mapping, write_json
from pretraining.runtime.lease import Lease, running
from pretraining.runtime.records import write_record
from pretraining.runtime.stop import Interrupted, StopRequest
from pretraining.study.sources import Source, check_interpreter, load_source, named_files


def arguments() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="YAML with a section 'sources'")
    parser.add_argument("--source", required=True, help="name of the source")
    parser.add_argument("--structures", type=Path, help="any file that ASE reads")
    parser.add_argument("--index", default=":", help="START:STOP, which structures of the file")
    parser.add_argument("--allow-empty", action="store_true", help="an empty file is no fault")
    parser.add_argument("--out", type=Output, help="extended XYZ to write")
    parser.add_argument(
        "--runtime",
        type=mapping,
        default={},
        help="YAML, such as '{time_limit: 60}': runtime options that replace the source's",
    )
    parser.add_argument("--processes", type=whole(), default=1, help="structures at once (1)")
    parser.add_argument("--reference", type=Path, help="JSON of isolated-atom energies to use")
    parser.add_argument("--write-reference", type=Output, help="compute that JSON, nothing else")
    parser.add_argument("--elements", nargs="+", help="elements for --write-reference")
    parser.add_argument("--provenance", type=Output, help="JSON to write: how the labels were made")
    args = parser.parse_args()
    if args.out and args.structures:
        # Finished structures are kept beside the output.
        written = [("journal of --out", Path(f"{args.out}.part"))]
        refuse_overwriting(written, [("--structures", args.structures)])
    if args.write_reference:
        if not args.elements:
            parser.error("--write-reference needs --elements")
    elif not (args.structures and args.out):
        parser.error("--structures and --out are needed")
    if not re.fullmatch(r"\d*:\d*", args.index):
        parser.error(f"--index {args.index}: give START:STOP, counted from 0")
    return args


def make_labels(args: argparse.Namespace, source: Source) -> None:
    if args.write_reference:
        unknown = sorted(set(args.elements) - set(source.elements or args.elements))
        if unknown:
            known = ", ".join(source.elements)
            raise UserError(f"--elements: source '{source.name}' knows {known}, not {unknown[0]}")
        energies = isolated_energies(source, args.elements)
        write_json(args.write_reference, energies)
        if args.provenance:
            write_record(args.provenance, provenance(source, energies, []), args.write_reference)
        return
    start = args.index.split(":")[0]
    frames = read_structures(args.structures, args.index, args.allow_empty)
    first = int(start or 0)
    try:
        check_structures(source, frames, first)
    except UserError as error:
        raise UserError(f"{args.structures}: {error}") from error
    elements = {symbol for atoms in frames for symbol in atoms.get_chemical_symbols()}
    if args.reference:
        reference = read_reference(args.reference)
    else:
        reference = isolated_energies(source, elements)
    made = (args.provenance, args.structures)
    failed = label(source, frames, reference, args.out, first, args.processes, *made)
    if failed:
        listed = ", ".join(map(str, failed))
        log(f"no label for {len(failed)} of {len(frames)} structures: {listed}")


def main() -> int:
    args = arguments()
    source = load_source(args.config, args.source, args.runtime)
    check_interpreter(source)
    outputs = {"--out": args.out, "--write-reference": args.write_reference}
    outputs |= {"--provenance": args.provenance}
    refuse_overwriting(
        [(name, path) for name, path in outputs.items() if path],
        [(f"sources.{source.name}", Path(path)) for path in named_files(source)],
    )
    with StopRequest() as stop:
        try:
            with Lease(running(args.out or args.write_reference), source.name):
                make_labels(args, source)
        except Interrupted as interruption:
            return stop.leave(interruption)
    return 0


if __name__ == "__main__":
    run(main)
