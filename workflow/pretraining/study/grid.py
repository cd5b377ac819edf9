"""The grid: a table with one row per training run, and the path of each run.

The path contains the run's identity: adding a size, a seed or a source adds only its own runs.
Imported in every job of Snakemake: nothing heavier than pandas.
"""

from __future__ import annotations

import json
import os
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from pretraining.runtime.errors import UserError, whole
from pretraining.study.settings import KINDS
from pretraining.study.views import dataset_view


@dataclass(frozen=True, order=True)
class Run:
    """The identity of one training run.

    Attributes
    ----------
    kind
        ``pretrain``, ``direct`` or ``finetune``.
    target
        Dataset with the DFT labels; empty for a pre-training.
    structures, transform, source
        Pre-training structures, their transform and their label source; for direct training empty,
        ``none`` and ``none``.
    npre, preseed
        Number of pre-training structures and the seed of the pre-training; 0 for direct training.
    n, seed
        Number of DFT structures (0 for a pre-training) and the seed of this run.
    """

    kind: str
    target: str
    structures: str
    transform: str
    source: str
    npre: int
    preseed: int
    n: int
    seed: int

    @classmethod
    def pretrain(cls, structures: str, transform: str, source: str, npre: int, seed: int) -> Run:
        """A training on synthetic labels from random weights."""
        return cls("pretrain", "", structures, transform, source, npre, seed, 0, seed)

    @classmethod
    def direct(cls, target: str, n: int, seed: int) -> Run:
        """A training on DFT labels from random weights."""
        return cls("direct", target, "", "none", "none", 0, 0, n, seed)

    def finetune(self, target: str, n: int, seed: int) -> Run:
        """A training on DFT labels from the best weights of this pre-training."""
        origin = (self.structures, self.transform, self.source, self.npre, self.seed)
        return Run("finetune", target, *origin, n, seed)

    @property
    def parent(self) -> Run | None:
        """The pre-training whose weights a fine-tuning starts from; None for other runs."""
        if self.kind != "finetune":
            return None
        return Run.pretrain(self.structures, self.transform, self.source, self.npre, self.preseed)

    @property
    def path(self) -> str:
        """Folder of the run, relative to the results folder."""
        pretraining = (
            f"structures~{self.structures}/transform~{self.transform}/source~{self.source}"
            f"/npre~{self.npre}"
        )
        match self.kind:
            case "pretrain":
                return f"runs/pretrain/{pretraining}/seed~{self.seed}"
            case "direct":
                return f"runs/direct/target~{self.target}/source~none/n~{self.n}/seed~{self.seed}"
            case _:
                return (
                    f"runs/finetune/target~{self.target}/{pretraining}"
                    f"/preseed~{self.preseed}/n~{self.n}/seed~{self.seed}"
                )


def experiment_runs(experiment: dict[str, Any]) -> Iterator[Run]:
    """Yield the runs of one experiment of the configuration, parents before children."""
    target = experiment["target"]
    for transform in experiment["transforms"]:
        for source in experiment["sources"]:
            for npre in experiment["pretrain_sizes"]:
                for preseed in experiment["pretrain_seeds"]:
                    structures = experiment["structures"]
                    parent = Run.pretrain(structures, transform, source, npre, preseed)
                    yield parent
                    for n in experiment["sizes"]:
                        for seed in experiment["finetune_seeds"]:
                            yield parent.finetune(target, n, seed)
    for n in experiment["sizes"]:
        for seed in experiment["direct_seeds"]:
            yield Run.direct(target, n, seed)


def grid_table(config: dict[str, Any]) -> pd.DataFrame:
    """Return the table of all runs of a validated configuration, each once.

    Returns
    -------
    pandas.DataFrame
        Sorted by identity: the fields of :class:`Run`, ``experiments`` (names joined by a comma),
        ``path``, ``parent`` (path, or empty) and ``imported`` (True if published weights replace
        the training).
    """
    wanted: dict[Run, dict[str, None]] = {}
    for name, experiment in config["experiments"].items():
        for run in experiment_runs(experiment):
            wanted.setdefault(run, {})[name] = None
    imported = imported_runs(config)
    rows = [
        vars(run)
        | {
            "experiments": ",".join(names),
            "path": run_path(run, imported),
            "parent": run_path(run.parent, imported) if run.parent else "",
            "imported": run in imported,
        }
        for run, names in sorted(wanted.items(), key=lambda w: (KINDS.index(w[0].kind), w[0]))
    ]
    return pd.DataFrame(rows)


def imported_runs(config: dict[str, Any]) -> dict[Run, dict[str, Any]]:
    """Return the pre-trainings that published weights replace, and those weights."""
    return {
        Run.pretrain(w["structures"], w["transform"], w["source"], w["npre"], w["seed"]): w
        for w in config["pretrained_weights"]
    }


def run_path(run: Run, imported: Container[Run]) -> str:
    """Return the folder of a run; published weights that replace one have their own."""
    if run in imported:
        return run.path.replace("runs/pretrain/", "runs/imported/", 1)
    return run.path


def select(grid: pd.DataFrame, experiment: str | None = None, **fields: Any) -> pd.DataFrame:
    """Return the rows of one experiment (default: all) with the given values in their columns."""
    chosen = grid
    if experiment is not None:
        chosen = chosen[[experiment in names.split(",") for names in chosen["experiments"]]]
    for column, value in fields.items():
        chosen = chosen[chosen[column] == value]
    return chosen


