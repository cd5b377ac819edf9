"""Trained models as files, predictions, calculators and evaluation."""

from __future__ import annotations

import json
import subprocess
import sys

import ase.io
import numpy as np
import pytest
import torch
from nequip.data import AtomicDataDict as Key
from nequip.integrations.ase import NequIPCalculator
from nequip.model import ModelFromCheckpoint
from nequip.model.saved_models.checkpoint import data_dict_from_checkpoint

from pretraining.data.store import Store
from pretraining.data.transforms import Transform
from pretraining.runtime.errors import UserError
from pretraining.study.settings import load_settings
from pretraining.training.network.checkpoint import import_weights, load_model
from pretraining.training.predict import (
    load_calculator,
    parse_elements_as,
    predict,
    predict_file,
    predict_part,
)
from pretraining.training.predictions import Predictions
from pretraining.training.run import Request, train
from toy import rattled_cells, write_settings, write_store


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("inference")


@pytest.fixture(scope="module")
def data(folder):
    return write_store(folder / "data.h5")


@pytest.fixture(scope="module")
def model_file(folder, data):
    """Model file of a short run."""
    settings = write_settings(folder / "settings.yaml", max_epochs=3)
    train(Request("direct", data, 12, 1, settings, folder / "run"))
    return folder / "run" / "model.ckpt"


@pytest.fixture(scope="module")
def frames():
    return list(rattled_cells(3, seed=7))


def test_the_model_file_has_no_optimiser_and_only_the_averaged_weights(model_file):
    content = torch.load(model_file, map_location="cpu", weights_only=False)
    assert not {"optimizer_states", "callbacks"} & content.keys()
    weights = load_model(model_file).parameters()
    averaged = [v for k, v in content["state_dict"].items() if k.startswith("ema.ema_weight")]
    own = [v for k, v in content["state_dict"].items() if k.startswith("model.") and "weight" in k]
    assert len(averaged) > 5
    for loaded, average in zip(weights, averaged, strict=True):
        assert torch.equal(loaded, average)
    assert all(any(torch.equal(a, b) for b in own) for a in averaged)
    about = content["hyper_parameters"]["info_dict"]["about"]
    assert (about["kind"], about["n"], about["seed"]) == ("direct", 12, 1)


def test_nequips_own_loaders_open_a_model_and_predict_the_same(model_file, frames):
    ours = [atoms.get_forces() for atoms in predict(load_model(model_file), frames)]
    theirs = ModelFromCheckpoint(str(model_file))["sole_model"].eval()
    calculator = NequIPCalculator._from_saved_model(
        model_file, chemical_species_to_atom_type_map=True
    )
    for atoms, forces, again in zip(frames, ours, predict(theirs, frames), strict=True):
        np.testing.assert_array_equal(forces, again.get_forces())
        atoms = atoms.copy()
        atoms.calc = calculator
        np.testing.assert_allclose(forces, atoms.get_forces(), atol=1e-5)


def test_nequips_tools_find_an_example_structure_in_a_model_file(model_file):
    example = data_dict_from_checkpoint(str(model_file))
    assert Key.num_nodes(example) == 27 and Key.num_edges(example) > 27
    assert torch.isfinite(load_model(model_file)(example)[Key.FORCE_KEY]).all()


def test_predicted_labels_are_written_where_ase_reads_them(tmp_path, model_file):
    frames = list(rattled_cells(3, seed=8))
    for i, atoms in enumerate(frames):
        atoms.info["number"] = i
        atoms.arrays["site"] = np.arange(8.0)
    ase.io.write(tmp_path / "in.extxyz", frames)
    model = load_model(model_file)
    assert predict_file(model, tmp_path / "in.extxyz", tmp_path / "out.extxyz", batch_size=2) == 3
    read = ase.io.read(tmp_path / "out.extxyz", ":")
    for atoms, predicted in zip(read, predict(model, frames), strict=True):
        assert atoms.get_potential_energy() == pytest.approx(predicted.get_potential_energy())
        np.testing.assert_allclose(atoms.get_forces(), predicted.get_forces(), atol=1e-7)
        assert atoms.info["number"] in range(3) and atoms.arrays["site"][2] == 2.0
    assert read[0].get_potential_energy() != pytest.approx(frames[0].get_potential_energy())


