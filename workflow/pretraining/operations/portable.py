"""Which settings that results were made with differ from those of the configuration.

Where files lie is no difference: what they hold is looked at instead.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from pretraining.operations.acceptance import Refusal
from pretraining.study.settings import RUNTIME_OPTIONS
from pretraining.study.sources import Source, parameter_files
from pretraining.study.views import ADDRESS_KEYS, SOURCE_OPTIONS, config_view

# Training runs tell by themselves.
TOLD_OTHERWISE = ("pretrain", "direct", "finetune")


def changed_settings(
    config: dict[str, Any],
) -> Iterator[tuple[Path, dict[str, Any], list[Refusal]]]:
    """Yield the settings files that are to be written anew, and what must be made anew with them.

    Yields
    ------
    tuple
        File, what it should hold, and the results that were made with the old ones; none where
        only places of files differ, or where each result is looked at by itself.
    """
    results = Path(config["results"])
    for file in sorted((results / "settings").glob("*.yaml")):
        part = file.stem
        try:
            wanted = json.loads(json.dumps(config_view(config, part)))
        except (KeyError, ValueError):
            continue  # of a dataset or source that this study has not
        stored = yaml.safe_load(file.read_text(encoding="utf-8"))
        why = _content(config, part)
        if stored == wanted and why is None:
            continue
        if why is None and _portable(stored) != _portable(wanted):
            why = f"settings/{file.name} is not what the configuration says"
        refused = []
        if why is not None and part.split("~")[0] not in TOLD_OTHERWISE:
            files = [path for path in _made_with(results, part) if path.is_file()]
            refused = [Refusal(files, _what(part), why)] if files else []
        yield file, wanted, refused
    file = results / "settings/configuration.yaml"
    if not file.is_file():
        files = [path for path in _made_with(results, file.stem) if path.is_file()]
        why = "there is no settings/configuration.yaml to say with which options they were made"
        wanted = json.loads(json.dumps(config))
        yield file, wanted, [Refusal(files, _what(file.stem), why)] if files else []


def _portable(value: Any, key: str = "") -> Any:
    """Return settings without where files lie and how runs are carried out."""
    if isinstance(value, dict):
        apart = ("results", *RUNTIME_OPTIONS, *SOURCE_OPTIONS, *ADDRESS_KEYS)
        return {k: _portable(v, k) for k, v in value.items() if k not in apart}
    if isinstance(value, list):
        return [_portable(item, key) for item in value]
    return (
        " ".join(w.rsplit("/", 1)[-1] for w in value.split()) if isinstance(value, str) else value
    )


def _content(config: dict[str, Any], part: str) -> str | None:
    """Say which file of a dataset or source holds something else here than it did there."""
    section, _, name = part.partition("~")
    results = Path(config["results"])
    if section == "dataset" and name in config["datasets"]:
        return _dataset_content(config["datasets"][name], results / "data" / name / "summary.json")
    if section == "source" and "calculator" in config["sources"].get(name, {}):
        entry = config["sources"][name]
        here = parameter_files(Source.from_entry(name, entry))
        for file in sorted((results / "labels").glob(f"*/{name}/chunks/*.provenance.json")):
            record = json.loads(file.read_text(encoding="utf-8")).get("parameter_files_sha256", {})
            for path in here.keys() & record.keys():
                if here[path] != record[path]:
                    return f"{path} was another file there"
    return None


def _dataset_content(dataset: dict[str, Any], summary: Path) -> str | None:
    if not summary.is_file() or "path" not in dataset:
        return None
    origin = json.loads(summary.read_text(encoding="utf-8"))["origin"]
    record = {Path(file["path"]).name: file["sha256"] for file in origin.get("files", [])}
    paths = dataset["path"] if isinstance(dataset["path"], list) else [dataset["path"]]
    for path in map(Path, paths):
        if path.is_file() and path.name in record:
            with open(path, "rb") as handle:
                if hashlib.file_digest(handle, "sha256").hexdigest() != record[path.name]:
                    return f"{path} was another file there"
    return None


def _what(part: str) -> str:
    return part.replace("~", " ", 1) if "~" in part else "tables and figures"


def _made_with(results: Path, part: str) -> Iterator[Path]:
    """Yield the results of the jobs that read a settings file; Snakemake knows what follows."""
    section, _, name = part.partition("~")
    patterns = {
        "dataset": [f"data/{name}/prepared.h5", f"data/{name}/summary.*"],
        "generate": [f"data/{name}/trajectories/*"],
        "source": [f"labels/references/{name}.json", f"labels/*/{name}/chunks/*"],
        "files": [f"retrieved/source~{name}.json"],
        "weights": [f"retrieved/weights~{name}.json"],
        "check": [f"checks/sources/{name}.json"],
        "descriptors": [f"embeddings/{name.replace('~', '/', 1)}.h5"],
        "embedding": [f"embeddings/{name}/map.csv"],
        "umap": [f"figures/umap-{name}.*"],
        "dynamics": [f"dynamics/{name}/*/**/*"],
        "start": [f"dynamics/{name}/start.extxyz"],
        "study": ["grid.tsv", "tables/*.grid.tsv"],
    }.get(section, ["tables/*", "figures/**/*", "comparisons/*", "embeddings/*.md"])
    for pattern in patterns:
        yield from results.glob(pattern)