def largest_size(grid: pd.DataFrame, dataset: str) -> int:
    """Return the number of training structures of a dataset in its largest run; 0 without runs."""
    pretraining = select(grid, kind="pretrain", structures=dataset, imported=False)["npre"]
    training = select(grid, target=dataset)["n"]
    return int(max([0, *pretraining, *training]))


def check_pools(grid: pd.DataFrame, config: dict[str, Any]) -> None:
    """Compare the grid's sizes with the prepared sets that are up to date.

    Raises a `UserError` if a run needs more training structures than filters and split leave.
    """
    for dataset in config["datasets"]:
        entry = dataset_view(config, dataset)
        path = Path(config["results"]) / "data" / dataset / "summary.json"
        settings = Path(config["results"]) / "settings" / f"dataset~{dataset}.yaml"
        if not path.exists() or not settings.exists():
            continue
        with whole(settings):
            made_with = yaml.safe_load(settings.read_text(encoding="utf-8"))["datasets"][dataset]
        if made_with != entry:
            continue
        files = entry.get("path", [])
        files = filter(os.path.exists, [files] if isinstance(files, str) else files)
        if any(os.path.getmtime(file) > path.stat().st_mtime for file in files):
            continue
        with whole(path):
            pool = json.loads(path.read_text(encoding="utf-8"))["counts"]["train"]
        needed = largest_size(grid, dataset)
        if needed > pool:
            raise UserError(
                f"the grid needs {needed} training structures of '{dataset}', but filters and "
                f"split leave {pool} ({path}): lower the sizes in the configuration's experiments"
            )


def results_table(
    config: dict[str, Any], grid: pd.DataFrame, experiments: Iterable[str]
) -> pd.DataFrame:
    """Return one row per result that the given experiments compare.

    These are direct and fine-tuned runs, pre-trained models without fine-tuning, and label sources,
    each on the target's test set. A source has no row for transformed elements, and none where it
    need not be installed: with published weights or own labels of the structures. On the further
    test sets of an experiment all its models are tested, the trained ones as the kind ``transfer``.

    Returns
    -------
    pandas.DataFrame
        Columns ``kind, target, source, npre, n, seed, structures, transform, preseed, trained_on,
        metrics``. `target` is the dataset of the test set; `trained_on` the target of the training
        if it differs (kind ``transfer``); `metrics` the path of the JSON file.
    """
    rows: dict[tuple, None] = {}
    for name in experiments:
        experiment = config["experiments"][name]
        target = experiment["target"]
        for run in select(grid, name).drop(columns=["experiments"]).itertuples():
            origin = (run.structures, run.transform, run.preseed)
            for tested in (target, *experiment["also_test"]):
                errors = f"{evaluation_folder(tested, run.path)}/metrics.json"
                if run.kind == "pretrain":
                    identity = ("pretrain", tested, run.source, run.npre, 0, run.seed)
                    rows[(*identity, *origin, "", errors)] = None
                    computed = "calculator" in config["sources"][run.source] and not run.imported
                    if run.transform == "none" and computed:
                        error = f"evaluations/target~{tested}/source~{run.source}/metrics.json"
                        identity = ("source", tested, run.source, 0, 0, 0)
                        rows[(*identity, "", "none", 0, "", error)] = None
                elif tested == target:
                    identity = (run.kind, target, run.source, run.npre, run.n, run.seed)
                    rows[(*identity, *origin, "", f"{run.path}/metrics.json")] = None
                else:
                    identity = ("transfer", tested, run.source, run.npre, run.n, run.seed)
                    rows[(*identity, *origin, target, errors)] = None
    columns = ["kind", "target", "source", "npre", "n", "seed"]
    columns += ["structures", "transform", "preseed", "trained_on", "metrics"]
    table = pd.DataFrame(list(rows), columns=columns)
    table["metrics"] = [f"{config['results']}/{path}" for path in table["metrics"]]
    return table


def evaluation_folder(tested: str, path: str) -> str:
    """Return the folder of the errors of a run's model on the test set of `tested`."""
    return f"evaluations/target~{tested}/{path.removeprefix('runs/')}"


def stability_models(config: Mapping[str, Any], grid: pd.DataFrame, name: str) -> list[str]:
    """Return the models of a stability test, by the path of their runs after ``runs/``.

    Raises a `UserError` if an entry selects no run of the grid, or has a value that no run has.
    """
    chosen: dict[str, None] = {}
    for index, entry in enumerate(config["dynamics"][name]["models"]):
        where = f"dynamics.{name}.models[{index}]"
        rows = select(grid, entry["experiment"])
        rows = rows[rows["kind"].isin(entry["kinds"])]
        for key in ("n", "npre", "source", "transform", "seed"):
            if key not in entry:
                continue
            # Direct training has no pre-training to choose, a pre-training no fine-tuning.
            free = rows["kind"] == {"n": "pretrain", "seed": None}.get(key, "direct")
            for value in entry[key]:
                if not (~free & (rows[key] == value)).any():
                    known = ", ".join(str(v) for v in sorted(rows.loc[~free, key].unique()))
                    raise UserError(
                        f"{where}.{key}: no such run has {key} {value}; known: {known or 'none'}"
                    )
            rows = rows[free | rows[key].isin(entry[key])]
        if rows.empty:
            raise UserError(f"{where}: selects no run of experiment '{entry['experiment']}'")
        chosen |= dict.fromkeys(path.removeprefix("runs/") for path in rows["path"])
    return list(chosen)
