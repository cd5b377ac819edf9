"""The same structures in the files of many programs give the same prepared set."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect

from pretraining.data.prepare import prepare
from pretraining.data.readers import read_files
from pretraining.data.store import Store
from pretraining.runtime.errors import UserError
from pretraining.study.queries import structure_files

LABELS = {"energy": "energy", "forces": "forces"}


def made(n: int = 10) -> list[Atoms]:
    """Return strained and rattled cells of silicon carbide, numbers as short as VASP writes."""
    rng = np.random.default_rng(0)
    frames = []
    for i in range(n):
        atoms = bulk("SiC", "zincblende", a=4.4, cubic=True)
        atoms = atoms[np.argsort(-atoms.numbers, kind="stable")]
        atoms.cell = np.round(atoms.cell @ (np.eye(3) + rng.normal(0, 0.02, (3, 3))), 5)
        atoms.positions = np.round(atoms.positions + rng.normal(0, 0.05, (8, 3)), 5)
        forces = np.round(rng.normal(size=(8, 3)), 6)
        labels = {"energy": round(-60 + rng.normal(), 6), "forces": forces}
        labels["free_energy"] = labels["energy"] - 0.25
        atoms.calc = SinglePointCalculator(atoms, **labels)
        atoms.info["place"] = i
        frames.append(atoms)
    return frames


def rows(array) -> str:
    return "\n".join("  ".join(f"{x:.16g}" for x in row) for row in array)


def write_outcar(path: Path, frames: list[Atoms]) -> None:
    """Write what VASP writes of a calculation of several ionic steps, as far as it is read."""
    text = " POTCAR:    PAW_PBE Si 05Jan2001\n POTCAR:    PAW_PBE C_s 06Sep2000\n" * 2
    text += "   ions per type =               4   4\n"
    for step, atoms in enumerate(frames):
        forces, results = atoms.get_forces(), atoms.calc.results
        text += f"--------- Iteration {step + 1:6}(   1)  -------\n"
        text += "      direct lattice vectors                 reciprocal lattice vectors\n"
        text += rows(np.hstack([atoms.cell.array, np.linalg.inv(atoms.cell.array).T])) + "\n\n"
        text += " POSITION                                       TOTAL-FORCE (eV/Angst)\n ----\n"
        text += rows(np.hstack([atoms.positions, forces])) + "\n ----\n"
        text += "  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)\n  ----\n"
        text += f"  free  energy   TOTEN  = {results['free_energy']:.8f} eV\n\n"
        text += f"  energy  without entropy= -1.0  energy(sigma->0) = {results['energy']:.8f}\n"
    path.write_text(text)


def write_vasprun(path: Path, frames: list[Atoms]) -> None:
    """Write the parts of a vasprun.xml that are read."""

    def array(name, values):
        inner = "".join(f"<v>{line}</v>" for line in rows(values).split("\n"))
        return f'<varray name="{name}">{inner}</varray>'

    def structure(atoms, name=""):
        cell, places = atoms.cell.array, atoms.cell.scaled_positions(atoms.positions)
        crystal = f"<crystal>{array('basis', cell)}</crystal>"
        return f"<structure{name}>{crystal}{array('positions', places)}</structure>"

    symbols = "".join(f"<rc><c>{s}</c><c>1</c></rc>" for s in frames[0].symbols)
    text = '<modeling><kpoints><varray name="kpointlist"/></kpoints><atominfo><array name="atoms">'
    text += f"<set>{symbols}</set></array></atominfo>" + structure(frames[0], ' name="initialpos"')
    for atoms in frames:
        energies = "".join(
            f'<i name="{name}">{atoms.calc.results[key]:.8f}</i>'
            for name, key in (("e_fr_energy", "free_energy"), ("e_0_energy", "energy"))
        )
        text += f"<calculation><scstep><energy>{energies}</energy></scstep>{structure(atoms)}"
        text += array("forces", atoms.get_forces()) + f"<energy>{energies}</energy></calculation>"
    path.write_text(f"{text}</modeling>")


def pymatgen(atoms: Atoms) -> dict:
    """Return a structure as pymatgen writes it."""
    sites = [
        {"species": [{"element": s, "occu": 1.0}], "abc": abc.tolist(), "label": s}
        for s, abc in zip(atoms.symbols, atoms.cell.scaled_positions(atoms.positions), strict=True)
    ]
    lattice = {"matrix": atoms.cell.array.tolist(), "pbc": [True, True, True]}
    return {"@module": "pymatgen.core.structure", "lattice": lattice, "sites": sites}


def labels_of(atoms: Atoms) -> dict:
    return {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces().tolist()}


def write_mlearn(path: Path, frames: list[Atoms]) -> None:
    """Write the JSON of mlearn, with its virial stress, which nothing reads."""
    entries = [
        {
            "structure": pymatgen(atoms),
            "num_atoms": len(atoms),
            "group": "AIMD",
            "outputs": labels_of(atoms) | {"virial_stress": [0.0] * 6},
            "place": atoms.info["place"],
        }
        for atoms in frames
    ]
    path.write_text(json.dumps(entries))


def write_nested(path: Path, frames: list[Atoms]) -> None:
    """Write JSON as of MPtrj: mappings of mappings, labels beside the structure."""
    tree = {
        f"mp-{i}": {f"mp-{i}-0": {"structure": pymatgen(atoms), "mp_id": i, **labels_of(atoms)}}
        for i, atoms in enumerate(frames)
    }
    path.write_text(json.dumps(tree))


def write_sites(path: Path, frames: list[Atoms]) -> None:
    """Write structures that hold their labels as properties, compressed."""
    entries = []
    for atoms in frames:
        entry = pymatgen(atoms) | {"properties": {"energy": atoms.get_potential_energy()}}
        for site, force in zip(entry["sites"], atoms.get_forces().tolist(), strict=True):
            site["properties"] = {"forces": force}
        entries.append(entry)
    path.write_bytes(gzip.compress(json.dumps(entries).encode()))


def arrays_of(frames: list[Atoms]) -> dict[str, np.ndarray]:
    return {
        "coord": np.array([atoms.positions.ravel() for atoms in frames]),
        "box": np.array([atoms.cell.array.ravel() for atoms in frames]),
        "energy": np.array([atoms.get_potential_energy() for atoms in frames]),
        "force": np.array([atoms.get_forces().ravel() for atoms in frames]),
    }


def write_deepmd(path: Path, frames: list[Atoms]) -> None:
    """Write a deepmd system of two packed sets."""
    path.mkdir()
    (path / "type_map.raw").write_text("C\nSi\n")
    np.savetxt(path / "type.raw", [int(s == "Si") for s in frames[0].symbols], fmt="%d")
    for number, part in enumerate((frames[:4], frames[4:])):
        (path / f"set.{number:03}").mkdir()
        for name, values in arrays_of(part).items():
            np.save(path / f"set.{number:03}" / f"{name}.npy", values)


def write_raw(path: Path, frames: list[Atoms]) -> None:
    """Write a deepmd system that is not packed."""
    path.mkdir()
    (path / "type_map.raw").write_text("C Si")
    np.savetxt(path / "type.raw", [int(s == "Si") for s in frames[0].symbols], fmt="%d")
    for name, values in arrays_of(frames).items():
        np.savetxt(path / f"{name}.raw", values)


def write_mixed(path: Path, frames: list[Atoms]) -> None:
    """Write a deepmd system of mixed types, with a place that no atom has."""
    write_deepmd(path, frames)
    np.savetxt(path / "type.raw", [0] * 9, fmt="%d")
    for file in path.glob("set.*"):
        n = len(np.load(file / "energy.npy"))
        for name in ("coord", "force"):
            array = np.load(file / f"{name}.npy").reshape(n, 8, 3)
            padded = np.concatenate([array, np.zeros((n, 1, 3))], axis=1)
            np.save(file / f"{name}.npy", padded.reshape(n, -1))
        np.save(file / "real_atom_types.npy", np.array([[1] * 4 + [0] * 4 + [-1]] * n))


def write_database(path: Path, frames: list[Atoms]) -> None:
    with connect(path) as rows:
        for atoms in frames:
            rows.write(atoms, place=atoms.info["place"])


def write_steps(path: Path, frames: list[Atoms]) -> None:
    """Write a calculation in each of ten folders, half of them compressed."""
    for i, atoms in enumerate(frames):
        (path / f"{i:02}").mkdir(parents=True)
        write_outcar(path / f"{i:02}/OUTCAR", [atoms])
        if i % 2:
            text = (path / f"{i:02}/OUTCAR").read_bytes()
            (path / f"{i:02}/OUTCAR").unlink()
            (path / f"{i:02}/OUTCAR.gz").write_bytes(gzip.compress(text))


FORMATS = {
    "a.extxyz": lambda path, frames: ase.io.write(path, frames),
    "a.traj": lambda path, frames: ase.io.write(path, frames),
    "a.db": write_database,
    "OUTCAR": write_outcar,
    "vasprun.xml": write_vasprun,
    "mlearn.json": write_mlearn,
    "mptrj.json": write_nested,
    "sites.json.gz": write_sites,
    "deepmd": write_deepmd,
    "raw": write_raw,
    "mixed": write_mixed,
    "steps/*/OUTCAR*": lambda path, frames: write_steps(path.parents[1], frames),
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Return a function that prepares ten structures from a file of a format."""
    folder = tmp_path_factory.mktemp("formats")

    def run(name: str) -> Store:
        if not list(folder.glob(name)):
            FORMATS[name](folder / name, made())
        dataset = {"path": name, "labels": LABELS, "energy_reference": {"median_shift": True}}
        dataset["split"] = {"n_test": 2, "n_val": 2}
        out = folder / f"{name.replace('/', '-')}.h5"
        prepare({"datasets": {"set": dataset}}, "set", folder, out)
        return Store(out)

    return run


