"""Accept results that were copied here, as far as they fit the configuration.

Each result is compared with the configuration by its own record. What has other settings, data or
models is named, and the next Snakemake makes it again with all that follows from it.
"""

from __future__ import annotations
