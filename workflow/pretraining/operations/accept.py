"""Accept results that were copied here, as far as they fit the configuration.

Copying changes file times and leaves Snakemake's notes behind. So each product is compared with the
configuration by its own record, which says what it was made with (:mod:`.fit`). What does not fit
becomes the oldest file of all, and unknown to Snakemake, which then makes it again with all that
follows from it. ``snakemake --touch`` records the rest.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pretraining.operations.fit import Refusal
from pretraining.runtime.errors import UserError

# Results of which the archive has all.
DERIVED = ("grid.tsv", "tables/*", "figures/**/*", "comparisons/*", "checks/sources.*")
# Made again in any case: minutes of work.
AGAIN = (
    *DERIVED,
    "checks/sources/*",
    "embeddings/**/*",
    "predictions/**/*",
    "data/*/trajectories.*",
)
OLDEST = 86400.0  # s since the epoch


def accept(
    config: dict[str, Any], config_file: Path, refusals: Iterable[Refusal], targets: list[str]
) -> str:
    """Record with Snakemake all results but those refused and what follows from them.

    Without `targets`, Snakemake's default target decides. Returns what Snakemake would run now;
    raises a UserError if Snakemake fails.
    """
    results, options = Path(config["results"]), ["--cores=all", "--configfile", str(config_file)]
    # By these files Snakemake notices later edits of the configuration.
    _snakemake(*options, "--forcerun=settings", "--until=settings", "--", *targets)
    refused = [str(file) for refusal in refusals for file in refusal.files]
    for file in refused:
        os.utime(file, (OLDEST, OLDEST))
    if refused:
        # Fails for files that Snakemake does not know.
        _snakemake(*options, "--cleanup-metadata", *refused, check=False)
    again = [str(f) for pattern in AGAIN for f in results.glob(pattern) if f.is_file()]
    omitted = ["--omit-from", *refused, *again] if refused or again else []
    _snakemake(*options, "--touch", "--forceall", *omitted, "--", *targets)
    return _snakemake(*options, "--dry-run", "--quiet=rules", "--", *targets)


def _snakemake(*arguments: str, check: bool = True) -> str:
    command = [sys.executable, "-m", "snakemake", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if check and done.returncode:
        raise UserError(f"snakemake: {done.stdout.strip().splitlines()[-1]}")
    return done.stdout