@pytest.mark.parametrize("name", list(FORMATS)[1:])
def test_a_set_is_the_same_from_any_format(prepared, name):
    with prepared("a.extxyz") as expected, prepared(name) as store:
        assert len(store) == 10 and store.n_test == expected.n_test
        for one, other in zip(store, expected, strict=True):
            assert one.symbols.get_chemical_formula() == "C4Si4"
            assert one.info["index"] == other.info["index"]
            assert (one.numbers == other.numbers).all() and one.pbc.all()
            for what in ("cell", "positions"):
                assert np.asarray(getattr(one, what)) == pytest.approx(
                    np.asarray(getattr(other, what)), abs=1e-6
                )
            assert one.get_forces() == pytest.approx(other.get_forces(), abs=1e-6)
            assert one.get_potential_energy() == pytest.approx(
                other.get_potential_energy(), abs=1e-5
            )


@pytest.mark.parametrize("name", ["OUTCAR", "vasprun.xml"])
def test_both_energies_of_vasp_have_one_name_in_both_files(tmp_path, name):
    """`energy` is that of zero smearing, `free_energy` the one whose derivative the forces are."""
    FORMATS[name](tmp_path / name, made(2))
    for atoms, expected in zip(read_files([tmp_path / name]), made(2), strict=True):
        for key in ("energy", "free_energy"):
            assert atoms.calc.results[key] == pytest.approx(expected.calc.results[key], abs=1e-6)


