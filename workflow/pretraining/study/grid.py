"""The grid: one table, one row a training run, and the path of each run.

A run is a row and a path. The path carries the identity in the paper's words, so that adding a
size, a seed or a source adds only its own runs, and a run that two experiments want is one job.
Nothing heavier than pandas is imported: Snakemake executes this in every job.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Iterator
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
        Pre-training structures, what was done to them and who labelled them; for direct training
        empty, ``none`` and ``none``.
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
        return Run(
            "finetune",
            target,
            self.structures,
            self.transform,
            self.source,
            self.npre,
            self.seed,
            n,
            seed,
        )

    @property
    def parent(self) -> Run | None:
        """The pre-training whose weights this run starts from; None but for fine-tuning."""
        if self.kind != "finetune":
            return None
        return Run.pretrain(self.structures, self.transform, self.source, self.npre, self.preseed)

    @property
    def path(self) -> str:
        """Folder of the run, relative to the results folder."""
        pretraining = (
            f"structures~{self.structures}/transform~{self.transform}/source~{self.source}"
        )
        match self.kind:
            case "pretrain":
                return f"runs/pretrain/{pretraining}/npre~{self.npre}/seed~{self.seed}"
            case "direct":
                return f"runs/direct/target~{self.target}/source~none/n~{self.n}/seed~{self.seed}"
            case _:
                return (
                    f"runs/finetune/target~{self.target}/{pretraining}"
                    f"/npre~{self.npre}/preseed~{self.preseed}/n~{self.n}/seed~{self.seed}"
                )


def experiment_runs(experiment: dict[str, Any]) -> Iterator[Run]:
    """Yield the runs that one experiment needs, parents before children.

    Parameters
    ----------
    experiment
        One entry of the configuration's ``experiments``, with defaults.
    """
    target = experiment["target"]
    for transform in experiment["transforms"]:
        for source in experiment["sources"]:
            for npre in experiment["pretrain_sizes"]:
                for preseed in experiment["pretrain_seeds"]:
                    parent = Run.pretrain(
                        experiment["structures"], transform, source, npre, preseed
                    )
                    yield parent
                    for n in experiment["sizes"]:
                        for seed in experiment["finetune_seeds"]:
                            yield parent.finetune(target, n, seed)
    for n in experiment["sizes"]:
        for seed in experiment["direct_seeds"]:
            yield Run.direct(target, n, seed)


def grid_table(config: dict[str, Any]) -> pd.DataFrame:
    """Return the table of all runs, each once.

    Parameters
    ----------
    config
        A validated configuration.

    Returns
    -------
    pandas.DataFrame
        One row a run, sorted by identity: the fields of :class:`Run`, ``experiments`` (names
        joined by a comma), ``path``, ``parent`` (path, empty without one) and ``imported``
        (True where published weights stand in for the training).
    """
    wanted: dict[Run, list[str]] = {}
    for name, experiment in config["experiments"].items():
        for run in experiment_runs(experiment):
            names = wanted.setdefault(run, [])
            if name not in names:
                names.append(name)
    stand_ins = imported_runs(config)
    rows = [
        vars(run)
        | {
            "experiments": ",".join(names),
            "path": run_path(run, stand_ins),
            "parent": run_path(run.parent, stand_ins) if run.parent else "",
            "imported": run in stand_ins,
        }
        for run, names in sorted(wanted.items(), key=lambda item: _order(item[0]))
    ]
    return pd.DataFrame(rows)


def _order(run: Run) -> tuple:
    return (KINDS.index(run.kind), run)


def imported_runs(config: dict[str, Any]) -> dict[Run, dict[str, Any]]:
    """Return the pre-trainings that published weights stand in for, and those weights."""
    return {
        Run.pretrain(w["structures"], w["transform"], w["source"], w["npre"], w["seed"]): w
        for w in config["pretrained_weights"]
    }


def run_path(run: Run, stand_ins: Container[Run]) -> str:
    """Return the folder of a run; published weights that stand in for it have their own."""
    if run in stand_ins:
        return run.path.replace("runs/pretrain/", "runs/imported/", 1)
    return run.path


def select(grid: pd.DataFrame, experiment: str | None = None, **fields: Any) -> pd.DataFrame:
    """Return the rows of one experiment (default all) whose columns equal the given values."""
    chosen = grid
    if experiment is not None:
        chosen = chosen[[experiment in names.split(",") for names in chosen["experiments"]]]
    for column, value in fields.items():
        chosen = chosen[chosen[column] == value]
    return chosen


def largest_size(grid: pd.DataFrame, dataset: str) -> int:
    """Return how many training structures of a dataset the largest run needs; 0 if none."""
    pretraining = select(grid, kind="pretrain", structures=dataset, imported=False)["npre"]
    training = select(grid, target=dataset)["n"]
    return int(max([0, *pretraining, *training]))


def check_pools(grid: pd.DataFrame, config: dict[str, Any]) -> None:
    """Compare the grid's sizes with the sets that have been prepared already.

    A set whose settings or files have changed since is left to its next preparation.

    Raises
    ------
    UserError
        If a run needs more training structures than filters and split have left.
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
        files = [Path(file) for file in ([files] if isinstance(files, str) else files)]
        made = path.stat().st_mtime
        if any(file.exists() and file.stat().st_mtime > made for file in files):
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
    """Return one row a result that the given experiments compare.

    Beside the direct and fine-tuned runs these are every pre-trained model untuned on the
    target's test set, and every label source's own error there. A source knows nothing of a
    transformed element, and need not be installed where published weights stand in for what it
    labelled or the labels came with the structures: then it has no such row. On the further test
    sets of an experiment all of its models are tested, the trained ones as the kind ``transfer``.

    Returns
    -------
    pandas.DataFrame
        Columns ``kind, target, source, npre, n, seed, structures, transform, preseed, trained_on,
        metrics``. `target` is the dataset whose test set the errors are of; `trained_on` is the
        target of the training, for the kind ``transfer`` alone, where it is another one; `metrics`
        is the path of the JSON file.
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
    """Return where the errors of a run's model on the test set of `tested` go."""
    return f"evaluations/target~{tested}/{path.removeprefix('runs/')}"
