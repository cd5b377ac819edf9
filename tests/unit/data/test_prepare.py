"""Preparing datasets: reading, filters, checks, energy references, summary."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import read, write

from pretraining.data.energy_references import fit_elements
from pretraining.data.geometry import nearest_pair
from pretraining.data.prepare import prepare
from pretraining.data.screening import Filter
from pretraining.data.store import Store
from pretraining.data.summary import as_markdown
from pretraining.runtime.errors import UserError
from pretraining.runtime.records import read_record

SCRIPTS = Path(__file__).parents[3] / "workflow" / "scripts"


def structures(n: int = 60, seed: int = 0) -> list[Atoms]:
    """Distorted cells of silicon carbide and carbon with energies that a reference explains."""
    rng = np.random.default_rng(seed)
    frames = []
    for i in range(n):
        if i % 3:
            atoms = bulk("SiC", "zincblende", a=4.4, cubic=True)
        else:
            atoms = bulk("C", "diamond", a=3.6, cubic=True)
        atoms.rattle(0.05, rng=rng)
        counts = {s: atoms.get_chemical_symbols().count(s) for s in ("C", "Si")}
        atoms.info |= {
            "dft_energy": -150.0 * counts["C"] - 160.0 * counts["Si"] + 0.01 * rng.normal(),
            "config_type": "carbide" if i % 3 else "diamond",
            "time": 0.5 * i,
            "run_id": i // 4,
        }
        atoms.arrays["dft_force"] = rng.normal(size=(8, 3))
        frames.append(atoms)
    return frames


LABELS = {"energy": "dft_energy", "forces": "dft_force"}


class Case:
    """A configuration with one dataset, its file, and the command that prepares it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder / "out" / "prepared.h5"

    def prepare(self, frames: list[Atoms] | None = None, sizes=(), reference=None, **entry) -> dict:
        if frames is not None:
            write(self.folder / "set.extxyz", frames, format="extxyz")
        entry = {"path": "set.extxyz", **entry}
        return prepare(
            {"datasets": {"mine": entry}},
            "mine",
            self.folder,
            self.out,
            self.folder / "out" / "summary.json",
            sizes,
            reference,
        )

    def store(self) -> Store:
        return Store(self.out)

    def refuses(self, message: str, *args, **kwargs) -> None:
        """Nothing is written, and one line tells why."""
        with pytest.raises(UserError, match=message) as error:
            self.prepare(*args, **kwargs)
        assert str(error.value).startswith("dataset 'mine': ")
        assert "\n" not in str(error.value)
        assert not self.out.parent.exists() or not list(self.out.parent.iterdir())


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_prepared_set_is_the_raw_one(case: Case) -> None:
    frames = structures()
    summary = case.prepare(frames, labels=LABELS, keep=["time", "config_type"])
    order = np.random.RandomState(42).permutation(60).tolist()
    assert summary["counts"] | {"dropped": 0} == {
        "raw": 60,
        "excluded": 0,
        "dropped": 0,
        "kept": 60,
        "val": 5,
        "test": 6,
        "train": 49,
    }
    with case.store() as store:
        assert store.column("index").tolist() == order[49:54] + order[54:] + order[:49]
        for atoms in store:
            raw = frames[atoms.info["index"]]
            np.testing.assert_allclose(atoms.positions, raw.positions, atol=1e-7)
            assert atoms.get_potential_energy() == pytest.approx(raw.info["dft_energy"])
            np.testing.assert_allclose(atoms.get_forces(), raw.arrays["dft_force"], atol=1e-7)
            assert atoms.info["time"] == raw.info["time"]
            assert atoms.info["config_type"] == raw.info["config_type"]
        assert store.provenance["dataset"] == "mine"
        sha = hashlib.sha256((case.folder / "set.extxyz").read_bytes()).hexdigest()
        assert store.provenance["origin"]["files"][0]["sha256"] == sha
        assert summary["checksum"] == store.checksum
    assert summary == read_record(case.folder / "out/summary.json")
    everything = summary["groups"]["all"]
    assert everything["config_types"] == {"carbide": 40, "diamond": 20}
    assert everything["density_g_cm3"]["max"] == pytest.approx(3.42, abs=0.01)
    assert everything["composition"] == pytest.approx({"C": 2 / 3, "Si": 1 / 3})
    page = (case.folder / "out/summary.md").read_text()
    assert "| structures | 5 | 6 | 49 | 60 |" in page
    assert "first *n* of the training pool" in page
    assert sorted(p.name for p in case.out.parent.iterdir()) == [
        "prepared.h5",
        "summary.json",
        "summary.md",
    ]