@pytest.mark.parametrize("name", ["a.db", "mlearn.json"])
def test_what_stands_beside_the_labels_may_be_filtered_by(tmp_path, name):
    FORMATS[name](tmp_path / name, made(3))
    assert [atoms.info["place"] for atoms in read_files([tmp_path / name])] == [0, 1, 2]


def test_patterns_and_folders_stand_for_files(tmp_path):
    write_steps(tmp_path / "steps", made(3))
    (tmp_path / "systems").mkdir()
    write_deepmd(tmp_path / "systems/b", made(6))
    (tmp_path / "a[1].xyz").touch()
    found = ["steps/00/OUTCAR", "steps/01/OUTCAR.gz", "steps/02/OUTCAR"]
    assert structure_files("steps/*/OUTCAR*", tmp_path) == found
    assert structure_files(["steps/00/OUTCAR", "steps/**/OUTCAR*"], tmp_path) == found
    assert structure_files(f"{tmp_path}/steps/00/*", tmp_path) == [f"{tmp_path}/steps/00/OUTCAR"]
    assert structure_files(["a[1].xyz", "none*.xyz"], tmp_path) == ["a[1].xyz", "none*.xyz"]
    system = structure_files("systems", tmp_path)
    assert len(system) == 10 and "systems/b/set.001/force.npy" in system
    assert len(list(read_files([tmp_path / name for name in system]))) == 6


def disordered(path: Path, frames: list[Atoms]) -> None:
    entry = pymatgen(frames[0])
    entry["sites"][0]["species"][0]["occu"] = 0.5
    path.write_text(json.dumps([entry]))


def unnamed(path: Path, frames: list[Atoms]) -> None:
    write_deepmd(path.parent, frames)
    (path.parent / "type_map.raw").unlink()


@pytest.mark.parametrize(
    "name, write, words",
    [
        ("a.json", disordered, "structure 0 .*a site is occupied in part"),
        ("a.json", lambda path, frames: path.write_text('{"sites": 1'), "structure 0 .*JSONDecode"),
        ("d/type.raw", unnamed, "has no type_map.raw, which names the elements: add it"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, name, write, words):
    write(tmp_path / name, made(6))
    with pytest.raises(UserError) as error:
        list(read_files([tmp_path / name]))
    assert re.search(words, str(error.value)) and "\n" not in str(error.value)
