"""Write the finished runs of a study as one table, to be shipped with its configuration.

`--config metrics_from=shipped` then draws all tables and figures from it, without training.
"""

from __future__ import annotations

from pathlib import Path

from pretraining.data.glance import read_study
from pretraining.results.runs_table import finished_runs
from pretraining.runtime import cli
from pretraining.runtime.errors import UserError
from pretraining.runtime.tables import write_csv


def main() -> None:
    parser = cli.Parser(description=__doc__)
    parser.add_study()
    parser.add_argument("--out", type=cli.Output, help="table, CSV; default, the key 'shipped'")
    args = parser.parse_args()

    config = read_study(args.config, args.results)
    out = args.out or config.get("shipped")
    if out is None:
        name = " + ".join(map(str, args.config))
        raise UserError(f"{name}: no key 'shipped', the table to write: add it or give --out")
    cli.refuse_unwritable("--out", Path(out))
    runs = finished_runs(config)
    write_csv(out, runs)
    print(f"{out}: {len(runs)} results of {config['results']}")


if __name__ == "__main__":
    cli.run(main)
