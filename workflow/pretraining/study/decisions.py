"""Values of the keys that a study with ``defaults: data`` leaves out: they follow from its data.

All of them are chosen here; "Choosing values" in config/README.md gives the reasons.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from pretraining.runtime.errors import UserError
from pretraining.study.generation import frames_of, trajectories
from pretraining.study.queries import (
    STRUCTURE_KEYS,
    fitted_zero,
    has_own_split,
    part_size,
    paths_of,
    split_sizes,
)

# Sizes double from 8; from the paper's 25 in a pool of so many structures.
SMALL_START, LARGE_START, LARGE_POOL = 8, 25, 400
SEEDS = [1, 2, 3]
MOST_PRETRAINING = 10_000  # where the paper compares label sources
# Below so many structures a tenth is too small a test set.
FEW, LARGER_FRACTION = 1000, 0.2
# From so many pre-training structures on: the paper's network and procedure.
LARGE_STUDY = 2000
SMALL_NETWORK = {"num_layers": 2, "num_features": 16}
SMALL_TRAINING = {"batch_size": 4, "learning_rate": 0.005}
EPOCHS = {"max_epochs": 1000, "patience": 100, "pretrain": {"max_epochs": 200, "patience": 40}}
# The paper's cut-off; second neighbours: of fcc at 1.59, of diamond at 1.41, of bcc at 1.26 times
# the cube root of the volume per atom.
LEAST_CUTOFF, SECOND_NEIGHBOURS = 4.0, 1.65
# Generated structures: melt-quench at the target's densities and a tenth beyond. Even carbon melts.
ATOMS, DENSITIES, REPLICAS, BEYOND, FRAME_EVERY_PS = 64, 5, 4, 0.1, 0.2
STAGES = [
    {"temperature": 5000, "ps": 1},
    {"from": 5000, "to": 300, "ps": 4},
    {"temperature": 300, "ps": 1},
]
# Distorted structures: relative strain and displacements (Å) of thermal size.
DISTORT = {"number": 500, "strain": 0.05, "rattle": 0.1}


@dataclass(frozen=True)
class Facts:
    """What the files of a dataset tell before it is prepared, of structures that filters leave.

    Attributes
    ----------
    structures, elements
        Their number; all elements.
    formula
        Atoms of each element in the most frequent formula.
    densities, volume
        Range of most densities (g/cm³), and volume per atom (Å³) of the denser structures; None if
        none is periodic.
    labels
        Names of entries that may be the ``energy`` and the ``forces``.
    isolated
        Elements with an isolated atom; these are no structures.
    parts
        Number of structures by value of the set's own split; empty without one.
    """

    structures: int
    elements: frozenset[str]
    formula: Mapping[str, int]
    densities: tuple[float, float] | None
    volume: float | None
    labels: Mapping[str, list[str]]
    isolated: frozenset[str]
    parts: Mapping[str, int]


@dataclass(frozen=True)
class Decision:
    """The value of a key that was left out, and why."""

    key: str
    value: Any
    why: str

    def __str__(self) -> str:
        value = yaml.safe_dump([self.value], default_flow_style=True, width=1e9, sort_keys=False)
        return f"{self.key}: {value.strip()[1:-1]}  # {self.why}"


Choices = Iterator[tuple[str, Any, str]]  # key, value and reason
Look = Callable[[str, Mapping[str, Any]], Facts]  # by name and entry of a dataset


def decide(config: Mapping[str, Any], look: Look) -> tuple[dict[str, Any], list[Decision]]:
    """Return a copy of a configuration with the keys that it leaves out, and their decisions.

    `config` is as written; it fits the schema but for missing keys.
    """
    config = copy.deepcopy(dict(config))
    if config.pop("defaults", "paper") != "data":
        return config, []
    decisions: list[Decision] = []

    def fill(where: str, entry: dict[str, Any], choices: Choices) -> None:
        for key, value, why in choices:
            if key not in entry:
                entry[key] = copy.deepcopy(value)
                decisions.append(Decision(f"{where}.{key}", value, why))

    datasets, largest, volumes = config.get("datasets", {}), 0, [0.0]
    for name, experiment in config.get("experiments", {}).items():
        of = [experiment["target"], experiment["structures"]]
        for key, dataset in zip(("target", "structures"), of, strict=True):
            if dataset not in datasets:
                known = ", ".join(datasets)
                where = f"experiments.{name}.{key}"
                raise UserError(f"{where}: '{dataset}' is not one of the datasets: {known}")
        target, structures = (datasets[dataset] for dataset in of)
        facts = look(of[0], target)
        fill(f"datasets.{of[0]}", target, _target(f"datasets.{of[0]}", target, facts))
        if "generate" in structures:
            where = f"datasets.{of[1]}.generate"
            fill(where, structures["generate"], _generation(where, structures["generate"], facts))
        if "distort" in structures:
            where = f"datasets.{of[1]}.distort"
            chosen = [(key, value, "around each structure") for key, value in DISTORT.items()]
            fill(where, structures["distort"], iter(chosen))
        fill(f"datasets.{of[1]}", structures, _structures(structures, target))
        made = structures.keys() & {"generate", "distort"}
        other = None if made else look(of[1], structures)
        pools = _pool(target, facts), _pool(structures, other)
        fill(f"experiments.{name}", experiment, _experiment(experiment, *pools))
        largest = max(largest, *experiment["pretrain_sizes"])
        volumes.append(facts.volume or 0)
    fill("network", config.setdefault("network", {}), _network(largest, max(volumes)))
    fill("training", config.setdefault("training", {}), _training(largest))
    return config, decisions


def _target(where: str, dataset: Mapping[str, Any], facts: Facts) -> Choices:
    if "labels" not in dataset:
        labels = {}
        for quantity, names in facts.labels.items():
            if len(usual := [name for name in names if name == quantity] or names) != 1:
                found = ", ".join(names) or "none"
                asked = f"name the {quantity}, or a source that computes labels"
                raise UserError(f"{where}.labels: {asked}; the file has: {found}")
            labels[quantity] = usual[0]
        yield "labels", labels, "the file's entries"
    missing = ", ".join(sorted(facts.elements - facts.isolated))
    if "source" in dataset["labels"]:
        yield "energy_reference", {"none": True}, "labels are relative to isolated atoms"
    elif not missing:
        yield "energy_reference", {"isolated_atoms": True}, "those in the file"
    why = f"fitted, for want of isolated atoms of {missing} in the file; or give {{given: {{…}}}}"
    yield "energy_reference", {"least_squares": True}, why
    if "test" in facts.parts and len(facts.parts) <= 3:
        counts = ", ".join(f"{n} {part}" for part, n in facts.parts.items())
        val = {"val": "val"} if "val" in facts.parts else {}
        yield "split", {"key": "split", **val}, f"the file's own: {counts}"
    split = {"fraction": LARGER_FRACTION if facts.structures < FEW else 0.1}
    val, test = split_sizes(facts.structures, split)
    yield "split", split, f"of {facts.structures:,} structures {test} for tests, {val} validation"


def _generation(where: str, generate: Mapping[str, Any], facts: Facts) -> Choices:
    yield "composition", dict(facts.formula), "the target's most frequent formula"
    unit = sum(generate["composition"].values())
    yield "atoms", unit * max(1, round(ATOMS / unit)), "in a cell"
    if "densities" not in generate:
        if facts.densities is None:
            raise UserError(f"{where}.densities: give them: no structure of the target has any")
        low, high = (1 - BEYOND) * facts.densities[0], (1 + BEYOND) * facts.densities[1]
        steps = [low + (high - low) * i / (DENSITIES - 1) for i in range(DENSITIES)]
        yield "densities", [float(f"{rho:.3g}") for rho in steps], "around the target's, g/cm³"
    yield "replicas", REPLICAS, "of each density"
    yield "stages", STAGES, "melt, quench; the first must be well above the melting point"
    yield "frame_every_ps", FRAME_EVERY_PS, "frames that differ"


def _structures(dataset: Mapping[str, Any], target: Mapping[str, Any]) -> Choices:
    if fit := fitted_zero(target):
        yield "energy_reference", {fit: True}, "as the target's"
    if "distort" in dataset and not dataset.keys() & set(STRUCTURE_KEYS) and "path" in target:
        yield "path", paths_of(target), "the target's, whose labels are not read"
    if "generate" not in dataset:
        return
    melt, *others = dataset["generate"]["stages"]
    yield "filters", [{"key": "time", "min": melt["ps"]}] if others else [], "without the melt"
    runs, frames = _made(dataset)
    part = max(1, round(runs / 10)) * frames
    yield "split", {"groups": "run_id", "n_test": part, "n_val": part}, "whole trajectories"
    yield "keep", ["density", "time", "run_id"], "for figures"


def _made(dataset: Mapping[str, Any]) -> tuple[int, int]:
    """Return the number of trajectories, and of frames of each that the filter on time leaves."""
    generate = {"exclude": [], "replicas": 1, **dataset["generate"]}
    after = [f["min"] for f in dataset["filters"] if f.get("key") == "time" and "min" in f]
    dropped = math.ceil(max([0, *after]) / generate["frame_every_ps"] - 1e-6)
    return len(trajectories(generate)), max(1, frames_of(generate) - dropped)


def _pool(dataset: Mapping[str, Any], facts: Facts | None) -> int:
    """Return the number of training structures; `facts` are those of a file."""
    if "distort" in dataset:
        n = dataset["distort"]["number"]
    else:
        n = facts.structures if facts else math.prod(_made(dataset))
    split = dataset.get("split", {})
    if not has_own_split(split):
        return n - sum(split_sizes(n, split))
    rest = n - facts.parts.get(split.get("test", "test"), 0)
    val = "val" if "val_path" in split else split.get("val")
    return rest - (facts.parts.get(val, 0) if val else part_size(rest, split, "val"))


def _experiment(experiment: Mapping[str, Any], pool: int, pretrain_pool: int) -> Choices:
    start = SMALL_START if pool < LARGE_POOL else LARGE_START
    yield "sizes", _doubled(start, pool), f"doubled up to the training pool of {pool:,}"
    most = min(pretrain_pool, MOST_PRETRAINING)
    most -= most % 10 ** max(0, len(str(most)) - 2)
    by_size = experiment.get("compare") == "pretrain_size"
    sizes = _doubled(max(1, most // 8), most) if by_size else [most]
    yield "pretrain_sizes", sizes, f"up to the training pool of {pretrain_pool:,}"
    yield "pretrain_seeds", [42], "one"
    yield "finetune_seeds", SEEDS, "for a mean and its spread"
    yield "direct_seeds", SEEDS, "for a mean and its spread"


def _doubled(first: int, most: int) -> list[int]:
    """Return `first`, twice that, … up to `most`."""
    first, most = min(first, max(1, most)), max(1, most)
    return [first * 2**i for i in range(int(math.log2(most / first)) + 1)]


def _network(largest: int, volume: float) -> Choices:
    for key, value in SMALL_NETWORK.items() if largest < LARGE_STUDY else ():
        yield key, value, f"small, for at most {largest:,} pre-training structures"
    wanted = SECOND_NEIGHBOURS * volume ** (1 / 3)
    yield "cutoff", max(LEAST_CUTOFF, math.ceil(10 * wanted) / 10), "second neighbours, Å"


def _training(largest: int) -> Choices:
    for key, value in SMALL_TRAINING.items() if largest < LARGE_STUDY else ():
        yield key, value, f"small steps, for at most {largest:,} pre-training structures"
    for key, value in EPOCHS.items():
        yield key, value, "enough to converge"
