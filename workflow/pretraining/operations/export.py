"""Export the models of a cell of the grid (its seeds) as a folder that needs NequIP only."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ase.io
import pandas as pd
import yaml
from ase import Atoms

from pretraining.data.energy_references import zero_of
from pretraining.data.store import Store
from pretraining.operations.model_card import model_card
from pretraining.runtime.cli import log
from pretraining.runtime.errors import UserError
from pretraining.runtime.files import file_sha256
from pretraining.runtime.records import read_record
from pretraining.study.queries import code_in
from pretraining.training import export as models
from pretraining.training.predictions import ENERGY, FORCE

ROOT = Path(__file__).resolve().parents[3]
TEXTS = ROOT / "workflow" / "report" / "export"
CELL = ("kind", "target", "structures", "transform", "source", "npre", "n")
N_CHECKED = 3  # structures of the test set with known energies


def finished_runs(grid: pd.DataFrame, results: Path) -> pd.DataFrame:
    """Return the rows of the grid with a model and finite errors, the best validation first.

    Further columns: ``metrics``, the run's record, ``val_force``, ``test_energy``, ``test_force``.
    """
    rows = []
    for row in grid.to_dict("records"):
        record = results / row["path"] / "metrics.json"
        if record.is_file() and record.with_name("model.ckpt").is_file():
            made = read_record(record)
            errors = made["val"][FORCE], made["test"][ENERGY], made["test"][FORCE]
            if None not in errors:
                rows.append([*row.values(), made, *errors])
    columns = [*grid, "metrics", "val_force", "test_energy", "test_force"]
    return pd.DataFrame(rows, columns=columns).sort_values(["val_force", "path"])


def best_cell(runs: pd.DataFrame, target: str) -> pd.DataFrame:
    """Return the runs of the cell with the lowest mean force error on the validation set."""
    trained = runs[runs["target"] == target]
    if trained.empty:
        there = ", ".join(sorted(set(runs["target"]) - {""})) or "none"
        raise UserError(f"no finished run on the target '{target}' (targets with runs: {there})")
    cells = trained.groupby([*CELL])
    return cells.get_group(cells["val_force"].mean().idxmin())


def cell_of_run(runs: pd.DataFrame, run: Path, results: Path) -> pd.DataFrame:
    """Return the runs of a run's cell; the run is named by its folder, below the results or not."""
    wanted = (run.resolve(), (results / run).resolve())
    for _, cell in runs.groupby([*CELL]):
        if any((results / path).resolve() in wanted for path in cell["path"]):
            return cell
    raise UserError(
        f"--run {run}: the configuration has no such run that has finished (--config, --results): "
        "give a run's folder"
    )


def energy_zero(results: Path, run: Mapping[str, Any]) -> dict[str, float]:
    """Return the energy of an atom by element, eV, to which a run's energies are relative."""
    if "energy_zero" in run["metrics"]:
        return run["metrics"]["energy_zero"]
    # Runs did not always record it: that of the very set that it was trained on.
    with Store(_prepared(results, run)) as store:
        if store.checksum == run["metrics"]["data_checksum"]:
            return zero_of(store.provenance)
    raise UserError(f"{run['path']} does not say what its energies are relative to: train it again")


