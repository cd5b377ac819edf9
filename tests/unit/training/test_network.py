"""The paper's network: its size, its symmetries and the published weights."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list

from pretraining.runtime.errors import UserError
from pretraining.training.network.builders import (
    build_network,
    copy_parameters,
    count_parameters,
    network_config,
)
from pretraining.training.network.paper import (
    BesselInRadians,
    RadialNonlinearity,
    convert_published_weights,
)
from pretraining.training.predict import load_calculator, predict
from toy import rattled_cells

AVERAGE = 31.0
PUBLISHED = ("ace-10_000", "lcbop-10_000")


def network(types=("C",), seed=1, **options):
    """Build a network in evaluation mode."""
    config = network_config(options, type_names=types, avg_num_neighbors=AVERAGE, seed=seed)
    return build_network(config).eval()


def energy_and_forces(model, atoms):
    """Predict one structure."""
    (predicted,) = predict(model, [atoms])
    return predicted.get_potential_energy(), predicted.get_forces()


@pytest.fixture(scope="module")
def model():
    return network(num_layers=2, num_features=8)


@pytest.fixture(scope="module")
def atoms():
    return next(rattled_cells(1, seed=3))


def test_the_papers_network_has_73784_parameters():
    assert count_parameters(network()) == 73_784


def test_other_networks_are_chosen_by_name_or_import_path():
    stock = network(model="stock", num_layers=2, num_features=8)
    same = network(
        model="nequip.model.NequIPGNNModel",
        num_layers=2,
        num_features=8,
        per_type_energy_scales=1.0,
        per_type_energy_shifts=0.0,
    )
    paper = network(num_layers=2, num_features=8)
    assert count_parameters(stock) == count_parameters(same) != count_parameters(paper)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_layer": 2}, "network.num_layer: .* known are .*num_layers"),
        ({"model": "stock", "num_layer": 2}, "network.num_layer: "),
        ({"model": "no.such.builder"}, "network.model: 'no.such.builder' cannot be imported"),
        ({"r_max": 3.0}, "'r_max' is decided by each run"),
        ({"polynomial_cutoff_p": 1}, "PaperNetwork cannot be built with these hyperparameters"),
        ({"num_features": "many"}, "PaperNetwork cannot be built .*many"),
    ],
)
def test_a_fault_of_the_network_is_named(options, message):
    with pytest.raises(UserError, match=message):
        network(**options)


def test_the_seed_decides_the_initial_weights():
    first, again, other = (
        dict(network(seed=seed, num_layers=1, num_features=4).named_parameters())
        for seed in (1, 1, 2)
    )
    for name, weight in first.items():
        assert torch.equal(weight, again[name])
        # the roots of the basis start where they are
        assert torch.equal(weight, other[name]) == name.endswith("bessel_weights")


@pytest.mark.parametrize("parity", [True, False])
def test_energy_is_invariant_and_forces_rotate(parity, atoms):
    model = network(num_layers=2, num_features=4, parity=parity)
    energy, forces = energy_and_forces(model, atoms)
    assert np.abs(forces).max() > 1e-4
    turned = atoms.copy()
    turned.rotate(33, (1, 2, 3), rotate_cell=True)
    matrix = np.linalg.solve(atoms.cell.array, turned.cell.array)
    turned.positions += (0.3, -0.2, 0.9)
    order = np.random.default_rng(0).permutation(len(atoms))
    new_energy, new_forces = energy_and_forces(model, turned[order])
    assert new_energy == pytest.approx(energy, abs=1e-5)
    np.testing.assert_allclose(new_forces, (forces @ matrix)[order], atol=1e-5)


def test_a_mirror_image_has_the_same_energy(model, atoms):
    mirrored = atoms.copy()
    mirrored.set_cell(-atoms.cell.array)
    mirrored.positions *= -1
    energy, forces = energy_and_forces(model, atoms)
    new_energy, new_forces = energy_and_forces(model, mirrored)
    assert new_energy == pytest.approx(energy, abs=1e-5)
    np.testing.assert_allclose(new_forces, -forces, atol=1e-5)


def test_forces_are_minus_the_gradient_of_the_energy(atoms):
    config = network_config(
        {"num_layers": 2, "num_features": 4}, type_names=["C"], avg_num_neighbors=AVERAGE, seed=1
    )
    model = build_network(config | {"model_dtype": "float64"}).eval()
    _, forces = energy_and_forces(model, atoms)
    step, energies = 1e-4, []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions[2, 1] += sign * step
        energies.append(energy_and_forces(model, moved)[0])
    assert forces[2, 1] == pytest.approx(-(energies[0] - energies[1]) / (2 * step), abs=1e-6)


def test_an_isolated_atom_has_an_energy_and_atoms_beyond_the_cutoff_do_not_matter(model):
    alone, _ = energy_and_forces(model, Atoms("C", cell=[20] * 3, pbc=True))
    far, forces = energy_and_forces(model, Atoms("C2", [[0, 0, 0], [0, 0, 4.01]], cell=[20] * 3))
    assert far == pytest.approx(2 * alone, abs=1e-6)
    assert not forces.any()


def test_structures_of_a_batch_do_not_see_each_other(model):
    frames = list(rattled_cells(3, seed=5))
    together = [a.get_potential_energy() for a in predict(model, frames, batch_size=3)]
    one_by_one = [a.get_potential_energy() for a in predict(model, frames, batch_size=1)]
    assert together == pytest.approx(one_by_one, abs=1e-5)


def test_several_elements_are_told_apart(atoms):
    model = network(types=("C", "Si"), num_layers=2, num_features=4)
    mixed = atoms.copy()
    mixed.symbols[0] = "Si"
    assert energy_and_forces(model, mixed)[0] != pytest.approx(energy_and_forces(model, atoms)[0])


def test_the_radial_nonlinearity_keeps_the_mean_square():
    torch.manual_seed(0)
    x = torch.randn(200_000)
    # the following linear layer multiplies by the square root of two
    assert 2 * RadialNonlinearity()(x).square().mean() == pytest.approx(1.0, abs=0.02)


def test_the_basis_is_nequips(atoms):
    from nequip.data import AtomicDataDict as Key
    from nequip.nn.embedding import BesselEdgeLengthEncoding, PolynomialCutoff

    data = {Key.NORM_LENGTH_KEY: torch.linspace(0.1, 1.0, 10, dtype=torch.float64).view(-1, 1)}
    kwargs = {"cutoff": PolynomialCutoff(6), "num_bessels": 5, "trainable": True}
    own, theirs = (
        module(**kwargs)(dict(data))[Key.EDGE_EMBEDDING_KEY]
        for module in (BesselInRadians, BesselEdgeLengthEncoding)
    )
    torch.testing.assert_close(own, theirs, rtol=1e-6, atol=1e-6)


def test_copied_weights_leave_the_cutoff_and_the_average_alone(atoms):
    options = {"num_layers": 2, "num_features": 4}
    wide = network_config(options, type_names=["Si"], avg_num_neighbors=60.0, seed=1, cutoff=5.0)
    source = build_network(wide).eval()
    target = network(seed=2, **options)
    copy_parameters(dict(source.named_parameters()), target, "the source")
    reference = network(seed=1, **options)
    assert target.metadata["r_max"] == "4.0"
    assert energy_and_forces(target, atoms)[0] == energy_and_forces(reference, atoms)[0]


def test_weights_of_another_network_are_refused():
    small = network(num_layers=1, num_features=4)
    large = network(num_layers=2, num_features=4)
    with pytest.raises(UserError, match="small.ckpt: its weights do not fit .* missing"):
        copy_parameters(dict(small.named_parameters()), large, "small.ckpt")


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_weights_predict_what_nequip_056_predicts(shared_data, name):
    frames = ase.io.read(shared_data / "c-synth-23m-frames.extxyz.gz", ":", format="extxyz")
    published = np.load(shared_data / "published" / "nequip-0.5.6-predictions.npz")
    assert float(published["avg_num_neighbors"]) == AVERAGE
    calculator = load_calculator(
        shared_data / "published" / f"{name}.pth", avg_num_neighbors=AVERAGE
    )
    for row, i in enumerate(published["frame_index"][:3]):
        atoms = frames[i]
        atoms.calc = calculator
        energy, forces = published[f"{name}_energy"][row], published[f"{name}_forces"][row]
        assert abs(atoms.get_potential_energy() - energy) / len(atoms) < 1e-5
        # 0.5.6 held positions in single precision, so that its own rounding grows with the forces:
        # 3e-4 eV/Å of up to 53 eV/Å for the weights trained on LCBOP.
        assert np.abs(atoms.get_forces() - forces).max() < max(1e-4, 1e-5 * np.abs(forces).max())


def test_published_weights_need_the_right_average_number_of_neighbours(shared_data):
    atoms = ase.io.read(shared_data / "c-synth-23m-frames.extxyz.gz", 0, format="extxyz")
    average = len(neighbor_list("i", atoms, 4.0)) / len(atoms)
    assert 5 < average < 60
    energies = []
    for value in (31.0, 36.0):
        path = shared_data / "published" / "ace-10_000.pth"
        atoms.calc = load_calculator(path, avg_num_neighbors=value)
        energies.append(atoms.get_potential_energy() / len(atoms))
    assert abs(energies[0] - energies[1]) > 0.02


def test_all_published_weights_convert(shared_data):
    model = network()
    for path in sorted((shared_data / "published").glob("*.pth")):
        state = torch.load(path, map_location="cpu", weights_only=True)
        weights = convert_published_weights(state)
        assert sum(value.numel() for value in weights.values()) == 73_784
        copy_parameters(weights, model, path.name)
