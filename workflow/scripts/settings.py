"""Write one part of the configuration as a YAML file.

Jobs read these parts and not the configuration itself, so that an edit reruns only the jobs that
it concerns.
"""

from __future__ import annotations

import json
import sys

import yaml

from pretraining.runtime import cli
from pretraining.runtime.errors import UserError
from pretraining.runtime.files import write_text


def main() -> None:
    parser = cli.Parser(description=f"{__doc__} The part is read from stdin, as JSON.")
    parser.add_argument("--out", required=True, type=cli.Output, help="settings file (YAML)")
    args = parser.parse_args()

    try:
        part = json.load(sys.stdin)
    except ValueError as error:
        raise UserError(f"standard input is not JSON ({error})") from None
    write_text(args.out, yaml.safe_dump(part, sort_keys=False, allow_unicode=True))


if __name__ == "__main__":
    cli.run(main)
