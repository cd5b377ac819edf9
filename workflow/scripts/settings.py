"""Write one part of the configuration as a YAML file.

Jobs read these parts and not the configuration itself, so that an edit reruns only the jobs that
it concerns.
"""

import sys
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(snakemake.scriptdir).parent))

from pretraining.interruption import write_atomically
from pretraining.parts import settings_part

part = settings_part(snakemake.config, snakemake.wildcards.part)
text = yaml.safe_dump(part, sort_keys=False, allow_unicode=True)
write_atomically(Path(snakemake.output[0]), lambda tmp: tmp.write_text(text, encoding="utf-8"))
