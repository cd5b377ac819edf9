"""Which products of a study fit the configuration: each by its own record of what it was made with.

A product that cannot say so does not fit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from pretraining.data.energy_references import read_reference
from pretraining.data.retrieve import identity_of, is_retrieved, remote_files
from pretraining.data.store import Store
from pretraining.data.transforms import Transform
from pretraining.labels.chunks import EVAL
from pretraining.operations.compare import (
    equal,
    equal_keys,
    plain,
    present,
    record,
    record_beside,
)
from pretraining.runtime.errors import UserError
from pretraining.runtime.files import digest, file_sha256
from pretraining.runtime.records import record_of
from pretraining.study.generation import trajectories
from pretraining.study.queries import fitted_zero, label_source
from pretraining.study.settings import import_identity, run_identity, settings_of
from pretraining.study.sources import DECISIVE_KEYS, Source, parameter_files
from pretraining.study.views import ADDRESS_KEYS, config_view, dataset_view


class Refusal(NamedTuple):
    """Results that do not fit the configuration: Snakemake makes them again."""

    what: str
    why: str
    files: list[Path]


def examine(config: dict[str, Any], grid: pd.DataFrame) -> list[Refusal]:
    """Compare the results of a study with its validated configuration and its grid.

    Raises a `UserError` if there are no results.
    """
    if not Path(config["results"]).is_dir():
        raise UserError(f"no results at {config['results']}: copy the whole folder there")
    found: dict[tuple[str, str], list[Path]] = {}
    for what, files, check in _Study(config).products(grid):
        try:
            check()
        except UserError as error:
            why = str(error)
        except (KeyError, TypeError, AttributeError):
            why = "it does not say what it was made with"
        else:
            continue
        found.setdefault((what, why), []).extend(filter(Path.is_file, files))
    return [Refusal(*key, files) for key, files in found.items()]


def _described(file: Path, results: Path) -> tuple[str, list[Path]]:
    """Return the name of a product for people, and the files that one job makes."""
    path = file.relative_to(results)
    if file.name in ("outcome.json", "metrics.json"):
        return str(path.parent), list(file.parent.iterdir())
    if file.name == "prepared.h5":
        return f"dataset {file.parent.name}", [file, *file.parent.glob("summary.*")]
    is_part = file.parent.name in ("chunks", "trajectories")
    return str(path.parent if is_part else path), [file, record_of(file), file.with_suffix(".csv")]


class _Study:
    """The products of a study, and for each a function that raises its fault, if any."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.results = Path(config["results"])
        # Many products are made from one file.
        self.sha256, self.store = cache(file_sha256), cache(_store)
        self.files_of = cache(self._files_of)

    def products(self, grid: pd.DataFrame) -> Iterator[tuple[str, list[Path], Callable[[], None]]]:
        """Yield what is there, of the names that the configuration has."""
        datasets, sources, tests = (self.config[s] for s in ("datasets", "sources", "dynamics"))
        calculated = {name for name, source in sources.items() if "calculator" in source}
        for pattern, check, *names in (
            ("retrieved/*.json", self.stamp),
            ("labels/references/*.json", self.reference, (-1, calculated)),
            ("data/*/trajectories/*.extxyz", self.trajectory, (1, datasets)),
            ("data/*/prepared.h5", self.prepared, (1, datasets)),
            ("data/*/chunks/*.extxyz", self.chunk, (1, datasets)),
            ("labels/*/*/chunks/*.extxyz", self.labels, (1, datasets), (2, calculated)),
            ("labels/*/*/n*~*.h5", self.labelled, (1, datasets), (2, sources)),
            ("dynamics/*/start.extxyz", self.start, (1, tests)),
            ("dynamics/*/**/outcome.json", self.outcome, (1, tests)),
            ("evaluations/target~*/**/metrics.json", self.evaluation),
        ):
            for file in sorted(self.results.glob(pattern)):
                parts = [*file.relative_to(self.results).parts[:-1], file.stem]
                if all(parts[i] in known for i, known in names):
                    named = [parts[i] for i, _ in names]
                    yield *_described(file, self.results), partial(check, file, *named)
        for row in grid.itertuples():
            folder = self.results / row.path
            files = [folder / name for name in ("metrics.json", "model.ckpt", "curve.csv")]
            if files[0].is_file():
                yield row.path, files, partial(self.run, row, folder)

    # What products have in common.

    def _files_of(self, source: str) -> dict[str, str]:
        entry = self.config["sources"][source]
        return parameter_files(Source.from_entry(source, entry), installed=False)

    def source(self, name: str, made: Mapping[str, Any]) -> None:
        """Compare a label source with the record of what it was used for."""
        wanted = Source.from_entry(name, self.config["sources"][name])
        recorded = made["parameter_files_sha256"]
        for key in DECISIVE_KEYS:
            if plain(made[key], recorded) != plain(getattr(wanted, key), recorded):
                raise UserError(f"it was made with another {key} of the source '{name}'")
        for file, content in self.files_of(name).items():
            if recorded.get(file, content) != content:
                raise UserError(f"{file} was another file there")
        self.energies(name, made["isolated_atoms_ev"])

    def energies(self, name: str, made: Mapping[str, float]) -> None:
        file = present(self.results / f"labels/references/{name}.json")
        known = read_reference(file)
        if any(known.get(element) != energy for element, energy in made.items()):
            raise UserError(f"it was made with other isolated-atom energies than those of {file}")

    def same_files(self, read: Iterable[tuple[Path, str]]) -> None:
        """Compare the SHA-256 of files that were read with those that are here."""
        for path, made in read:
            if path.is_file() and made != self.sha256(path):
                raise UserError(f"{path} was another file there")

    def made_of(self, dataset: str, made: str) -> None:
        data = self.results / "data" / dataset / "prepared.h5"
        equal(f"other structures than {data}", made, self.store(data)[0])

    def of_model(self, made: dict[str, Any], run: list[str]) -> None:
        model = self.results.joinpath("runs", *run, "model.ckpt")
        if model.is_file() and made["model_sha256"] != self.sha256(model):
            raise UserError("it is of another model")

    # The kinds of products.

    def stamp(self, file: Path) -> None:
        try:
            retrieved = is_retrieved(self.config, file.stem)
        except (KeyError, StopIteration):
            return
        if retrieved:
            made = record(file)
            wanted = {identity_of(remote) for remote in remote_files(self.config, file.stem)}
            equal("other files", made["wanted"], sorted(wanted))
            self.same_files((Path(entry["path"]), entry["sha256"]) for entry in made["files"])

    def reference(self, file: Path, name: str) -> None:
        made = record_beside(file)
        self.source(name, made)
        missing = set(self.config["sources"][name]["elements"]) - made["isolated_atoms_ev"].keys()
        if missing:
            raise UserError(f"it lacks {', '.join(sorted(missing))}")

    def trajectory(self, file: Path, name: str) -> None:
        generate = self.config["datasets"][name].get("generate")
        if generate and file.stem in {run.name for run in trajectories(generate)}:
            made = record_beside(file)
            equal_keys(made["protocol"], config_view(self.config, f"generate~{name}")["generate"])
            equal("the settings of another trajectory", made["run"], file.stem)
            self.source(generate["source"], made)

    def prepared(self, file: Path, name: str) -> None:
        made, wanted = self.store(file)[1], dataset_view(self.config, name)
        apart = ("path", *ADDRESS_KEYS)
        equal_keys(
            *({k: v for k, v in s.items() if k not in apart} for s in (made["settings"], wanted))
        )
        if paths := wanted.get("path"):
            read = made["origin"]["files"]
            here = [Path(path) for path in ([paths] if isinstance(paths, str) else paths)]
            equal("other files", [Path(f["path"]).name for f in read], [p.name for p in here])
            self.same_files(zip(here, (entry["sha256"] for entry in read), strict=True))
        if source := self.config["datasets"][name]["energy_reference"].get("source"):
            self.energies(source, made["energy_reference"]["energies"])

    def chunk(self, file: Path, name: str) -> None:
        made = record_beside(file)
        self.made_of(name, made["prepared"])
        if file.stem != EVAL:
            equal("another chunk_size", made["chunk_size"], self.config["labelling"]["chunk_size"])

    def labels(self, file: Path, dataset: str, source: str) -> None:
        made = record_beside(file)
        self.source(source, made)
        cut = self.results / "data" / dataset / "chunks" / file.name
        if cut.is_file():
            equal(f"other structures than {cut}", made["structures_sha256"], self.sha256(cut))

    def labelled(self, file: Path, dataset: str, source: str) -> None:
        made = self.store(file)[1]
        self.made_of(dataset, made["prepared"]["checksum"])
        entry = self.config["sources"][source]
        if "published_labels" in entry:
            read, wanted = made["published"], entry["files"]
            equal("other files", [f["path"] for f in read], [f["path"] for f in wanted])
            self.same_files((Path(f["path"]), f["sha256"]) for f in read)
        elif "calculator" in entry:
            self.ways(source, made["labels"])
        if "energy_zero" in made:
            zero = fitted_zero(self.config["datasets"][dataset]) or "none"
            equal("another zero of energy", made["energy_zero"]["kind"], zero)

    def ways(self, source: str, ways: list[dict[str, Any]]) -> None:
        for made in ways or [{}]:
            self.source(source, made)

    def start(self, file: Path, test: str) -> None:
        made, wanted = record_beside(file), self.config["dynamics"][test]["start"]
        if "file" in wanted:
            path = Path(wanted["file"])
            self.same_files([(path, made["sha256"])])
            wanted = {**wanted, "file": path.name}
        else:
            self.made_of(wanted["dataset"], made["data_checksum"])
        equal_keys(made["start"], wanted)

    def outcome(self, file: Path, test: str) -> None:
        made = record(file)
        equal_keys(made["protocol"], config_view(self.config, f"dynamics~{test}")["dynamics"])
        self.of_model(made, file.relative_to(self.results).parts[2:-2])
        start = present(self.results / "dynamics" / test / "start.extxyz")
        equal(f"another start than {start}", made["start_sha256"], self.sha256(start))

    def evaluation(self, file: Path) -> None:
        target, *of = file.relative_to(self.results).parts[1:-1]
        target, source = target.removeprefix("target~"), of[0].removeprefix("source~")
        if target not in self.config["datasets"]:
            return
        made = record(file)
        if len(of) > 1:
            self.of_model(made, of)
        elif "calculator" in self.config["sources"].get(source, {}):
            self.ways(source, made["labels"])
        sets = [self.results / "data" / target / "prepared.h5"]
        if labeller := label_source(self.config["datasets"][target]):
            # All have the same test set.
            sets = sorted((self.results / "labels" / target / labeller).glob("n~*.h5")) or sets
        if made["data_checksum"] not in [self.store(file)[0] for file in sets]:
            raise UserError(f"it is on other data than {sets[0]}")

    def run(self, row: Any, folder: Path) -> None:
        """Compare a training run of the grid, or published weights in its place."""
        made = record(folder / "metrics.json", "model.ckpt")
        # Only the structures of a pre-training are transformed.
        pretrains = row.kind == "pretrain"
        name = row.transform if pretrains else "none"
        view = f"pretrain~{name}" if pretrains else row.kind
        settings = settings_of(config_view(self.config, view), row.kind)
        transform = dataclasses.asdict(Transform.from_settings(name, settings.transforms))
        if row.imported:
            keys = ("structures", "source", "transform", "npre", "seed")
            entries = self.config["pretrained_weights"]
            weights = next(w for w in entries if all(w[key] == getattr(row, key) for key in keys))
            file, wanted = Path(weights["file"]), weights.get("sha256", made["sha256"])
            if "sha256" not in weights and file.is_file():
                wanted = self.sha256(file)
            if (made["imported"], made["sha256"]) != (file.name, wanted):
                raise UserError(f"it holds other published weights than {file}")
            neighbours = weights["avg_num_neighbors"]
            identity = import_identity(wanted, neighbours, settings, transform)
            cause = "it was imported with other settings"
        else:
            data = self.training_set(row)
            checksum = self.store(data)[0]
            if made["data_checksum"] != checksum:
                raise UserError(f"it was trained on other data than {data}")
            parent = row.parent and self.sha256(present(self.results / row.parent / "model.ckpt"))
            run = (row.kind, row.npre if pretrains else row.n, row.seed)
            identity = run_identity(run, settings, transform, checksum, parent or None)
            also = " or from another model" if parent else ""
            cause = f"it was trained with other settings{also}"
        if made["config_hash"] != digest(identity):
            raise UserError(cause)

    def training_set(self, row: Any) -> Path:
        labels = self.results / "labels"
        if row.kind == "pretrain":
            return labels / row.structures / row.source / f"npre~{row.npre}.h5"
        if source := label_source(self.config["datasets"][row.target]):
            return labels / row.target / source / f"n~{row.n}.h5"
        return self.results / "data" / row.target / "prepared.h5"


def _store(file: Path) -> tuple[str, dict[str, Any]]:
    """Return the checksum of a store and what it was made with."""
    with Store(present(file)) as store:
        return store.checksum, store.provenance
