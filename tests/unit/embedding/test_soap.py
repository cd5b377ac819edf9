"""Atomic environments as vectors, and which of them a sample draws."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from pretraining.data.store import Store
from pretraining.embedding.soap import Environments, choose, density_of, describe, soap, vectors_of
from pretraining.runtime.errors import UserError
from toy import rattled_cells

SOAP = "soap cutoff=4.0 l_max=6 n_max=6 atom_sigma=0.5"
CARBON, SILICON = 3.567, 5.431


def vectors(atoms, descriptor=SOAP, chosen=None):
    chosen = np.arange(len(atoms)) if chosen is None else np.array(chosen)
    return vectors_of(atoms, chosen, soap(descriptor)).astype(float)


def diamond(symbol, a):
    return bulk(symbol, "diamond", a=a, cubic=True)


def sample(**options):
    return {"dataset": "C", "part": "all", "where": {}, "transform": "none"} | options


def settings(transforms=None, **options):
    options.setdefault("neighbour_radius", 1.85)
    transforms = transforms or {"none": {}}
    return {
        "descriptor": SOAP,
        "seed": 42,
        "sample": sample(**options),
        "transforms": transforms,
    }


@pytest.fixture
def store(tmp_path):
    """Forty-five labelled cells of eight atoms; the last is the first once more."""
    frames = list(rattled_cells(44))
    for place, atoms in enumerate(frames):
        atoms.info["kind"] = "odd" if place % 2 else "even"
    Store.write(tmp_path / "C.h5", [*frames, frames[0]], n_val=5, n_test=10, info=["kind"])
    with Store(tmp_path / "C.h5") as store:
        yield store


def test_a_turned_structure_has_the_same_vectors():
    atoms = next(rattled_cells(1))
    turned = atoms.copy()
    turned.rotate(40, (1, 2, 3), rotate_cell=True)
    turned.positions += 0.3
    assert np.abs(atoms.positions - turned.positions).max() > 0.5
    # quippy works in double precision; what is kept is single.
    np.testing.assert_allclose(vectors(turned), vectors(atoms), atol=2e-6)
    assert np.ptp(vectors(atoms), axis=0).max() > 1e-3


def test_the_atoms_of_a_perfect_crystal_are_equal_and_vectors_have_unit_length():
    found = vectors(diamond("C", CARBON))
    assert found.shape == (8, 148)
    np.testing.assert_allclose(found, np.tile(found[0], (8, 1)), atol=1e-6)
    np.testing.assert_allclose((found**2).sum(axis=1), 1, atol=1e-5)


def test_chosen_atoms_have_the_vectors_that_they_have_among_all():
    atoms = next(rattled_cells(1))
    np.testing.assert_array_equal(vectors(atoms, chosen=[1, 6]), vectors(atoms)[[1, 6]])


def test_only_periodic_directions_have_images():
    pair = Atoms("C2", positions=[[0.2, 5, 5], [9.6, 5, 5]], cell=[10, 10, 10])
    far = []
    for pbc in ((True, False, False), (False, True, True)):
        pair.pbc = pbc
        far.append(vectors(pair)[0])
    alone = Atoms("C", cell=[10, 10, 10], pbc=True)
    np.testing.assert_allclose(far[1], vectors(alone)[0], atol=1e-6)
    assert np.abs(far[0] - far[1]).max() > 0.01


def test_elements_count_only_if_the_descriptor_names_them():
    carbon, silicon = diamond("C", CARBON), diamond("Si", CARBON)
    np.testing.assert_array_equal(vectors(carbon), vectors(silicon))
    named = f"{SOAP} n_Z=2 Z={{6 14}} n_species=2 species_Z={{6 14}}"
    assert np.linalg.norm(vectors(carbon, named)[0] - vectors(silicon, named)[0]) > 1


def test_stretched_carbon_is_near_silicon():
    silicon = vectors(diamond("Si", SILICON))[0]
    distance = [
        np.linalg.norm(vectors(diamond("C", scale * CARBON))[0] - silicon)
        for scale in (1.0, 1.5, SILICON / CARBON)
    ]
    np.testing.assert_allclose(distance, [0.778, 0.233, 0], atol=0.002)


def test_stretching_the_descriptor_undoes_stretching_the_structure():
    wide = "soap cutoff=6.0 cutoff_transition_width=0.75 l_max=6 n_max=6 atom_sigma=0.75"
    stretched = vectors(diamond("C", 1.5 * CARBON), wide)
    np.testing.assert_allclose(stretched, vectors(diamond("C", CARBON)), atol=1e-6)


def test_a_sample_is_drawn_the_same_each_time(store):
    wanted = sample(structures=20, environments=50)
    first, again, other = (choose(store, wanted, seed) for seed in (42, 42, 43))
    assert first.keys() == again.keys() != other.keys()
    for row in first:
        np.testing.assert_array_equal(first[row], again[row])
    assert len(first) <= 20 and sum(map(len, first.values())) == 50


def test_parts_values_and_repeated_structures(store):
    assert set(choose(store, sample(part="test"), 1)) == set(range(5, 15))
    assert set(choose(store, sample(where={"kind": ["odd"]}), 1)) == set(range(1, 44, 2))
    # Row 44 repeats row 0.
    chosen = choose(store, sample(), 1)
    assert set(chosen) == set(range(44))
    assert all(atoms.tolist() == list(range(8)) for atoms in chosen.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"part": "val", "structures": 6}, "part 'val' has 5 structures, 6 are wanted"),
        ({"part": "val", "environments": 41}, "has 40 environments, 41 are wanted"),
        ({"where": {"kind": ["strange"]}}, "kind strange has 0 structures: correct"),
        ({"where": {"phase": ["a"]}}, "has no 'phase'"),
    ],
)
def test_what_is_not_there_is_named(store, options, message):
    with pytest.raises(UserError, match=message):
        choose(store, sample(**options), 1)


def test_what_is_known_of_environments(tmp_path):
    atoms = diamond("C", CARBON)
    atoms.calc = SinglePointCalculator(atoms, energy=-16.0, forces=np.zeros((8, 3)))
    Store.write(tmp_path / "C.h5", [atoms], n_val=0, n_test=0)
    with Store(tmp_path / "C.h5") as store:
        found = describe(store, settings(environments=3))
        silicon = {"Si": {"elements": {"C": "Si"}, "scale": 1.5}}
        stretched = describe(store, settings(silicon, transform="Si", environments=3))
    assert found.density == pytest.approx(3.516, abs=0.001)
    assert found.coordination.tolist() == [4, 4, 4]
    assert found.energy == pytest.approx(-2)
    # The same atoms, in a cell of another size and element.
    assert stretched.atom.tolist() == found.atom.tolist()
    assert stretched.density == pytest.approx(3.516 * 28.085 / 12.011 / 1.5**3, rel=1e-3)
    assert stretched.coordination.tolist() == [0, 0, 0]
    found.write(tmp_path / "vectors.h5", settings())
    again = Environments.read(tmp_path / "vectors.h5")
    assert again.vectors.dtype == np.float32
    np.testing.assert_array_equal(again.vectors, found.vectors)


def test_sets_without_labels_have_no_energy_and_clusters_no_density(tmp_path):
    atoms = Atoms("C2", positions=[[0, 0, 0], [1.3, 0, 0]])
    Store.write(tmp_path / "C.h5", [atoms], n_val=0, n_test=0, has_labels=False)
    with Store(tmp_path / "C.h5") as store:
        found = describe(store, settings())
    assert np.isnan(found.energy).all() and np.isnan(found.density).all()
    assert found.coordination.tolist() == [1, 1]
    assert np.isnan(density_of(atoms))


@pytest.mark.parametrize(
    ("descriptor", "message"),
    [
        ("soap cutoff=4.0", "rejects the descriptor 'soap cutoff=4.0': .*failed to parse"),
        (f"{SOAP} n_Z=1 Z=6 n_species=1 species_Z=6", "gives 0 vectors for 8 atoms of Si"),
    ],
)
def test_a_descriptor_that_does_not_fit_is_named(descriptor, message):
    with pytest.raises(UserError, match=message):
        vectors(diamond("Si", SILICON), descriptor)


def test_what_quip_left_in_memory_is_not_its_reason(monkeypatch):
    import quippy.descriptors

    def refuse(arguments):
        left = f"parse args_str='{arguments}'" + 9 * " " + "\x10\x14\n7"
        raise RuntimeError(f'Traceback (most recent call last)\n  File "d.F90", line 2\n    {left}')

    monkeypatch.setattr(quippy.descriptors, "Descriptor", refuse)
    with pytest.raises(UserError, match=r"'soap': parse args_str='soap'$"):
        vectors(diamond("Si", SILICON), "soap")


def test_no_more_is_imported_than_its_environment_has(root):
    absent = ("pandas", "matplotlib", "umap", "torch", "sklearn", "jsonschema", "snakemake")
    code = "import sys; sys.modules.update(dict.fromkeys(sys.argv[2:])); "
    code += "sys.path.insert(0, sys.argv[1]); import pretraining.embedding.soap"
    subprocess.run([sys.executable, "-c", code, str(root / "workflow"), *absent], check=True)
