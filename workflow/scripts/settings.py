"""Write one part of the configuration as a YAML file."""

import json
from pathlib import Path

import yaml

part = json.loads(snakemake.params.text)
text = yaml.safe_dump(part, sort_keys=False, allow_unicode=True)
Path(snakemake.output[0]).write_text(text, encoding="utf-8")
