"""What a step computes, with NequIP's modules and in programs, against NequIP's own training."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from ase.io import read, write
from nequip.data import AtomicDataDict as Key

from pretraining.data.store import Store
from pretraining.data.transforms import Transform
from pretraining.dynamics.stability.run import Request as Dynamics
from pretraining.dynamics.stability.run import run
from pretraining.runtime.stop import INTERRUPTED
from pretraining.study.settings import settings_of
from pretraining.training.compiled import compile_cache as programs
from pretraining.training.compiled.loss_and_gradient import FUNCTIONS, Functions
from pretraining.training.loop import set_gradients
from pretraining.training.network.builders import network_config
from pretraining.training.network.checkpoint import (
    load_model,
    make_module,
    network_config_of,
    network_of,
)
from pretraining.training.network.graphs import StructureDataset, make_loader
from pretraining.training.predict import evaluate
from pretraining.training.run import Request, train
from stopping import interrupt
from toy import MD_TEST, TRAINING, rattled_cells, write_settings, write_store

LOSS = {"energy": 4.0, "forces": 1.0}
# Its programs are quickly made.
TINY = {"num_layers": 1, "num_features": 2, "num_bessels": 4}
compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(autouse=True)
def kept_apart(folder, monkeypatch):
    """Programs of the tests are no programs of the user's."""
    monkeypatch.setenv(programs.FOLDER_VARIABLE, str(folder / "cache"))


@pytest.fixture(scope="module")
def data(folder):
    return write_store(folder / "data.h5", n=24, n_val=4, n_test=4)


def config_of(cutoff=4.0):
    return network_config(TINY, type_names=["C"], avg_num_neighbors=20.0, seed=1, cutoff=cutoff)


def module_of(config):
    return make_module(config, settings_of({}, "direct").training, about={})


def batch_of(data, n=4, part="val"):
    with Store(data) as store:
        structures = StructureDataset(store, store.indices(part)[:n], ["C"], 4.0, Transform())
    return next(iter(make_loader(structures, n)))


def assert_agree(functions, others, batch, weights):
    (loss, gradients), (other, theirs) = (f.gradients(batch, weights) for f in (functions, others))
    torch.testing.assert_close(loss, other, rtol=1e-5, atol=0)
    size = max(float(gradient.abs().max()) for gradient in gradients)
    for mine, their in zip(gradients, theirs, strict=True):
        torch.testing.assert_close(mine, their, rtol=1e-3, atol=1e-5 * size)
    for mine, their in zip(
        functions.predict(batch, weights), others.predict(batch, weights), strict=True
    ):
        torch.testing.assert_close(mine, their, rtol=1e-4, atol=1e-5)


# -- against NequIP ------------------------------------------------------------------------------


def test_loss_and_gradients_are_those_of_nequips_module(data):
    module = module_of(config_of())
    batch = batch_of(data)
    network = network_of(module)
    loss, gradients = Functions(network, LOSS).gradients(batch, list(network.parameters()))
    module.train()
    theirs = module.loss(module({k: v.clone() for k, v in batch.items()}), batch)["weighted_sum"]
    theirs.backward()
    torch.testing.assert_close(loss, theirs.detach(), rtol=1e-6, atol=0)
    for weight, gradient in zip(network.parameters(), gradients, strict=True):
        own = torch.zeros_like(weight) if weight.grad is None else weight.grad
        torch.testing.assert_close(gradient, own, rtol=1e-5, atol=1e-6)