@pytest.mark.parametrize("broken", ["nan", "far", "same place"])
def test_a_broken_structure_is_not_predicted(tmp_path, model_file, frames, broken):
    wrong = frames[1].copy()
    place = {"nan": np.nan, "far": 1e12, "same place": wrong.positions[0]}[broken]
    wrong.positions[1] = place
    ase.io.write(tmp_path / "in.extxyz", [frames[0], wrong])
    with pytest.raises(UserError, match="in.extxyz: structure 1 "):
        predict_file(load_model(model_file), tmp_path / "in.extxyz", tmp_path / "out.extxyz")
    assert not (tmp_path / "out.extxyz").exists()


def test_the_calculator_predicts_the_same_and_has_a_stress(model_file, frames):
    (predicted,) = predict(load_model(model_file), frames[:1])
    atoms = frames[0].copy()
    atoms.calc = load_calculator(model_file)
    energy = predicted.get_potential_energy()
    assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-5)
    np.testing.assert_allclose(atoms.get_forces(), predicted.get_forces(), atol=1e-5)
    assert atoms.get_stress().shape == (6,)


def test_an_element_is_taken_for_another_only_when_told_so(model_file, frames, data, tmp_path):
    model = load_model(model_file)
    silicon = frames[0].copy()
    silicon.symbols[:] = "Si"
    with pytest.raises(UserError, match="structure 0 has atoms of Si, .* knows only C"):
        list(predict(model, [silicon]))
    (taken,) = predict(model, [silicon], elements_as={"Si": "C"})
    (carbon,) = predict(model, frames[:1])
    assert taken.get_potential_energy() == carbon.get_potential_energy()
    assert set(taken.symbols) == {"Si"}
    silicon.calc = load_calculator(model_file, elements_as={"Si": "C"})
    assert silicon.get_potential_energy() == pytest.approx(carbon.get_potential_energy(), abs=1e-5)
    with Store(write_store(tmp_path / "si.h5", symbol="Si")) as store, Store(data) as same:
        with pytest.raises(UserError, match="has atoms of Si"):
            predict_part(model, store)
        taken = predict_part(model, store, elements_as={"Si": "C"})
        assert taken.errors() == predict_part(model, same).errors()


def test_evaluation_of_an_empty_part_is_refused(tmp_path, model_file):
    data = write_store(tmp_path / "data.h5", n=6, n_val=2, n_test=0)
    with Store(data) as store, pytest.raises(UserError, match="has no test structures"):
        predict_part(load_model(model_file), store)


@pytest.mark.parametrize("pair", ["Si", "Si:", ":C"])
def test_a_fault_of_elements_as_is_named(pair):
    with pytest.raises(UserError, match="not of the form Si:C"):
        parse_elements_as([pair])


def test_a_file_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(UserError, match="no model at"):
        load_model(tmp_path / "nothing.ckpt")
    for name in ("broken.ckpt", "broken.pth"):
        (tmp_path / name).write_text("not a model")
        with pytest.raises(UserError, match=name):
            load_model(tmp_path / name, avg_num_neighbors=31.0 if name.endswith("pth") else None)


