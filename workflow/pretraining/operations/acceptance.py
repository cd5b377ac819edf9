"""Whether results that were made elsewhere are of this configuration, by their own records.

A training run's record has a digest of all that decides it: its settings, the content of its
training set and the model that it started from. All of that can be looked at again. Models that
were tested or moved are known by their SHA-256, and what prepared or labelled structures by the
part of the configuration that it read, a copy of which lies in ``settings/``.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from pretraining.data.store import Store
from pretraining.data.transforms import Transform
from pretraining.runtime.errors import UserError
from pretraining.runtime.files import file_sha256
from pretraining.study import views as parts
from pretraining.study.queries import label_source
from pretraining.study.settings import digest, run_identity, settings_of

RUN_FILES = ("model.ckpt", "metrics.json", "curve.csv")


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Files of one job that are not of this configuration, and why."""

    files: list[Path]
    what: str
    why: str


class Checker:
    """Looks at the results of a study.

    Parameters
    ----------
    config
        A validated configuration.
    grid
        Table of :func:`pretraining.study.grid.grid_table`.
    """

    def __init__(self, config: dict[str, Any], grid: pd.DataFrame) -> None:
        self.config = config
        self.grid = grid
        self.results = Path(config["results"])
        self.accepted = 0
        self.missing = 0
        self.model_sha256 = functools.cache(file_sha256)
        self.store_checksum = functools.cache(_checksum_of_store)
        self._settings = functools.cache(self._settings_of)

    def runs(self) -> Iterator[Refusal]:
        """Yield the training runs that are not what the configuration says."""
        for row in self.grid.itertuples():
            folder = self.results / row.path
            if not (folder / "metrics.json").is_file():
                self.missing += 1
                continue
            why = self._imported(row, folder) if row.imported else self._trained(row, folder)
            if why:
                files = [folder / name for name in RUN_FILES if (folder / name).is_file()]
                yield Refusal(files, row.path, why)
            else:
                self.accepted += 1

    def _trained(self, row: Any, folder: Path) -> str | None:
        metrics = _read(folder / "metrics.json")
        if not metrics:
            return "its metrics.json is not whole"
        fault = _model_fault(folder / "model.ckpt")
        if fault:
            return fault
        run = (row.kind, row.npre if row.kind == "pretrain" else row.n, row.seed)
        for key, value in zip(("kind", "n", "seed"), run, strict=True):
            if metrics.get(key) != value:
                return f"it is of {key} {metrics.get(key)}, as its record says"
        data = self.data_of(row)
        if not data.is_file():
            return f"its training set {data} is not there to hold it against: copy that, too"
        checksum = self.store_checksum(data)
        if metrics.get("data_checksum") != checksum:
            return f"it was trained on other data than {data}"
        initial = None
        if row.parent:
            model = self.results / row.parent / "model.ckpt"
            if not model.is_file():
                return f"the model that it started from, {model}, is not there: copy that, too"
            initial = self.model_sha256(model)
        settings, transform = self._settings(row.kind, row.transform)
        identity = run_identity(run, settings, transform, checksum, initial)
        if metrics.get("config_hash") != digest(identity):
            start = " or from another model" if row.parent else ""
            return f"it was trained with other settings{start}"
        return None

    def _imported(self, row: Any, folder: Path) -> str | None:
        metrics = _read(folder / "metrics.json")
        weights = next(
            w
            for w in self.config["pretrained_weights"]
            if (w["structures"], w["source"], w["transform"], w["npre"], w["seed"])
            == (row.structures, row.source, row.transform, row.npre, row.seed)
        )
        if metrics.get("imported") != Path(weights["file"]).name:
            return "it was made of other published weights"
        wanted = weights.get("sha256")
        if wanted is None and Path(weights["file"]).is_file():
            wanted = file_sha256(Path(weights["file"]))
        if wanted is not None and metrics.get("sha256") != wanted:
            return f"it was made of another {weights['file']}"
        return _model_fault(folder / "model.ckpt")

    def _settings_of(self, kind: str, transform: str) -> tuple[Any, dict[str, Any]]:
        part = f"pretrain~{transform}" if kind == "pretrain" else kind
        settings = settings_of(parts.config_view(self.config, part), kind)
        # Only a pre-training's structures are transformed.
        name = transform if kind == "pretrain" else "none"
        return settings, dataclasses.asdict(Transform.from_settings(name, settings.transforms))

    def data_of(self, row: Any) -> Path:
        """Return the training set of a run."""
        if row.kind == "pretrain":
            return self.results / "labels" / row.structures / row.source / f"npre~{row.npre}.h5"
        source = label_source(self.config["datasets"][row.target])
        if source is None:
            return self.results / "data" / row.target / "prepared.h5"
        return self.results / "labels" / row.target / source / f"n~{row.n}.h5"

    def tests(self) -> Iterator[Refusal]:
        """Yield the tests of models that are of another model, or on another test set."""
        folder = self.results / "evaluations"
        for path in set(self.grid["path"]):
            model = self.results / path / "model.ckpt"
            pattern = f"target~*/{path.removeprefix('runs/')}/metrics.json"
            for file in folder.glob(pattern):
                record = _read(file)
                if model.is_file() and record.get("model_sha256") != self.model_sha256(model):
                    yield Refusal([file], str(file.parent), "it is of another model")
                    continue
                target = file.relative_to(folder).parts[0].removeprefix("target~")
                data = self.results / "data" / target / "prepared.h5"
                if label_source(self.config["datasets"].get(target, {})) or not data.is_file():
                    continue
                if record.get("data_checksum") != self.store_checksum(data):
                    yield Refusal([file], str(file.parent), f"it is on other data than {data}")

    def dynamics(self) -> Iterator[Refusal]:
        """Yield the trajectories of other models."""
        for name in self.config["dynamics"]:
            folder = self.results / "dynamics" / name
            for file in folder.glob("**/outcome.json"):
                model = self.results / "runs" / file.relative_to(folder).parents[1] / "model.ckpt"
                if model.is_file() and _read(file).get("model_sha256") != self.model_sha256(model):
                    files = [made for made in file.parent.iterdir() if made.is_file()]
                    yield Refusal(files, str(file.parent), "it is of another model")


def _read(file: Path) -> dict[str, Any]:
    """Return a record; nothing of a file that holds none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _model_fault(file: Path) -> str | None:
    """Say what is wrong with a model file, which is an archive with checksums."""
    try:
        with zipfile.ZipFile(file) as archive:
            return None if archive.testzip() is None else "its model.ckpt is damaged"
    except FileNotFoundError:
        return "it has no model.ckpt"
    except (OSError, zipfile.BadZipFile):
        return "its model.ckpt is not whole"


def _checksum_of_store(file: Path) -> str:
    try:
        with Store(file) as store:
            return store.checksum
    except (OSError, KeyError) as error:
        raise UserError(f"{file} cannot be read ({error}): copy it again") from error
