"""Check a label source on a few structures: whether it is installed, its energies and forces.

A source that is missing, crashes or hangs is a result, not an error.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from pretraining.labels.check.run import FAILED, NOT_INSTALLED, check_source, unavailable
from pretraining.runtime.cli import Output, Parser, run
from pretraining.runtime.errors import UserError
from pretraining.runtime.files import read_yaml
from pretraining.runtime.records import read_record, write_record
from pretraining.study.sources import PACKAGE_FOLDER, Source, interpreter_fault, load_source


def arguments() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--config", type=Path, required=True, help="YAML with sections 'sources', 'check_sources'"
    )
    parser.add_argument("--source", required=True, help="name of the source")
    parser.add_argument("--out", type=Output, required=True, help="JSON to write")
    parser.add_argument("--attempt", default="", help="text to keep in the result")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def supervised(source: Source, args: argparse.Namespace, limit: float) -> dict:
    """Run the check in a process of the source's interpreter, which it may crash or hang."""
    partial = args.out.with_name(f".{args.out.name}.inside")
    partial.unlink(missing_ok=True)
    python = source.python or sys.executable
    if shutil.which(python) and (lack := interpreter_fault(python)):
        return unavailable(source, FAILED, lack) | {"install": ""}
    command = [python, __file__, "--config", args.config, "--source", source.name]
    packages = [PACKAGE_FOLDER, *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        done = subprocess.run(
            [*map(str, command), "--inside", "--out", str(partial)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(packages)},
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=limit,
        )
    except OSError:
        return unavailable(source, NOT_INSTALLED, f"no interpreter '{python}' here")
    except subprocess.TimeoutExpired:
        return unavailable(source, FAILED, f"not finished after {limit:.0f} s")
    sys.stderr.write(done.stderr)
    if partial.exists():
        result = read_record(partial)
        partial.unlink()
        return result
    if done.returncode < 0:
        return unavailable(source, FAILED, f"ended by signal {-done.returncode}")
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    missing = last.startswith("error: ")
    reason = last.removeprefix(f"error: source '{source.name}': ")
    return unavailable(source, NOT_INSTALLED if missing else FAILED, reason)


def main() -> None:
    args = arguments()
    source = load_source(args.config, args.source)
    config = read_yaml(args.config, "sources")
    entry, settings = config["sources"][args.source], config.get("check_sources")
    if settings is None or not {"kind", "elements"} <= entry.keys():
        raise UserError(
            f"{args.config}: needs a section 'check_sources', and 'kind' and 'elements' of the "
            f"source '{args.source}'; `snakemake check_sources` writes such a file"
        )
    if not args.inside:
        # The structure that uses the time up may itself take that long.
        result = supervised(source, args, 60 + 2 * settings["time_limit"])
        result["attempt"] = args.attempt
        print(f"{source.name}: {result['status']}: {result['reason'] or 'evaluated'}")
    else:
        result = check_source(source, entry["kind"], entry["elements"], settings)
    write_record(args.out, result)


if __name__ == "__main__":
    run(main)
