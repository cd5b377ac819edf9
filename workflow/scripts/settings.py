"""Write one part of the configuration as a YAML file.

Jobs read these parts and not the configuration itself, so that an edit reruns only the jobs that
it concerns.
"""

from __future__ import annotations

import json
import sys

from pretraining.runtime import cli
from pretraining.runtime.files import write_text
from pretraining.study.views import view_text


def main() -> None:
    parser = cli.Parser(description=f"{__doc__} The part is read from stdin, as JSON.")
    parser.add_argument("--out", required=True, type=cli.Output, help="settings file (YAML)")
    args = parser.parse_args()

    write_text(args.out, view_text(json.load(sys.stdin)))


if __name__ == "__main__":
    cli.run(main)