def test_prepared_twice_is_the_same(case: Case) -> None:
    first = case.prepare(structures(), labels=LABELS, energy_reference={"least_squares": True})
    assert case.prepare(labels=LABELS, energy_reference={"least_squares": True}) == first


def test_files_lists_compression_and_formats(case: Case) -> None:
    frames = structures(40)
    write(case.folder / "a@b.extxyz", frames[:15])
    with gzip.open(case.folder / "b.extxyz.gz", "wt") as handle:
        write(handle, frames[15:], format="extxyz")
    case.prepare(path=["a@b.extxyz", "b.extxyz.gz"], labels=LABELS)
    with case.store() as store:
        checksum = store.checksum
        assert sorted(store.column("index")) == list(range(40))
    case.prepare(frames, labels=LABELS)
    with case.store() as store:
        assert store.checksum == checksum
    for atoms in frames:
        atoms.calc = None
    write(case.folder / "set.traj", frames)
    case.prepare(path="set.traj")
    with case.store() as store:
        assert not store.has_labels
        assert len(store) == 40


@pytest.mark.parametrize("hidden", [True, False])
def test_keys_that_ase_hides_in_a_calculator(case: Case, hidden: bool) -> None:
    """ASE's reader puts `energy` and `forces` into a calculator, but not `force`."""
    frames = structures(30)
    for atoms in frames:
        atoms.info["energy"] = atoms.info.pop("dft_energy")
        atoms.arrays["forces" if hidden else "force"] = atoms.arrays.pop("dft_force")
    write(case.folder / "set.extxyz", frames)
    assert read(case.folder / "set.extxyz").calc is not None
    labels = {"energy": "energy", "forces": "forces" if hidden else "force"}
    case.prepare(labels=labels)
    with case.store() as store:
        atoms = store[0]
        raw = frames[atoms.info["index"]]
        assert atoms.get_potential_energy() == pytest.approx(raw.info["energy"])
        np.testing.assert_allclose(atoms.get_forces(), raw.arrays[labels["forces"]], atol=1e-7)


def test_energies_by_atom_are_summed(case: Case) -> None:
    frames = structures(30)
    for atoms in frames:
        atoms.arrays["local"] = np.full(8, atoms.info["dft_energy"] / 8)
    case.prepare(frames, labels={"per_atom_energy": "local", "forces": "dft_force"})
    with case.store() as store:
        atoms = store[3]
        expected = frames[atoms.info["index"]].info["dft_energy"]
        assert atoms.get_potential_energy() == pytest.approx(expected, abs=1e-5)


# ------------------------------------------------------------------------------------- filters


@pytest.mark.parametrize(
    ("entry", "kept"),
    [
        ({"key": "config_type", "exclude": ["diamond"]}, 40),
        ({"key": "config_type", "include": ["diamond", "graphite"]}, 20),
        ({"key": "time", "min": 10}, 40),
        ({"key": "time", "max": 10}, 21),
        ({"key": "time", "min": 10, "max": 20}, 21),
        ({"key": "run_id", "exclude": ["3"]}, 56),
        ({"min_cell_edge": 4.0}, 40),
        ({"neighbours_within": 1.7}, 20),
    ],
)
def test_filters(case: Case, entry: dict, kept: int) -> None:
    summary = case.prepare(structures(), filters=[entry], split={"n_test": 2, "n_val": 2})
    assert summary["counts"]["kept"] == kept
    assert summary["counts"]["dropped"][0]["structures"] == 60 - kept
    assert str(60 - kept) in (case.folder / "out/summary.md").read_text()


