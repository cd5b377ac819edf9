"""Accept results that were copied here, as far as they fit the configuration.

Copying changes file times and leaves Snakemake's records behind. So each result is compared with
the configuration by its own record: training runs by the digest of settings, training set and
initial model, tests and dynamics by the SHA-256 of their model, all else by the copy of its
settings in ``settings/``. ``snakemake --touch`` then records what fits.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from pretraining.data.store import Store
from pretraining.data.transforms import Transform
from pretraining.runtime.errors import UserError
from pretraining.runtime.files import digest, file_sha256
from pretraining.study.queries import label_source
from pretraining.study.settings import KINDS, RUNTIME_OPTIONS, run_identity, settings_of
from pretraining.study.sources import SOURCE_OPTIONS, Source, parameter_files
from pretraining.study.views import ADDRESS_KEYS, config_view

# Made again in any case: minutes of work.
DERIVED = ("grid.tsv", "tables/*", "figures/**/*", "comparisons/*", "checks/sources.*")
# Settings files that decide nothing else, and those of training runs, which have their digests.
NOT_COMPARED = ("study", "styles", "umap", *KINDS)
REFUSED = ".refused"  # ends the name of a settings file that results were made with

_sha256 = functools.cache(file_sha256)


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Results that do not fit the configuration: Snakemake makes them again."""

    what: str
    why: str
    files: list[Path]


def examine(config: dict[str, Any], grid: pd.DataFrame) -> list[Refusal]:
    """Compare the results of a study with its validated configuration and its grid.

    Raises
    ------
    UserError
        If the results have no settings, or a training set cannot be read.
    """
    results = Path(config["results"])
    if not (results / "settings").is_dir():
        raise UserError(
            f"{results}: no settings/ there, which hold how the results were made: copy the whole "
            "folder of results"
        )
    return [*_runs(config, grid), *_tests_and_dynamics(config), *_settings(config)]


def accept(
    config: dict[str, Any], config_file: Path, refusals: list[Refusal], targets: list[str]
) -> str:
    """Record with Snakemake all results but those refused and what follows from them.

    Without `targets`, Snakemake's default target decides. Returns what Snakemake would run now;
    raises a UserError if Snakemake fails.
    """
    results, options = Path(config["results"]), ["--cores=1", "--configfile", str(config_file)]
    refused = [str(file) for refusal in refusals for file in refusal.files]
    renewed = []
    for file, stored, wanted in _settings_files(config):
        if stored != wanted or str(file) in refused:
            renewed.append(str(file))
        if stored != wanted and str(file) in refused and not _refused(file).exists():
            # The next call compares with these settings again.
            file.rename(_refused(file))
    if renewed:
        _snakemake(*options, "--force", "--", *renewed)
    derived = [str(file) for pattern in DERIVED for file in results.glob(pattern)]
    omitted = ["--omit-from", *refused, *derived] if refused or derived else []
    _snakemake(*options, "--touch", "--forceall", *omitted, "--", *targets)
    if stale := [file for file in refused if file not in renewed]:
        _snakemake(*options, "--cleanup-metadata", *stale, check=False)
    return _snakemake(*options, "--dry-run", "--quiet=rules", "--", *targets)


