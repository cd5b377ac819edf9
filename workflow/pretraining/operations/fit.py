"""Which products of a study fit the configuration: each by its own record of what it was made with.

A product that cannot say so does not fit.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from pretraining.data.energy_references import read_reference
from pretraining.data.retrieve import identity_of, is_retrieved, remote_files
from pretraining.data.store import Store
from pretraining.labels.chunks import EVAL
from pretraining.operations.compare import (
    equal,
    equal_keys,
    plain,
    present,
    record_for,
    same_files,
    sha256,
)
from pretraining.operations.fit_runs import check_run
from pretraining.runtime.errors import UserError
from pretraining.runtime.records import OUTPUTS, check_output, record_of
from pretraining.study.generation import trajectories
from pretraining.study.queries import fitted_zero, label_source
from pretraining.study.sources import DECISIVE_KEYS, Source, parameter_files
from pretraining.study.views import ADDRESS_KEYS, config_view, dataset_view


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
        If there are no results.
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
        found.setdefault((what, why), []).extend(file for file in files if file.is_file())
    return [Refusal(what, why, files) for (what, why), files in found.items()]


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
    """The products of a study: what each is, its files, and a function that raises its fault."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.results = Path(config["results"])
        self._stores: dict[Path, Any] = {}
        self._sources: dict[str, Any] = {}

    def products(self, grid: pd.DataFrame) -> Iterator[tuple[str, list[Path], Callable[[], None]]]:
        """Yield what is there, of the names that the configuration has."""
        datasets, sources = self.config["datasets"], self.config["sources"]
        calculated = {name for name, source in sources.items() if "calculator" in source}
        for pattern, check, names in (
            ("retrieved/*.json", self.stamp, []),
            ("labels/references/*.json", self.reference, [(-1, calculated)]),
            ("data/*/trajectories/*.extxyz", self.trajectory, [(1, datasets)]),
            ("data/*/prepared.h5", self.prepared, [(1, datasets)]),
            ("data/*/chunks/*.extxyz", self.chunk, [(1, datasets)]),
            ("labels/*/*/chunks/*.extxyz", self.labels, [(1, datasets), (2, calculated)]),
            ("labels/*/*/n*~*.h5", self.labelled, [(1, datasets), (2, sources)]),
            ("dynamics/*/start.extxyz", self.start, [(1, self.config["dynamics"])]),
            ("dynamics/*/**/outcome.json", self.outcome, [(1, self.config["dynamics"])]),
            ("evaluations/target~*/**/metrics.json", self.evaluation, []),
        ):
            for file in sorted(self.results.glob(pattern)):
                parts = [*file.relative_to(self.results).parts[:-1], file.stem]
                if all(parts[i] in known for i, known in names):
                    what, files = _described(file, self.results)
                    yield what, files, partial(check, file)
        for row in grid.itertuples():
            folder = self.results / row.path
            files = [folder / name for name in ("metrics.json", "model.ckpt", "curve.csv")]
            if files[0].is_file():
                yield row.path, files, partial(check_run, row, self.config, self.store)

    def store(self, file: Path) -> tuple[str, dict[str, Any]]:
        """Return the checksum of a store and what it was made with."""
        if file not in self._stores:
            try:
                with Store(present(file)) as store:
                    self._stores[file] = store.checksum, store.provenance
            except UserError as error:
                self._stores[file] = error
        if isinstance(found := self._stores[file], UserError):
            raise found
        return found

    def source(self, name: str, made: Mapping[str, Any]) -> None:
        """Compare a label source with the record of what it was used for."""
        if name not in self._sources:
            source = Source.from_entry(name, self.config["sources"][name])
            self._sources[name] = source, parameter_files(source, installed=False)
        source, here = self._sources[name]
        recorded = made["parameter_files_sha256"]
        names = {Path(file).name for file in recorded}
        for key in DECISIVE_KEYS:
            wanted = json.loads(json.dumps(getattr(source, key)))
            if plain(made[key], names) != plain(wanted, names):
                raise UserError(f"it was made with another {key} of the source '{name}'")
        for file, content in here.items():
            if recorded.get(file, content) != content:
                raise UserError(f"{file} was another file there")
        self.energies(name, made["isolated_atoms_ev"])

    def energies(self, name: str, made: Mapping[str, float]) -> None:
        file = present(self.results / f"labels/references/{name}.json")
        known = read_reference(file)
        if any(known.get(element) != energy for element, energy in made.items()):
            raise UserError(f"it was made with other isolated-atom energies than those of {file}")

    def stamp(self, file: Path) -> None:
        item = file.stem
        try:
            retrieved = is_retrieved(self.config, item)
        except (KeyError, StopIteration):
            return
        if retrieved:
            made = record_for(file)
            wanted = {identity_of(remote) for remote in remote_files(self.config, item)}
            equal("other files", made["wanted"], sorted(wanted))
            here = {entry["path"]: Path(entry["path"]) for entry in made["files"]}
            same_files({entry["path"]: entry["sha256"] for entry in made["files"]}, here)

    def reference(self, file: Path) -> None:
        made, name = record_for(record_of(file), file), file.stem
        self.source(name, made)
        missing = set(self.config["sources"][name]["elements"]) - made["isolated_atoms_ev"].keys()
        if missing:
            raise UserError(f"it lacks {', '.join(sorted(missing))}")

    def trajectory(self, file: Path) -> None:
        name = file.parts[-3]
        generate = self.config["datasets"][name].get("generate")
        if generate and file.stem in {run.name for run in trajectories(generate)}:
            made = record_for(record_of(file), file)
            wanted = config_view(self.config, f"generate~{name}")["generate"]
            equal_keys(made["protocol"], wanted)
            equal("the settings of another trajectory", made["run"], file.stem)
            self.source(generate["source"], made)

    def prepared(self, file: Path) -> None:
        made, name = self.store(file)[1], file.parent.name
        wanted = dataset_view(self.config, name)
        apart = ("path", *ADDRESS_KEYS)
        equal_keys(
            *({k: v for k, v in s.items() if k not in apart} for s in (made["settings"], wanted))
        )
        if "path" in wanted:
            paths = [wanted["path"]] if isinstance(wanted["path"], str) else wanted["path"]
            read = made["origin"]["files"]
            here = {Path(path).name: Path(path) for path in paths}
            equal("other files", [Path(entry["path"]).name for entry in read], list(here))
            same_files({Path(entry["path"]).name: entry["sha256"] for entry in read}, here)
        if source := self.config["datasets"][name]["energy_reference"].get("source"):
            self.energies(source, made["energy_reference"]["energies"])

    def chunk(self, file: Path) -> None:
        made = record_for(record_of(file), file)
        self.made_of(file.parts[-3], made["prepared"])
        if file.stem != EVAL:
            equal("another chunk_size", made["chunk_size"], self.config["labelling"]["chunk_size"])

    def labels(self, file: Path) -> None:
        made, (dataset, source) = record_for(record_of(file), file), file.parts[-4:-2]
        self.source(source, made)
        cut = self.results / "data" / dataset / "chunks" / file.name
        if cut.is_file():
            equal(f"other structures than {cut}", made["structures_sha256"], sha256(cut))

    def labelled(self, file: Path) -> None:
        made, (dataset, source) = self.store(file)[1], file.parts[-3:-1]
        self.made_of(dataset, made["prepared"]["checksum"])
        if "calculator" in self.config["sources"][source]:
            self.ways(source, made["labels"])
            zero = fitted_zero(self.config["datasets"][dataset]) or "none"
            equal("another zero of energy", made["energy_zero"]["kind"], zero)

    def made_of(self, dataset: str, made: str) -> None:
        data = self.results / "data" / dataset / "prepared.h5"
        equal(f"other structures than {data}", made, self.store(data)[0])

    def ways(self, source: str, ways: list[dict[str, Any]]) -> None:
        for made in ways or [{}]:
            self.source(source, made)

    def start(self, file: Path) -> None:
        made = record_for(record_of(file), file)
        wanted = self.config["dynamics"][file.parent.name]["start"]
        if "file" in wanted:
            path = Path(wanted["file"])
            same_files({path.name: made["sha256"]}, {path.name: path})
            wanted = {**wanted, "file": path.name}
        else:
            self.made_of(wanted["dataset"], made["data_checksum"])
        equal_keys(made["start"], wanted)

    def outcome(self, file: Path) -> None:
        made = record_for(file)
        for name in made[OUTPUTS]:
            check_output(present(file.with_name(name)), file)
        test, *model = file.relative_to(self.results).parts[1:-2]
        equal_keys(made["protocol"], config_view(self.config, f"dynamics~{test}")["dynamics"])
        self.of_model(made, model)
        start = present(self.results / "dynamics" / test / "start.extxyz")
        equal(f"another start than {start}", made["start_sha256"], sha256(start))

    def of_model(self, made: dict[str, Any], run: list[str]) -> None:
        model = self.results.joinpath("runs", *run, "model.ckpt")
        if model.is_file() and made["model_sha256"] != sha256(model):
            raise UserError("it is of another model")

    def evaluation(self, file: Path) -> None:
        target, *of = file.relative_to(self.results).parts[1:-1]
        target, source = target.removeprefix("target~"), of[0].removeprefix("source~")
        if target not in self.config["datasets"]:
            return
        made = record_for(file)
        if len(of) > 1:
            self.of_model(made, of)
        elif "calculator" in self.config["sources"].get(source, {}):
            self.ways(source, made["labels"])
        data = self.results / "data" / target / "prepared.h5"
        sets = [data]
        if labeller := label_source(self.config["datasets"][target]):
            # All have the same test set.
            sets = sorted((self.results / "labels" / target / labeller).glob("n~*.h5")) or sets
        if made["data_checksum"] not in [self.store(file)[0] for file in sets]:
            raise UserError(f"it is on other data than {sets[0]}")