def test_a_filter_drops_before_the_checks(case: Case) -> None:
    frames = structures(30)
    frames[5].positions[1] = frames[5].positions[0]
    frames[7].positions[0] = np.nan
    summary = case.prepare(frames, filters=[{"key": "time", "min": 4}])
    assert summary["counts"]["kept"] == 22
    assert summary["counts"]["dropped"] == [{"filter": "time: min 4", "structures": 8}]


def test_lone_atoms_and_edges() -> None:
    lone = Filter({"neighbours_within": 6.0})
    assert not lone.keeps(Atoms("C"))
    assert not lone.keeps(Atoms("C2", positions=[[0, 0, 0], [0, 0, 6.1]]))
    assert lone.keeps(Atoms("C2", positions=[[0, 0, 0], [0, 0, 5.9]]))
    assert lone.keeps(Atoms("C", cell=[5, 20, 20], pbc=True))  # its own image
    assert not lone.keeps(Atoms("C3", positions=[[0, 0, 0], [0, 0, 2], [0, 0, 20]]))
    edge = Filter({"min_cell_edge": 8.0})
    assert edge.keeps(Atoms("C"))
    assert edge.keeps(Atoms("C", cell=[5, 9, 9], pbc=[False, True, True]))
    assert not edge.keeps(Atoms("C", cell=[5, 9, 9], pbc=True))


# -------------------------------------------------------------------------------------- checks


def broken(kind: str) -> Atoms:
    atoms = structures(1)[0]
    match kind:
        case "position":
            atoms.positions[3, 1] = np.nan
        case "cell":
            atoms.cell[0, 0] = np.inf
        case "energy":
            atoms.info["dft_energy"] = np.nan
        case "force":
            atoms.arrays["dft_force"][2, 0] = np.inf
        case "clash":
            atoms.positions[4] = atoms.positions[1] + [0.3, 0, 0]
        case "image":
            atoms.cell[2] = [0, 0, 0.4]
            atoms.positions[:, 2] = 0.0
            atoms = atoms[[0]]
        case "coincident":
            atoms.positions[4] = atoms.positions[1]
        case "lost cell":
            atoms.cell[:] = 0
        case "flat cell":
            atoms.cell[2] = atoms.cell[0] + atoms.cell[1]
        case "energy key":
            del atoms.info["dft_energy"]
        case "force key":
            del atoms.arrays["dft_force"]
        case "text":
            atoms.info["dft_energy"] = "unknown"
        case "vector":
            atoms.info["dft_energy"] = np.array([1.0, 2.0])
        case "shape":
            atoms.arrays["dft_force"] = atoms.arrays["dft_force"][:, :2]
    return atoms


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("position", "structure 17 position of atom 3 is not finite"),
        ("cell", "structure 17 cell is not finite"),
        ("energy", "structure 17 energy 'dft_energy' is not finite"),
        ("force", "structure 17 forces 'dft_force' are not finite"),
        ("clash", r"structure 17 atom \d is 0.300 Å from atom \d \(checks.min_distance 0.5 Å\)"),
        ("image", "structure 17 atom 0 is 0.400 Å from its own image"),
        ("coincident", r"structure 17 atom \d is 0.000 Å from atom \d"),
        ("lost cell", "structure 17 is periodic but has no cell"),
        ("flat cell", "structure 17 is periodic but its cell has no volume"),
        ("energy key", r"structure 17 has no 'dft_energy' \(it has: .*config_type"),
        ("force key", r"structure 17 has no 'dft_force' \(it has: .*time"),
        ("text", "structure 17 energy or forces are not numbers"),
        ("vector", r"structure 17 energy 'dft_energy' has the shape \(2,\)"),
        ("shape", r"structure 17 forces 'dft_force' have the shape \(8, 2\), not \(8, 3\)"),
    ],
)
def test_a_broken_structure_is_refused_by_name(case: Case, kind: str, reason: str) -> None:
    frames = structures(30)
    frames[17] = broken(kind)
    case.refuses(f"1 broken structure.*{reason}", frames, labels=LABELS)
    summary = case.prepare(labels=LABELS, exclude=[17])
    assert summary["counts"]["kept"] == 29
    assert summary["counts"]["excluded"] == 1


