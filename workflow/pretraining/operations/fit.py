"""Which products of a study fit the configuration: each by its own record of what it was made with.

A product that cannot say so does not fit.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import pandas as pd

from pretraining.data.energy_references import read_reference
from pretraining.data.retrieve import identity_of, is_retrieved, remote_files
from pretraining.data.store import Store
from pretraining.data.transforms import Transform
from pretraining.labels.chunks import EVAL
from pretraining.runtime.errors import UserError
from pretraining.runtime.files import digest, file_sha256
from pretraining.runtime.records import OUTPUTS, check_output, read_record, record_of
from pretraining.study.generation import trajectories
from pretraining.study.queries import fitted_zero, label_source
from pretraining.study.settings import Settings, import_identity, run_identity, settings_of
from pretraining.study.sources import DECISIVE_KEYS, Source, parameter_files
from pretraining.study.views import ADDRESS_KEYS, config_view, dataset_view

sha256 = cache(file_sha256)


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


def _record(file: Path, of: Path | None = None) -> dict[str, Any]:
    """Return a record, which must describe the file `of`, if one is given."""
    if not file.is_file():
        raise UserError(f"it does not say what it was made with: no {file.name}")
    record = read_record(file)
    if of is not None:
        if not of.is_file():
            raise UserError(f"its {of.name} is missing")
        record[OUTPUTS][of.name]
        check_output(of, file)
    return record


def _equal(what: str, made: Any, wanted: Any) -> None:
    if made != json.loads(json.dumps(wanted)):
        raise UserError(f"it was made with {what}")


def _equal_keys(made: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for key in {**made, **wanted}:
        _equal(f"another {key}", made.get(key), wanted.get(key))


def _present(file: Path) -> Path:
    if not file.is_file():
        raise UserError(f"{file} is missing, which it was made from: copy that as well")
    return file


def _plain(value: Any, names: set[str]) -> Any:
    """Return arguments of a source with files of these names without their folders."""
    if isinstance(value, Mapping):
        return {key: _plain(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, names) for item in value]
    if isinstance(value, str):
        if Path(value).name in names:
            return Path(value).name
        words = [(word, Path(word).name) for word in value.split()]
        return " ".join(name if name in names else word for word, name in words)
    return value


def _described(file: Path, results: Path) -> tuple[str, list[Path]]:
    """Return the name of a product for people, and the files that one job makes."""
    path = file.relative_to(results)
    if file.name in ("outcome.json", "metrics.json"):
        return str(path.parent), list(file.parent.iterdir())
    if file.name == "prepared.h5":
        return f"dataset {file.parent.name}", [file, *file.parent.glob("summary.*")]
    is_part = file.parent.name in ("chunks", "trajectories")
    return str(path.parent if is_part else path), [file, record_of(file), file.with_suffix(".csv")]


def _same_files(made: Mapping[str, str], here: Mapping[str, Path]) -> None:
    """Raise a `UserError` if a file that is here is not the one that was read, by its name."""
    for name, path in here.items():
        if path.is_file() and made.get(name) != sha256(path):
            raise UserError(f"{path} was another file there")


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
                yield row.path, files, partial(self.run, row)

    def store(self, file: Path) -> tuple[str, dict[str, Any]]:
        """Return the checksum of a store and what it was made with."""
        if file not in self._stores:
            try:
                with Store(_present(file)) as store:
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
            if _plain(made[key], names) != _plain(wanted, names):
                raise UserError(f"it was made with another {key} of the source '{name}'")
        for file, content in here.items():
            if recorded.get(file, content) != content:
                raise UserError(f"{file} was another file there")
        self.energies(name, made["isolated_atoms_ev"])

    def energies(self, name: str, made: Mapping[str, float]) -> None:
        file = _present(self.results / f"labels/references/{name}.json")
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
            made = _record(file)
            wanted = {identity_of(remote) for remote in remote_files(self.config, item)}
            _equal("other files", made["wanted"], sorted(wanted))
            here = {entry["path"]: Path(entry["path"]) for entry in made["files"]}
            _same_files({entry["path"]: entry["sha256"] for entry in made["files"]}, here)

    def reference(self, file: Path) -> None:
        made, name = _record(record_of(file), file), file.stem
        self.source(name, made)
        missing = set(self.config["sources"][name]["elements"]) - made["isolated_atoms_ev"].keys()
        if missing:
            raise UserError(f"it lacks {', '.join(sorted(missing))}")

    def trajectory(self, file: Path) -> None:
        name = file.parts[-3]
        generate = self.config["datasets"][name].get("generate")
        if generate and file.stem in {run.name for run in trajectories(generate)}:
            made = _record(record_of(file), file)
            wanted = config_view(self.config, f"generate~{name}")["generate"]
            _equal_keys(made["protocol"], wanted)
            _equal("the settings of another trajectory", made["run"], file.stem)
            self.source(generate["source"], made)

    def prepared(self, file: Path) -> None:
        made, name = self.store(file)[1], file.parent.name
        wanted = dataset_view(self.config, name)
        apart = ("path", *ADDRESS_KEYS)
        _equal_keys(
            *({k: v for k, v in s.items() if k not in apart} for s in (made["settings"], wanted))
        )
        if "path" in wanted:
            paths = [wanted["path"]] if isinstance(wanted["path"], str) else wanted["path"]
            read = made["origin"]["files"]
            here = {Path(path).name: Path(path) for path in paths}
            _equal("other files", [Path(entry["path"]).name for entry in read], list(here))
            _same_files({Path(entry["path"]).name: entry["sha256"] for entry in read}, here)
        if source := self.config["datasets"][name]["energy_reference"].get("source"):
            self.energies(source, made["energy_reference"]["energies"])

    def chunk(self, file: Path) -> None:
        made = _record(record_of(file), file)
        self.made_of(file.parts[-3], made["prepared"])
        if file.stem != EVAL:
            _equal("another chunk_size", made["chunk_size"], self.config["labelling"]["chunk_size"])

    def labels(self, file: Path) -> None:
        made, (dataset, source) = _record(record_of(file), file), file.parts[-4:-2]
        self.source(source, made)
        cut = self.results / "data" / dataset / "chunks" / file.name
        if cut.is_file():
            _equal(f"other structures than {cut}", made["structures_sha256"], sha256(cut))

    def labelled(self, file: Path) -> None:
        made, (dataset, source) = self.store(file)[1], file.parts[-3:-1]
        self.made_of(dataset, made["prepared"]["checksum"])
        if "calculator" in self.config["sources"][source]:
            self.ways(source, made["labels"])
            zero = fitted_zero(self.config["datasets"][dataset]) or "none"
            _equal("another zero of energy", made["energy_zero"]["kind"], zero)

    def made_of(self, dataset: str, made: str) -> None:
        data = self.results / "data" / dataset / "prepared.h5"
        _equal(f"other structures than {data}", made, self.store(data)[0])

    def ways(self, source: str, ways: list[dict[str, Any]]) -> None:
        for made in ways or [{}]:
            self.source(source, made)

    def start(self, file: Path) -> None:
        made = _record(record_of(file), file)
        wanted = self.config["dynamics"][file.parent.name]["start"]
        if "file" in wanted:
            path = Path(wanted["file"])
            _same_files({path.name: made["sha256"]}, {path.name: path})
            wanted = {**wanted, "file": path.name}
        else:
            self.made_of(wanted["dataset"], made["data_checksum"])
        _equal_keys(made["start"], wanted)

    def outcome(self, file: Path) -> None:
        made = _record(file)
        for name in made[OUTPUTS]:
            check_output(_present(file.with_name(name)), file)
        test, *model = file.relative_to(self.results).parts[1:-2]
        _equal_keys(made["protocol"], config_view(self.config, f"dynamics~{test}")["dynamics"])
        self.of_model(made, model)
        start = _present(self.results / "dynamics" / test / "start.extxyz")
        _equal(f"another start than {start}", made["start_sha256"], sha256(start))

    def of_model(self, made: dict[str, Any], run: list[str]) -> None:
        model = self.results.joinpath("runs", *run, "model.ckpt")
        if model.is_file() and made["model_sha256"] != sha256(model):
            raise UserError("it is of another model")

    def evaluation(self, file: Path) -> None:
        target, *of = file.relative_to(self.results).parts[1:-1]
        target, source = target.removeprefix("target~"), of[0].removeprefix("source~")
        if target not in self.config["datasets"]:
            return
        made = _record(file)
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

    def run(self, row: Any) -> None:
        folder = self.results / row.path
        made = _record(folder / "metrics.json", folder / "model.ckpt")
        is_pretrained = row.kind == "pretrain"
        # Only the structures of a pre-training are transformed.
        name = row.transform if is_pretrained else "none"
        view = f"pretrain~{name}" if is_pretrained else row.kind
        settings = settings_of(config_view(self.config, view), row.kind)
        transform = dataclasses.asdict(Transform.from_settings(name, settings.transforms))
        if row.imported:
            self.imported(row, made, settings, transform)
            return
        data = self.training_set(row)
        checksum = self.store(data)[0]
        if made["data_checksum"] != checksum:
            raise UserError(f"it was trained on other data than {data}")
        initial = _present(self.results / row.parent / "model.ckpt") if row.parent else None
        identity = run_identity(
            (row.kind, row.npre if is_pretrained else row.n, row.seed),
            settings,
            transform,
            checksum,
            initial and sha256(initial),
        )
        if made["config_hash"] != digest(identity):
            cause = "settings or from another model" if initial else "settings"
            raise UserError(f"it was trained with other {cause}")

    def training_set(self, row: Any) -> Path:
        labels = self.results / "labels"
        if row.kind == "pretrain":
            return labels / row.structures / row.source / f"npre~{row.npre}.h5"
        source = label_source(self.config["datasets"][row.target])
        if source is None:
            return self.results / "data" / row.target / "prepared.h5"
        return labels / row.target / source / f"n~{row.n}.h5"

    def imported(
        self, row: Any, made: dict[str, Any], settings: Settings, transform: dict[str, Any]
    ) -> None:
        keys = ("structures", "source", "transform", "npre", "seed")
        entries = self.config["pretrained_weights"]
        weights = next(w for w in entries if all(w[key] == getattr(row, key) for key in keys))
        file, wanted = Path(weights["file"]), weights.get("sha256")
        if wanted is None and file.is_file():
            wanted = sha256(file)
        if made["imported"] != file.name or made["sha256"] != (wanted or made["sha256"]):
            raise UserError(f"it holds other published weights than {file}")
        neighbours = weights["avg_num_neighbors"]
        identity = import_identity(made["sha256"], neighbours, settings, transform)
        if made["config_hash"] != digest(identity):
            raise UserError("it was imported with other settings")