def nequip_train(folder, data, epochs):
    """Curve of ``nequip-train`` with the network, data and order of a run of this project."""
    from plain_config import plain_config  # what the benchmarks compare with

    with Store(data) as store:
        for part in ("train", "val"):
            write(folder / f"{part}.extxyz", store.subset(part, 16 if part == "train" else None))
    metrics = json.loads((folder / "own" / "metrics.json").read_text())
    model = config_of() | {"avg_num_neighbors": metrics["avg_num_neighbors"]}
    files = folder / "train.extxyz", folder / "val.extxyz"
    rate = TRAINING["learning_rate"]
    config = plain_config(model, *files, epochs, learning_rate=rate, seed=1)
    loader = config["data"]["train_dataloader"]
    del loader["shuffle"]
    loader["sampler"] = {
        "_target_": "pretraining.training.network.graphs.EpochSampler",
        "n": 16,
        "seed": 1,
    }
    logger = {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": str(folder / "logs")}
    config["trainer"] |= {"num_sanity_val_steps": 0, "log_every_n_steps": 1, "logger": logger}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "nequip.scripts.train", "-cp", str(folder), "-cn", "config"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (file,) = (folder / "logs").rglob("metrics.csv")
    rows: dict[int, dict[str, float]] = {}
    with open(file) as handle:
        for row in csv.DictReader(handle):
            known = {name: float(value) for name, value in row.items() if value}
            rows.setdefault(int(known["epoch"]) + 1, {}).update(known)
    return rows


@compiler
@pytest.mark.parametrize("choice", ["never", "always"])
def test_the_curve_is_that_of_plain_nequip_train(data, folder, choice, monkeypatch, root):
    monkeypatch.setenv("PYTHONPATH", str(root / "workflow"))
    monkeypatch.syspath_prepend(root / "benchmarks")
    epochs = 5
    place = folder / f"nequip-{choice}"
    place.mkdir()
    settings = write_settings(
        place / "settings.yaml", TINY, compile=choice, max_epochs=epochs, loss=LOSS
    )
    assert train(Request("direct", data, 16, 1, settings, place / "own")) == 0
    theirs = nequip_train(place, data, epochs)
    with open(place / "own" / "curve.csv") as handle:
        own = list(csv.DictReader(handle))[1:]
    assert len(own) == epochs
    for row in own:
        their = theirs[int(row["epoch"])]
        # Single precision, magnified from step to step.
        for name, value in {
            "train_loss_epoch/weighted_sum": float(row["train_loss"]),
            "val0_epoch/forces_rmse": float(row["val_force_rmse_ev_per_angstrom"]),
            "val0_epoch/per_atom_energy_rmse": float(row["val_energy_rmse_mev_per_atom"]) / 1000,
        }.items():
            assert value == pytest.approx(their[name], rel=2e-4), (row["epoch"], name)


def test_gradients_lie_in_memory_as_their_weights_do():
    """A fused optimiser on the CPU pairs numbers by their places in memory."""
    rows = torch.arange(15.0).view(3, 5) - 7
    steps = []
    for gradient in (rows, rows.T.contiguous().T, rows[:, :1].expand(3, 5)):
        weight = torch.nn.Parameter(torch.zeros(3, 5))
        set_gradients([weight], [gradient])
        torch.testing.assert_close(weight.grad, gradient)
        torch.optim.Adam([weight], lr=0.1, eps=1.0, fused=True).step()
        steps.append(weight.detach())
        torch.testing.assert_close(weight.sign(), -gradient.sign())
    torch.testing.assert_close(steps[0], steps[1])


@pytest.mark.parametrize("n", [1, 4])
def test_batches_can_be_copied_to_pinned_memory(data, n):
    assert all(tensor.is_contiguous() for tensor in batch_of(data, n).values())


def test_reading_batches_draws_no_random_numbers_of_the_run(data):
    before = torch.get_rng_state()
    batch_of(data)
    assert torch.equal(torch.get_rng_state(), before)


# -- programs ------------------------------------------------------------------------------------


@compiler
def test_programs_compute_what_the_modules_do(data):
    config = config_of()
    network = network_of(module_of(config))
    plain, compiled, said = Functions(network, LOSS), Functions(network, LOSS), []
    compiled.compile(config, batch_of(data, 3, "train"), said.append)
    assert compiled.compiled and not plain.compiled
    weights = [weight.detach() for weight in network.parameters()]
    # Other sizes than the example's, and other weights than the network's.
    for n in (2, 4):
        assert_agree(compiled, plain, batch_of(data, n), weights)
    assert_agree(compiled, plain, batch_of(data), [weight + 0.1 for weight in weights])
    # One structure does not fit the programs.
    assert_agree(compiled, plain, batch_of(data, 1), weights)
    # A second network finds them made, also for another seed and number of neighbours.
    before = len(said)
    other = config | {"seed": 2, "avg_num_neighbors": 30.0}
    network = network_of(module_of(other))
    again = Functions(network, LOSS)
    again.compile(other, batch_of(data, 3, "train"), said.append)
    assert again.compiled and len(said) == before
    weights = [weight.detach() for weight in network.parameters()]
    assert_agree(again, Functions(network, LOSS), batch_of(data), weights)


@compiler
def test_a_program_of_another_network_is_not_believed(data, folder, monkeypatch):
    said = []
    config, batch = config_of(), batch_of(data, 3, "train")
    Functions(network_of(module_of(config)), LOSS).compile(config, batch, said.append)
    monkeypatch.setenv(programs.FOLDER_VARIABLE, str(folder / "strange"))
    other = config_of(cutoff=5.0)
    monkeypatch.setattr(programs, "_key", lambda about, device: "the-same-for-all")
    for name in FUNCTIONS:
        (program,) = (folder / "cache").glob(f"{name}-*.pt2")
        (folder / "strange").mkdir(exist_ok=True)
        shutil.copy(program, folder / "strange" / f"{name}-the-same-for-all.pt2")
    functions = Functions(network_of(module_of(other)), LOSS)
    functions.compile(other, batch, said.append)
    assert not functions.compiled
    assert "programs and NequIP's modules differ" in said[-1]


@compiler
def test_a_program_that_gives_no_numbers_is_not_believed(data, monkeypatch):
    config, batch, said = config_of(), batch_of(data, 3, "train"), []
    functions = Functions(network_of(module_of(config)), LOSS)
    load = functions._load

    def spoilt(*arguments):
        found = load(*arguments)
        predict = found["predictions"]

        def without_numbers(*tensors):
            energies, forces = predict(*tensors)
            return [energies, forces * float("nan")]

        return found | {"predictions": without_numbers}

    monkeypatch.setattr(functions, "_load", spoilt)
    functions.compile(config, batch, said.append)
    assert not functions.compiled and "differ" in said[-1]


@compiler
def test_a_damaged_program_is_made_anew(data, folder, monkeypatch):
    config, batch, said = config_of(), batch_of(data, 3, "train"), []
    functions = Functions(network_of(module_of(config)), LOSS)
    functions.compile(config, batch, said.append, ["predictions"])
    (program,) = (folder / "cache").glob("predictions-*.pt2")
    monkeypatch.setenv(programs.FOLDER_VARIABLE, str(folder / "damaged"))
    (folder / "damaged").mkdir()
    (folder / "damaged" / program.name).write_bytes(program.read_bytes()[:5000])
    scratch = folder / "damaged" / f"{program.stem}.killed"
    scratch.mkdir()
    again = Functions(network_of(module_of(config)), LOSS)
    again.compile(config, batch, said.append, ["predictions"])
    assert again.compiled and not scratch.exists()
    assert "cannot be loaded" in said[-2] and "compiling predictions" in said[-1]


@compiler
def test_a_training_in_programs_ends_as_one_without(data, folder):
    results = {}
    for choice in ("never", "always"):
        settings = write_settings(folder / f"{choice}.yaml", TINY, compile=choice, max_epochs=6)
        request = Request("direct", data, 16, 1, settings, folder / choice)
        assert train(request) == 0
        said = (folder / choice / "train.log").read_text()
        assert ("not compiled" in said) == (choice == "never")
        results[choice] = evaluate(load_model(folder / choice / "model.ckpt"), Store(data))
    plain_run, compiled_run = results["never"], results["always"]
    for key, value in plain_run.items():
        assert compiled_run[key] == pytest.approx(value, rel=1e-3), key


@compiler
def test_a_run_in_programs_goes_on_in_programs_to_the_last_bit(data, folder):
    """Also where the run would begin without."""
    options = {"compile": "always", "max_epochs": 150, "patience": 150}
    settings = write_settings(folder / "resumed.yaml", TINY, **options)
    whole = Request("direct", data, 16, 1, settings, folder / "whole")
    assert train(whole) == 0
    part = dataclasses.replace(whole, out=folder / "resumed")
    assert interrupt(part, "epoch 20:", signal.SIGTERM) == INTERRUPTED
    assert train(dataclasses.replace(part, runtime={"compile": "never"})) == 0
    said = (part.out / "train.log").read_text()
    assert "resuming from" in said and "not compiled" not in said
    mine, theirs = (load_model(run.out / "model.ckpt").parameters() for run in (part, whole))
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


@pytest.mark.parametrize(("epochs", "worth"), [(2, False), (100_000, True)])
def test_a_short_run_alone_is_not_worth_compiling(data, folder, epochs, worth, monkeypatch):
    monkeypatch.setattr(Functions, "compile", lambda *arguments: None)  # takes minutes
    options = {"compile": "auto", "max_epochs": epochs, "patience": 1, "min_delta": 1e9}
    settings = write_settings(folder / f"auto-{epochs}.yaml", TINY, **options)
    assert train(Request("direct", data, 16, 1, settings, folder / f"auto-{epochs}")) == 0
    said = (folder / f"auto-{epochs}" / "train.log").read_text()
    assert ("as they are: worth compiling" in said) == worth
    assert ("as they are: not worth compiling" in said) != worth


@compiler
def test_dynamics_in_programs_are_those_without(data, folder, capfd):
    settings = write_settings(folder / "md.yaml", TINY)
    train(Request("direct", data, 16, 1, settings, folder / "md"))
    assert network_config_of(folder / "md" / "model.ckpt")["num_features"] == 2
    atoms = next(rattled_cells(1, seed=9)).repeat((2, 1, 1))
    atoms.calc = None
    write(folder / "start.extxyz", atoms)
    last = []
    for choice in ("never", "always"):
        out = folder / f"md-{choice}"
        model, start = folder / "md" / "model.ckpt", folder / "start.extxyz"
        run(Dynamics(model, start, MD_TEST, (1,), out, device="cpu", compile=choice))
        last.append(read(out / "replica~1" / "trajectory.extxyz", -1))
        assert ("forces by a compiled function" in capfd.readouterr().err) == (choice == "always")
    np.testing.assert_allclose(last[1].positions, last[0].positions, atol=1e-5)


@compiler
def test_a_run_can_be_stopped_while_it_compiles(data, folder):
    """It has another number of features than those before."""
    settings = write_settings(folder / "long.yaml", TINY | {"num_features": 3}, compile="always")
    request = Request("direct", data, 16, 1, settings, folder / "long")
    assert interrupt(request, "compiling gradients", signal.SIGTERM) == INTERRUPTED
    assert not list((folder / "cache").glob("*/")), "nothing half made is left"
    assert train(dataclasses.replace(request, runtime={"compile": "never"})) == 0


def test_a_folder_of_programs_that_cannot_be_made_is_named(data, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv(programs.FOLDER_VARIABLE, str(tmp_path / "file" / "programs"))
    config, said = config_of(), []
    functions = Functions(network_of(module_of(config)), LOSS)
    functions.compile(config, batch_of(data), said.append)
    assert not functions.compiled
    assert f"set {programs.FOLDER_VARIABLE} to a folder" in said[-1]


def test_without_a_compiler_the_modules_are_used_and_it_is_said(data, monkeypatch, tmp_path):
    monkeypatch.setenv(programs.FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", (None, str(tmp_path / "no-compiler")))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    config, said = config_of(), []
    functions = Functions(network_of(module_of(config)), LOSS)
    batch = batch_of(data)
    functions.compile(config, batch, said.append)
    assert not functions.compiled and "not compiled" in said[-1]
    energies, _ = functions.predict(batch, list(network_of(module_of(config)).parameters()))
    assert len(energies) == len(batch[Key.NUM_NODES_KEY])
    assert not list(tmp_path.rglob("*.pt2"))
    # The next run does not spend a minute on finding out.
    (failure,) = tmp_path.glob("*.failed")
    before = len(said)
    functions.compile(config, batch, said.append)
    (again,) = said[before:]
    assert "not compiled" in again and f"delete {failure} to have it tried again" in again