def export(
    config: Mapping[str, Any],
    results: Path,
    runs: pd.DataFrame,
    cell: pd.DataFrame,
    out: Path,
    compiled: str = "best",
    device: str = "cpu",
) -> None:
    """Write the folder of a cell of :func:`finished_runs`, and hold its models against the runs'.

    `compiled` names the members to compile: ``best``, ``all`` or ``none``.
    """
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"--out: {out} is not empty: remove it, or give another folder")
    if compiled != "none":
        models.check_compiler()
    trust = tuple(code_in(config["network"]))
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        made = Path(scratch, out.name)
        shutil.copytree(TEXTS, made, ignore=shutil.ignore_patterns("*.md", "*.lammps"))
        members = {}
        for run in cell.to_dict("records"):
            # A direct training and a pre-training have but one seed.
            name = f"preseed{run['preseed']}-" if run["kind"] == "finetune" else ""
            members[f"{name}seed{run['seed']}"] = run
        first, *_ = members
        structures = _structures(results, members[first], made / "check.extxyz")
        for name, run in members.items():
            path, package = results / run["path"] / "model.ckpt", made / f"{name}{models.PACKAGE}"
            zero = energy_zero(results, run)
            models.write_package(path, zero, package, trust)
            expected = models.absolute_predictions(path, zero, structures, trust)
            for atoms, predicted in zip(structures, expected, strict=True):
                atoms.info[f"{name}_energy"] = predicted.get_potential_energy()
                atoms.arrays[f"{name}_forces"] = predicted.get_forces()
            if compiled == "all" or (compiled == "best" and name == first):
                log(f"compiling {name} for ASE and LAMMPS: some minutes")
                for target in ("ase", "pair_nequip"):
                    file = made / f"{name}-{target}{models.COMPILED}"
                    models.compile_package(package, file, target, device)
        ase.io.write(made / "check.extxyz", structures, format="extxyz")
        if compiled != "none":
            write_lammps(made, structures[0], members[first]["metrics"]["elements"], first)
        packages = (f"{name}=={version(name).partition('+')[0]}\n" for name in ("torch", "nequip"))
        _write(made / "requirements.txt", "".join(packages))
        shutil.copy(ROOT / "requirements.lock", made)
        _write(made / "configuration.yaml", yaml.safe_dump(dict(config), sort_keys=False))
        zero = energy_zero(results, members[first])
        _write(made / "MODEL_CARD.md", model_card(config, results, runs, members, zero, device))
        _check(made, device)
        files = sorted(made.iterdir())
        _write(made / "SHA256SUMS", "".join(f"{file_sha256(f)}  {f.name}\n" for f in files))
        os.replace(made, out)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _check(folder: Path, device: str) -> None:
    """Run the example of an export, which compares its models with the known energies."""
    command = [sys.executable, folder / "ase_example.py", "--device", device]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = " ".join(done.stdout.splitlines()[-1:] + done.stderr.splitlines()[-1:])
        raise UserError(f"the exported models are not those of the runs ({reason}): not exported")


def _prepared(results: Path, run: Mapping[str, Any]) -> Path:
    return results / "data" / (run["target"] or run["structures"]) / "prepared.h5"


def _structures(results: Path, run: Mapping[str, Any], path: Path) -> list[Atoms]:
    """Return the first structures of the test set, as they are read again from `path`."""
    with Store(_prepared(results, run)) as store:
        frames = [store[i] for i in store.indices("test")[:N_CHECKED]]
    for atoms in frames:
        atoms.calc, atoms.info = None, {"index": atoms.info["index"]}
        if run["transform"] != "none" and not run["target"]:
            raise UserError(f"{run['path']}: a model of transformed structures is not exported")
    ase.io.write(path, frames, format="extxyz")
    return ase.io.read(path, ":")


def write_lammps(folder: Path, atoms: Atoms, elements: list[str], name: str) -> None:
    """Write the input of LAMMPS and its structure."""
    atoms = atoms.copy()
    if not atoms.cell.volume:
        atoms.center(vacuum=10.0)
    options = {"specorder": elements, "masses": True, "atom_style": "atomic", "units": "metal"}
    ase.io.write(folder / "check.data", atoms, format="lammps-data", **options)
    values = {
        "torch": version("torch").partition("+")[0],
        "elements": " ".join(elements),
        "boundary": " ".join("p" if periodic else "m" for periodic in atoms.pbc),
        "model": f"{name}-pair_nequip{models.COMPILED}",
    }
    text = (TEXTS / "in.lammps").read_text(encoding="utf-8")
    _write(folder / "in.lammps", text.format(**values))