def test_a_file_of_predictions_is_one_or_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        Predictions.load(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("text")
    with pytest.raises(UserError, match="not predictions"):
        Predictions.load(tmp_path / "text.npz")


def test_the_average_belongs_to_published_weights_only(model_file):
    with pytest.raises(UserError, match="knows its average number of neighbours"):
        load_model(model_file, avg_num_neighbors=31.0)


def run(root, script, *arguments):
    """Run one of the programs."""
    command = [sys.executable, f"workflow/scripts/{script}.py", *map(str, arguments)]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


def check_predictions(path, data, errors):
    """Stored predictions hold the labels of the test structures, and explain the errors."""
    stored = Predictions.load(path)
    with Store(data) as store:
        labelled = store.subset("test")
    forces = np.concatenate([atoms.get_forces() for atoms in labelled])
    np.testing.assert_array_equal(stored.forces, forces)
    energies = [atoms.get_potential_energy() for atoms in labelled]
    np.testing.assert_array_equal(stored.energy, energies)
    assert stored.n_atoms.tolist() == [len(atoms) for atoms in labelled]
    rmse = np.sqrt(np.mean((stored.predicted_forces - forces) ** 2))
    assert errors["force_rmse_ev_per_angstrom"] == pytest.approx(rmse)
    difference = (stored.predicted_energy - energies) / stored.n_atoms
    shift = np.median(difference)
    assert errors["median_shift_ev_per_atom"] == pytest.approx(shift)
    after = errors["energy_rmse_after_median_shift_mev_per_atom"]
    assert after == pytest.approx(1000 * np.sqrt(np.mean((difference - shift) ** 2)))


@pytest.mark.slow
def test_the_programs(root, tmp_path, model_file, data, frames):
    ase.io.write(tmp_path / "in.extxyz", frames)
    metrics = tmp_path / "new" / "metrics.json"
    options = ("--data", data, "--part", "test", "--out", metrics)
    options += ("--machine", '{"device": "cuda", "allow_cpu": true}')
    options += ("--predictions", tmp_path / "new" / "predictions.npz")
    done = run(root, "evaluate", "--model", model_file, *options)
    assert done.returncode == 0, done.stderr
    written = json.loads(metrics.read_text())
    expected = json.loads((model_file.parent / "metrics.json").read_text())["test"]
    assert {key: written["test"][key] for key in expected} == pytest.approx(expected, rel=1e-5)
    assert written["n_test"] == 10
    check_predictions(tmp_path / "new" / "predictions.npz", data, written["test"])
    done = run(root, "evaluate", "--model", model_file, "--data", data)
    assert done.stderr == "error: nothing to write: give --out, --predictions or both\n"
    options = ("--structures", tmp_path / "in.extxyz", "--out", tmp_path / "out.extxyz")
    done = run(root, "predict", "--model", tmp_path / "none.ckpt", *options)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("error: no model at")
    assert not (tmp_path / "out.extxyz").exists()


def test_published_weights_stand_in_for_a_pre_training(shared_data, tmp_path, data):
    weights = shared_data / "published" / "ace-10_000.pth"
    paper = {"num_layers": 4, "num_features": 32, "num_bessels": 8}
    settings_file = write_settings(tmp_path / "settings.yaml", network=paper, max_epochs=1)
    settings = load_settings(settings_file, "pretrain")
    kwargs = {"avg_num_neighbors": 31.0, "settings": settings, "transform": Transform()}
    with pytest.raises(UserError, match="has SHA-256 efcce17e.*, not 0123"):
        import_weights(weights, tmp_path / "run", sha256="0123", **kwargs)
    assert not (tmp_path / "run").exists()
    import_weights(weights, tmp_path / "run", **kwargs)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["n_parameters"] == 73_784
    assert metrics["test"] == {
        "energy_rmse_mev_per_atom": None,
        "force_rmse_ev_per_angstrom": None,
    }
    atoms = ase.io.read(shared_data / "c-synth-23m-frames.extxyz.gz", 0, format="extxyz")
    (imported,) = predict(load_model(tmp_path / "run" / "model.ckpt"), [atoms])
    (direct,) = predict(load_model(weights, avg_num_neighbors=31.0), [atoms])
    np.testing.assert_array_equal(imported.get_forces(), direct.get_forces())
    with pytest.raises(UserError, match="--avg-num-neighbors"):
        load_model(weights)
    fine = Request(
        kind="finetune",
        data=data,
        n=2,
        seed=1,
        settings=settings_file,
        out=tmp_path / "fine",
        initial=tmp_path / "run" / "model.ckpt",
    )
    assert train(fine) == 0
    metrics = json.loads((tmp_path / "fine" / "metrics.json").read_text())
    assert metrics["avg_num_neighbors"] > 40  # of the two cells, not of the pre-training


def test_weights_of_another_network_do_not_stand_in(shared_data, tmp_path):
    settings = load_settings(write_settings(tmp_path / "settings.yaml"), "pretrain")
    with pytest.raises(UserError, match="ace-10_000.pth: its weights do not fit"):
        import_weights(
            shared_data / "published" / "ace-10_000.pth",
            tmp_path / "run",
            avg_num_neighbors=31.0,
            settings=settings,
            transform=Transform(),
        )
    assert not (tmp_path / "run").exists()