def test_all_broken_structures_are_listed(case: Case, capsys: pytest.CaptureFixture) -> None:
    frames = structures(30)
    for i in (2, 5, 11, 20, 29):
        frames[i] = broken("position" if i % 2 else "energy key")
    case.refuses(
        "5 broken structure.*structure 2 .*structure 5 .*structure 11 .*all listed above.*exclude",
        frames,
        labels=LABELS,
    )
    listed = capsys.readouterr().err.splitlines()
    assert [line.split()[2] for line in listed] == ["2", "5", "11", "20", "29"]


def test_an_empty_structure_is_refused(case: Case) -> None:
    frames = [molecule("CH4") for _ in range(30)]
    write(case.folder / "set.traj", [*frames[:4], Atoms(), *frames[4:]])
    case.refuses("structure 4 has no atoms", path="set.traj")


def test_distance_limit_is_configurable(case: Case) -> None:
    frames = structures(30)
    frames[17] = broken("clash")
    case.prepare(frames, checks={"min_distance": 0.2})
    shutil.rmtree(case.out.parent)
    case.refuses("30 broken structure", frames, checks={"min_distance": 2.5})


def test_nearest_pair_knows_periodic_images() -> None:
    atoms = Atoms("C2", positions=[[0.1, 0, 0], [4.9, 0, 0]], cell=[5, 5, 5], pbc=True)
    assert nearest_pair(atoms)[0] == pytest.approx(0.2)
    atoms.pbc = False
    assert nearest_pair(atoms) is None


# ------------------------------------------------------------------------------ wrong requests


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"structures": 61}, "60 raw structures, but the configuration expects 61"),
        ({"sha256": "0" * 64}, "has the sha256 [0-9a-f]{64}, not 0000"),
        ({"sha256": ["0" * 64, "1" * 64]}, "2 sha256 are given for 1 files"),
        ({"path": "other.extxyz"}, "no structure file .*other.extxyz"),
        ({"format": "nonsense"}, "nonsense"),
        ({"format": "vasp"}, "structure 0 cannot be read as vasp"),
        ({"filters": [{"key": "tme", "min": 3}]}, "structure 0 has no entry 'tme' to filter by"),
        ({"filters": [{"key": "config_type", "min": 3}]}, "'config_type' is 'diamond', not a num"),
        ({"filters": [{"key": "time", "min": 99}]}, "none of 60 structures .* time: min 99: 60"),
        ({"keep": ["densty"]}, "keep: no structure has an entry 'densty'"),
        ({"split": {"key": "split"}}, "split.key: structure 0 has no entry 'split'"),
        ({"split": {"key": "config_type"}}, "split.test is 'test', but .* carbide, diamond"),
        ({"split": {"groups": "trajectory"}}, "split.groups: structure 0 has no entry"),
        ({"split": {"n_test": 60}}, "no val structures are left of 60"),
        ({"exclude": [60]}, r"exclude: 60 is no structure \(there are 60\)"),
        ({"sizes": [25, 50, 200]}, "the training pool has 49 structures, but the sizes 50, 200"),
        ({"labels": LABELS, "energy_reference": {"given": {"C": -1.0}}}, "has no energy of Si"),
        ({"labels": LABELS, "energy_reference": {"source": "ace"}}, "--reference-from"),
        (
            {"labels": LABELS, "energy_reference": {"source": "ace"}, "reference": Path("no.json")},
            "no file no.json of isolated-atom energies",
        ),
    ],
)
def test_wrong_requests_are_one_line(case: Case, entry: dict, message: str) -> None:
    case.refuses(message, structures(), **entry)