def _snakemake(*arguments: str, check: bool = True) -> str:
    command = [sys.executable, "-m", "snakemake", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if check and done.returncode:
        raise UserError(f"snakemake: {done.stdout.strip().splitlines()[-1]}")
    return done.stdout


def _runs(config: dict[str, Any], grid: pd.DataFrame) -> Iterator[Refusal]:
    for row in grid.itertuples():
        folder = Path(config["results"], row.path)
        files = [folder / name for name in ("metrics.json", "model.ckpt", "curve.csv")]
        if not files[0].is_file():
            continue
        fault = _weights_fault if row.imported else _training_fault
        why = _model_fault(files[1]) or fault(config, row, _read(files[0]))
        if why:
            yield Refusal(row.path, why, [file for file in files if file.is_file()])


def _training_fault(config: dict[str, Any], row: Any, metrics: dict[str, Any]) -> str | None:
    results, pretraining = Path(config["results"]), row.kind == "pretrain"
    data = _training_set(config, row)
    if not data.is_file():
        return f"its training set {data} is missing: copy that as well"
    checksum = _store_checksum(data)
    if metrics.get("data_checksum") != checksum:
        return f"it was trained on other data than {data}"
    initial = results / row.parent / "model.ckpt" if row.parent else None
    if initial and not initial.is_file():
        return f"its initial model {initial} is missing: copy that as well"
    # Only the structures of a pre-training are transformed.
    name = row.transform if pretraining else "none"
    view = f"pretrain~{name}" if pretraining else row.kind
    settings = settings_of(config_view(config, view), row.kind)
    identity = run_identity(
        (row.kind, row.npre if pretraining else row.n, row.seed),
        settings,
        dataclasses.asdict(Transform.from_settings(name, settings.transforms)),
        checksum,
        initial and _sha256(initial),
    )
    if metrics.get("config_hash") != digest(identity):
        cause = "settings or from another model" if initial else "settings"
        return f"it was trained with other {cause}"
    return None


def _training_set(config: dict[str, Any], row: Any) -> Path:
    labels = Path(config["results"], "labels")
    if row.kind == "pretrain":
        return labels / row.structures / row.source / f"npre~{row.npre}.h5"
    source = label_source(config["datasets"][row.target])
    if source is None:
        return Path(config["results"], "data", row.target, "prepared.h5")
    return labels / row.target / source / f"n~{row.n}.h5"


def _weights_fault(config: dict[str, Any], row: Any, metrics: dict[str, Any]) -> str | None:
    keys = ("structures", "source", "transform", "npre", "seed")
    entries = config["pretrained_weights"]
    weights = next(w for w in entries if all(w[key] == getattr(row, key) for key in keys))
    file, wanted = Path(weights["file"]), weights.get("sha256")
    if wanted is None and file.is_file():
        wanted = _sha256(file)
    same = wanted is None or metrics.get("sha256") == wanted
    if metrics.get("imported") != file.name or not same:
        return f"it holds other published weights than {file}"
    return None


def _model_fault(file: Path) -> str | None:
    try:
        with zipfile.ZipFile(file) as archive:
            return None if archive.testzip() is None else "its model.ckpt is damaged"
    except (OSError, zipfile.BadZipFile):
        return "its model.ckpt is missing or not whole"


def _tests_and_dynamics(config: dict[str, Any]) -> Iterator[Refusal]:
    results = Path(config["results"])
    # Of models; the errors of label sources follow from their labels.
    tests = results.glob("evaluations/target~*/**/seed~*/metrics.json")
    for file in [*tests, *results.glob("dynamics/*/**/outcome.json")]:
        kind, name, *run = file.relative_to(results).parts[:-1]
        record, files = _read(file), [path for path in file.parent.iterdir() if path.is_file()]
        if kind == "dynamics":
            run.pop()  # the replica
        model, target = results.joinpath("runs", *run, "model.ckpt"), name.removeprefix("target~")
        data = results / "data" / target / "prepared.h5"
        # A target that a source labels is tested on the source's labels.
        tested = kind != "dynamics" and not label_source(config["datasets"].get(target, {}))
        if model.is_file() and record.get("model_sha256") != _sha256(model):
            yield Refusal(str(file.parent), "it is of another model", files)
        elif tested and data.is_file() and record.get("data_checksum") != _store_checksum(data):
            yield Refusal(str(file.parent), f"it is on other data than {data}", files)


def _settings(config: dict[str, Any]) -> Iterator[Refusal]:
    for file, stored, wanted in _settings_files(config):
        section, _, name = file.stem.partition("~")
        if _refused(file).exists():
            stored = yaml.safe_load(_refused(file).read_text(encoding="utf-8"))
        why = _file_fault(config, section, name)
        if why is None and _portable(stored) != _portable(wanted):
            why = f"settings/{file.name} differs from the configuration"
        if why is not None and section not in NOT_COMPARED:
            yield Refusal(f"{section} {name}", why, [file])


def _settings_files(config: dict[str, Any]) -> Iterator[tuple[Path, Any, Any]]:
    """Yield the settings files of a study, what each holds, and what it should hold."""
    for file in sorted(Path(config["results"], "settings").glob("*.yaml")):
        try:
            wanted = json.loads(json.dumps(config_view(config, file.stem)))
        except (KeyError, ValueError):
            continue  # of a dataset or source that this study does not have
        yield file, yaml.safe_load(file.read_text(encoding="utf-8")), wanted


def _refused(file: Path) -> Path:
    return file.with_name(file.name + REFUSED)


def _portable(value: Any) -> Any:
    """Return settings without the folders of files and the runtime options."""
    if isinstance(value, dict):
        apart = ("results", *RUNTIME_OPTIONS, *SOURCE_OPTIONS, *ADDRESS_KEYS)
        return {key: _portable(item) for key, item in value.items() if key not in apart}
    if isinstance(value, list):
        return [_portable(item) for item in value]
    if isinstance(value, str):
        return " ".join(word.rsplit("/", 1)[-1] for word in value.split())
    return value


def _file_fault(config: dict[str, Any], section: str, name: str) -> str | None:
    """Return which file of a dataset or source is not the one that was read."""
    results = Path(config["results"])
    if section == "dataset" and "path" in config["datasets"][name]:
        paths = config["datasets"][name]["path"]
        here = {Path(path).name: path for path in (paths if isinstance(paths, list) else [paths])}
        origin = _read(results / "data" / name / "summary.json").get("origin", {})
        read = {here.get(Path(f["path"]).name): f["sha256"] for f in origin.get("files", [])}
        found = {path: _sha256(Path(path)) for path in read if path and Path(path).is_file()}
        records = [read]
    elif section == "source" and "calculator" in config["sources"][name]:
        found = parameter_files(Source.from_entry(name, config["sources"][name]), installed=False)
        chunks = sorted(results.glob(f"labels/*/{name}/chunks/*.provenance.json"))
        records = [_read(file).get("parameter_files_sha256", {}) for file in chunks]
    else:
        return None
    differing = (p for record in records for p in found if record.get(p, found[p]) != found[p])
    return next((f"{path} was another file there" for path in differing), None)


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


@functools.cache
def _store_checksum(file: Path) -> str:
    try:
        with Store(file) as store:
            return store.checksum
    except (OSError, KeyError) as error:
        raise UserError(f"{file} cannot be read ({error}): copy it again") from error