def test_a_damaged_file_names_the_structure(case: Case) -> None:
    write(case.folder / "set.extxyz", structures(30))
    lines = (case.folder / "set.extxyz").read_text().splitlines(keepends=True)
    (case.folder / "set.extxyz").write_text("".join(lines[:-3]))
    case.refuses("set.extxyz: structure [0-9]+ cannot be read")
    lines[45] = lines[45].replace("C ", "C x", 1)
    (case.folder / "set.extxyz").write_text("".join(lines))
    case.refuses("set.extxyz: structure [0-9]+ cannot be read")
    with gzip.open(case.folder / "set.extxyz.gz", "wt") as handle:
        handle.write("".join(lines))
    whole = (case.folder / "set.extxyz.gz").read_bytes()
    (case.folder / "set.extxyz.gz").write_bytes(whole[: len(whole) // 2])
    case.refuses("set.extxyz.gz: the compressed file is cut short", path="set.extxyz.gz")


def test_unknown_dataset(case: Case) -> None:
    with pytest.raises(UserError, match=r"no dataset 'his' in the configuration \(known: mine\)"):
        prepare({"datasets": {"mine": {}}}, "his", case.folder, case.out)


# --------------------------------------------------------------------------- energy references


def test_given_and_computed_references(case: Case) -> None:
    frames = structures()
    energies = {"C": -150.0, "Si": -160.0, "Ge": 3.0}
    given = case.prepare(frames, labels=LABELS, energy_reference={"given": energies})
    everything = given["groups"]["all"]["energy_ev_per_atom"]
    assert abs(everything["mean"]) < 0.01
    assert everything["std"] < 0.01
    (case.folder / "reference.json").write_text(json.dumps(energies))
    computed = case.prepare(
        labels=LABELS,
        energy_reference={"source": "ace"},
        reference=case.folder / "reference.json",
    )
    assert computed["checksum"] == given["checksum"]
    assert computed["energy_reference"]["source"] == "ace"
    for text in ("not json", "[1]", '{"C": "x"}', '{"C": NaN, "Si": 1}', '{"Xx": 1}'):
        (case.folder / "reference.json").write_text(text)
        with pytest.raises(UserError, match="is not a JSON object of element: energy"):
            case.prepare(
                labels=LABELS,
                energy_reference={"source": "ace"},
                reference=case.folder / "reference.json",
            )


def test_a_transform_of_the_set_follows_its_filters_and_its_energy_reference(case: Case) -> None:
    """Silicon made to look like carbon, as a target."""
    options = {"labels": LABELS, "energy_reference": {"given": {"C": -150.0, "Si": -160.0}}}
    options["filters"] = [{"neighbours_within": 2.0}]
    plain = case.prepare(structures(), **options)
    with case.store() as store:
        raw = store.arrays(0)
    transform = {"elements": {"Si": "C"}, "scale": 0.5, "energy_shift": {"C": 5.0}}
    changed = case.prepare(**options, transform=transform)
    with case.store() as store:
        row = store.arrays(0)
    assert changed["counts"] == plain["counts"]
    assert set(row["numbers"]) == {6}
    np.testing.assert_allclose(row["positions"], 0.5 * raw["positions"])
    np.testing.assert_allclose(row["energy"], raw["energy"] + 5.0 * len(raw["numbers"]))
    np.testing.assert_array_equal(row["forces"], raw["forces"])
    nearest = [r["groups"]["all"]["min_distance_angstrom"] for r in (plain, changed)]
    assert nearest[1] == pytest.approx(0.5 * nearest[0])


def isolated(element: str, energy: float, **box) -> Atoms:
    """Return an isolated atom without forces."""
    return Atoms(element, info={"dft_energy": energy}, **box)


ALONE = [
    isolated("C", -149.0),
    isolated("Si", -160.0, cell=[12, 12, 12], pbc=True),
    isolated("C", -150.0, cell=[15, 15, 15], pbc=True),
]


@pytest.mark.parametrize("kind", ["auto", "isolated_atoms"])
def test_isolated_atoms_in_the_file_are_the_reference(case: Case, kind: str) -> None:
    frames = structures()
    reference = {"energy_reference": {kind: True}} if kind != "auto" else {}
    summary = case.prepare([*ALONE, *frames], labels=LABELS, **reference)
    assert summary["energy_reference"]["energies"] == {"C": -150.0, "Si": -160.0}
    assert (
        "isolated atoms of C differ by 1.000 eV: the lowest is used"
        in summary["energy_reference"]["note"]
    )
    assert abs(summary["groups"]["all"]["energy_ev_per_atom"]["mean"]) < 0.01
    assert summary["counts"]["kept"] == 60 and "- 2 dropped" in as_markdown(summary)


def test_missing_isolated_atoms_are_named(case: Case) -> None:
    near = [isolated("Si", -165.0, cell=[4, 4, 4], pbc=True) for _ in range(2)]
    for atoms in near:
        atoms.arrays["dft_force"] = np.zeros((1, 3))
    case.refuses(
        "no isolated atom of Si: add one, or give", [*ALONE[:1], *structures()], labels=LABELS
    )
    must = {"labels": LABELS, "energy_reference": {"isolated_atoms": True}}
    case.refuses("no isolated atom of C, Si: add one", [*near, *structures()], **must)
    summary = case.prepare(labels=LABELS)
    assert summary["energy_reference"]["kind"] == "none" and summary["counts"]["kept"] == 62
    assert any("set energy_reference if they are not" in note for note in summary["notes"])
    given = case.prepare(
        [*ALONE, *structures()],
        labels=LABELS,
        energy_reference={"none": True},
        checks={"min_distance": 0},
    )
    assert given["counts"]["kept"] == 63


@pytest.mark.parametrize("kind", ["least_squares", "median_shift"])
def test_fits_see_the_training_pool_only(case: Case, kind: str) -> None:
    frames = structures()
    first = case.prepare(frames, labels=LABELS, energy_reference={kind: True})
    assert first["energy_reference"]["n_fitted"] == first["counts"]["train"] == 49
    assert "fitted to the 49 structures" in (case.folder / "out/summary.md").read_text()
    with case.store() as store:
        pool = set(store.column("index", "train").tolist())
    for i in set(range(60)) - pool:
        frames[i].info["dft_energy"] += 1000.0
    again = case.prepare(frames, labels=LABELS, energy_reference={kind: True})
    assert again["energy_reference"] == first["energy_reference"]
    frames[min(pool)].info["dft_energy"] += 1000.0
    third = case.prepare(frames, labels=LABELS, energy_reference={kind: True})
    assert (third["energy_reference"] == first["energy_reference"]) == (kind == "median_shift")


def test_least_squares_finds_the_elements(case: Case) -> None:
    summary = case.prepare(structures(), labels=LABELS, energy_reference={"least_squares": True})
    expected = pytest.approx({"C": -150.0, "Si": -160.0}, abs=1e-2)
    assert summary["energy_reference"]["energies"] == expected
    (note,) = summary["notes"]
    assert "6 of 6 test structures hardly differ from a training structure" in note


def test_median_shift_is_one_number_an_atom(case: Case) -> None:
    frames = structures()
    case.prepare(frames, labels=LABELS, energy_reference={"median_shift": True})
    with case.store() as store:
        per_atom = store.column("energy", "train") / 8
        assert np.median(per_atom) == pytest.approx(0.0, abs=1e-9)


def test_one_stoichiometry_is_noted() -> None:
    pool = [(np.array([6, 14, 14]), -30.0 + e) for e in (0.0, 0.1, -0.1)]
    reference = fit_elements(pool)
    assert reference.of(np.array([6, 14, 14])) == pytest.approx(-30.0)
    assert "only 1 combination(s) of 2 elements" in reference.note


# ------------------------------------------------------------------------------- split, notes


def test_own_split_and_trajectories(case: Case) -> None:
    frames = structures()
    for i, atoms in enumerate(frames):
        atoms.info["split"] = "test" if i % 10 == 0 else "train"
    noted = case.prepare(frames)
    assert "60 structures have an entry 'split'" in noted["notes"][0]
    case.prepare(split={"key": "split"})
    with case.store() as store:
        assert store.column("index", "test").tolist() == [0, 10, 20, 30, 40, 50]
    case.prepare(split={"groups": "run_id"}, keep=["run_id"])
    with case.store() as store:
        runs = [set(store.column("run_id", group)) for group in ("val", "test", "train")]
        assert sum(map(len, runs)) == 15
        assert not runs[0] & runs[1]


def test_parts_in_files_of_their_own(case: Case) -> None:
    frames = structures(70)
    for name, part in (("test.extxyz.gz", frames[40:60]), ("val.extxyz", frames[60:])):
        write(case.folder / name, part, format="extxyz")
    split = {"test_path": "test.extxyz.gz"}
    summary = case.prepare(frames[:40], labels=LABELS, split=split)
    assert [summary["counts"][part] for part in ("val", "test", "train")] == [4, 20, 36]
    assert any("4 of the others were drawn for it" in note for note in summary["notes"])
    with case.store() as store:
        assert sorted(store.column("index", "test")) == list(range(40, 60))
    split["val_path"] = ["val.extxyz"]
    # A file that `path` names, too, is read once.
    summary = case.prepare(labels=LABELS, split=split, path=["set.extxyz", "test.extxyz.gz"])
    assert [summary["counts"][part] for part in ("val", "test", "train")] == [10, 20, 40]
    assert not any("drawn" in note for note in summary["notes"])
    with pytest.raises(UserError, match=r"no structure file .*lost\.xyz"):
        case.prepare(labels=LABELS, split={"test_path": "lost.xyz"})


def test_parts_of_one_kind_are_noted(case: Case) -> None:
    frames = structures(60)
    split = {"groups": "run_id", "n_val": 4, "n_test": 4}
    summary = case.prepare(frames, labels=LABELS, split=split, keep=["run_id", "time"])
    sizes = "whole trajectories in each part: test 4 structures of 1 (asked for: 4), validation 4"
    assert any(sizes in note for note in summary["notes"])
    sides = [note for note in summary["notes"] if "one of" in note]
    assert len(sides) == 2 and "all 4 validation structures have the run_id" in sides[0]
    assert not any("one of" in n for n in case.prepare(frames, keep=["run_id"])["notes"])


def test_mixed_periodicity_is_noted(case: Case) -> None:
    frames = structures(30)
    frames[3].pbc = False
    assert "FFF 1, TTT 29" in case.prepare(frames)["notes"][0]


def test_structures_in_two_parts_are_noted(case: Case) -> None:
    frames = structures(30)
    order = np.random.RandomState(42).permutation(30)
    frames[order[-1]] = frames[order[0]].copy()  # test and train
    frames[order[1]] = frames[order[2]].copy()  # both train
    notes = case.prepare(frames)["notes"]
    assert notes == [
        "2 structures repeat an earlier one: labelled only once",
        "1 structures of the train part are also in the test part",
    ]


def test_the_raw_index_is_ours(case: Case) -> None:
    frames = structures(30)
    for atoms in frames:
        atoms.info["index"] = "gdb 7"
    case.prepare(frames)
    with case.store() as store:
        assert sorted(store.column("index")) == list(range(30))


# -------------------------------------------------------------------------------- command line


def test_memory_stays_small(case: Case) -> None:
    """60 MB of text, 24 MB of arrays, are prepared without holding either."""
    atoms = bulk("C", "diamond", a=3.57, cubic=True) * (5, 5, 5)
    atoms.info["energy"] = 1.0
    atoms.arrays["forces"] = np.ones((len(atoms), 3))
    write(case.folder / "one.extxyz", atoms)
    text = (case.folder / "one.extxyz").read_text()
    with open(case.folder / "set.extxyz", "w") as handle:
        for _ in range(600):
            handle.write(text)
    code = rf"""
    import re, sys
    from pathlib import Path
    sys.path.insert(0, {str(SCRIPTS.parent)!r})
    from pretraining.data.prepare import prepare
    entry = {{"path": "set.extxyz", "labels": {{"energy": "energy", "forces": "forces"}}}}
    def peak():
        # Not ru_maxrss, which begins with that of the process that started this one.
        return int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) // 1024
    before = peak()
    prepare({{"datasets": {{"mine": entry}}}}, "mine", Path(), Path("out.h5"))
    print(peak() - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=case.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (case.folder / "out.h5").stat().st_size > 28_000_000
    assert int(done.stdout) < 70  # MiB


def test_a_wrong_key_is_said_once(case: Case, capsys: pytest.CaptureFixture) -> None:
    message = "none of the structures is usable: each one has no 'pbe_energy'"
    case.refuses(message, structures(12), labels=LABELS | {"energy": "pbe_energy"})
    assert "refused" not in capsys.readouterr().err
