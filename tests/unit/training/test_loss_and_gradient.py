"""Loss, gradients and predictions: by modules, compiled, and by NequIP's own training."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

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
from pretraining.training.compiled import compile_cache as cache
from pretraining.training.compiled.loss_and_gradient import FUNCTIONS, Evaluator
from pretraining.training.loop import set_gradients
from pretraining.training.network.builders import network_config
from pretraining.training.network.checkpoint import (
    load_model,
    make_module,
    network_config_of,
    network_of,
)
from pretraining.training.network.graphs import StructureDataset, make_loader
from pretraining.training.predict import predict_part
from pretraining.training.run import Request, train
from stopping import interrupt, start, wait_for
from toy import MD_TEST, NETWORK, TRAINING, rattled_cells, write_settings, write_store

LOSS = {"energy": 4.0, "forces": 1.0}
EPOCHS = 5


def compiler(test):
    """Mark a test that compiles the toy network, or uses what another has compiled."""
    missing = shutil.which("g++") is None
    return pytest.mark.slow(pytest.mark.skipif(missing, reason="needs a C++ compiler")(test))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def data(folder):
    return write_store(folder / "data.h5", n=24, n_val=4, n_test=4)


@pytest.fixture(scope="module")
def runs(folder, data):
    """Folders of the same run with NequIP's modules and with compiled functions."""
    for choice in ("never", "always"):
        settings = write_settings(folder / f"{choice}.yaml", compile=choice, max_epochs=EPOCHS)
        assert train(Request("direct", data, 16, 1, settings, folder / choice)) == 0
        said = (folder / choice / "train.log").read_text()
        assert ("not compiled" in said) == (choice == "never")
    return {choice: folder / choice for choice in ("never", "always")}


def config_of(cutoff=4.0):
    return network_config(NETWORK, type_names=["C"], avg_num_neighbors=20.0, seed=1, cutoff=cutoff)


def module_of(config):
    return make_module(config, settings_of({}, "direct").training, about={})


def batch_of(data, n=4, part="val"):
    with Store(data) as store:
        structures = StructureDataset(store, store.indices(part)[:n], ["C"], 4.0, Transform())
    return next(iter(make_loader(structures, n)))


def assert_agree(evaluator, other_one, batch, weights):
    both = (evaluator, other_one)
    (loss, gradients), (other, theirs) = (e.gradients(batch, weights) for e in both)
    torch.testing.assert_close(loss, other, rtol=1e-5, atol=0)
    size = max(float(gradient.abs().max()) for gradient in gradients)
    for mine, their in zip(gradients, theirs, strict=True):
        torch.testing.assert_close(mine, their, rtol=1e-3, atol=1e-5 * size)
    for mine, their in zip(*(e.predict(batch, weights) for e in both), strict=True):
        torch.testing.assert_close(mine, their, rtol=1e-4, atol=1e-5)


# -- against NequIP ------------------------------------------------------------------------------


def test_loss_and_gradients_are_those_of_nequips_module(data):
    module = module_of(config_of())
    batch = batch_of(data)
    network = network_of(module)
    loss, gradients = Evaluator(network, LOSS).gradients(batch, list(network.parameters()))
    module.train()
    theirs = module.loss(module({k: v.clone() for k, v in batch.items()}), batch)["weighted_sum"]
    theirs.backward()
    torch.testing.assert_close(loss, theirs.detach(), rtol=1e-6, atol=0)
    for weight, gradient in zip(network.parameters(), gradients, strict=True):
        own = torch.zeros_like(weight) if weight.grad is None else weight.grad
        torch.testing.assert_close(gradient, own, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def nequip_curve(folder, data, runs, root):
    """Curve of ``nequip-train`` with the network, data and order of a run of this project."""
    sys.path.insert(0, str(root / "benchmarks"))
    from plain_config import plain_config  # what the benchmarks compare with

    with Store(data) as store:
        for part in ("train", "val"):
            write(folder / f"{part}.extxyz", store.subset(part, 16 if part == "train" else None))
    metrics = json.loads((runs["never"] / "metrics.json").read_text())
    model = config_of() | {"avg_num_neighbors": metrics["avg_num_neighbors"]}
    files = folder / "train.extxyz", folder / "val.extxyz"
    rate = TRAINING["learning_rate"]
    config = plain_config(model, *files, EPOCHS, learning_rate=rate, seed=1)
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
    environment = os.environ | {"PYTHONPATH": str(root / "workflow")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
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
def test_the_curve_is_that_of_plain_nequip_train(runs, nequip_curve, choice):
    with open(runs[choice] / "curve.csv") as handle:
        own = list(csv.DictReader(handle))[1:]
    assert len(own) == EPOCHS
    for row in own:
        their = nequip_curve[int(row["epoch"])]
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


# -- compiled functions ----------------------------------------------------------------------------


@compiler
def test_compiled_functions_compute_what_the_modules_do(data):
    config = config_of()
    network = network_of(module_of(config))
    plain, compiled, said = Evaluator(network, LOSS), Evaluator(network, LOSS), []
    compiled.compile(config, batch_of(data, 3, "train"), said.append)
    assert compiled.compiled and not plain.compiled
    weights = [weight.detach() for weight in network.parameters()]
    # Other sizes than the example's, and other weights than the network's.
    for n in (2, 4):
        assert_agree(compiled, plain, batch_of(data, n), weights)
    assert_agree(compiled, plain, batch_of(data), [weight + 0.1 for weight in weights])
    # One structure does not fit compiled functions.
    assert_agree(compiled, plain, batch_of(data, 1), weights)
    # A second network finds them compiled, also with another seed and number of neighbours.
    before = len(said)
    other = config | {"seed": 2, "avg_num_neighbors": 30.0}
    network = network_of(module_of(other))
    again = Evaluator(network, LOSS)
    again.compile(other, batch_of(data, 3, "train"), said.append)
    assert again.compiled and len(said) == before
    weights = [weight.detach() for weight in network.parameters()]
    assert_agree(again, Evaluator(network, LOSS), batch_of(data), weights)


@pytest.fixture
def compiled_files(data, runs, compile_cache, monkeypatch):
    """Compiled functions of the runs' network, by name."""
    found = {}
    load = cache._load
    monkeypatch.setattr(
        cache, "_load", lambda file: found.update({file.stem.split("-")[0]: file}) or load(file)
    )
    config = config_of()
    evaluator = Evaluator(network_of(module_of(config)), LOSS)
    evaluator.compile(config, batch_of(data, 3, "train"), print)
    assert evaluator.compiled and found.keys() == set(FUNCTIONS)
    monkeypatch.setattr(cache, "_load", load)
    return found


def copy_of(file, folder):
    """Copy a compiled function and its checksum into a folder."""
    shutil.copy(file.with_suffix(".sha256"), folder)
    return Path(shutil.copy(file, folder))


@compiler
def test_a_compiled_function_of_another_network_is_rejected(
    data, compiled_files, monkeypatch, tmp_path
):
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(cache, "_key", lambda about, device: "the-same-for-all")
    for name, file in compiled_files.items():
        copied = copy_of(file, tmp_path)
        for part in (copied, copied.with_suffix(".sha256")):
            part.rename(tmp_path / f"{name}-the-same-for-all{part.suffix}")
    other, said = config_of(cutoff=5.0), []
    evaluator = Evaluator(network_of(module_of(other)), LOSS)
    evaluator.compile(other, batch_of(data, 3, "train"), said.append)
    assert not evaluator.compiled
    assert "compiled functions and NequIP's modules differ" in said[-1]


@compiler
def test_a_compiled_function_that_gives_no_numbers_is_rejected(data, runs, monkeypatch):
    config, batch, said = config_of(), batch_of(data, 3, "train"), []
    evaluator = Evaluator(network_of(module_of(config)), LOSS)
    load = evaluator._load

    def spoilt(*arguments):
        found = load(*arguments)
        predict = found["predictions"]

        def without_numbers(*tensors):
            energies, forces = predict(*tensors)
            return [energies, forces * float("nan")]

        return found | {"predictions": without_numbers}

    monkeypatch.setattr(evaluator, "_load", spoilt)
    evaluator.compile(config, batch, said.append)
    assert not evaluator.compiled and "differ" in said[-1]


@compiler
def test_a_damaged_compiled_function_is_compiled_again(data, compiled_files, monkeypatch, tmp_path):
    good = compiled_files["predictions"]
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(cache, "_compile", lambda uncompiled, file: copy_of(good, file.parent))
    (tmp_path / good.name).write_bytes(good.read_bytes()[:5000])
    scratch = tmp_path / f"{good.stem}.killed"
    scratch.mkdir()
    config, said = config_of(), []
    evaluator = Evaluator(network_of(module_of(config)), LOSS)
    evaluator.compile(config, batch_of(data, 3, "train"), said.append, ["predictions"])
    assert evaluator.compiled and not scratch.exists()
    assert "cannot be loaded" in said[-2] and "compiling predictions" in said[-1]


@compiler
def test_a_compiled_training_ends_as_one_without(data, runs):
    with Store(data) as store:
        plain, compiled = (
            predict_part(load_model(run / "model.ckpt"), store).errors() for run in runs.values()
        )
    for key, value in plain.items():
        assert compiled[key] == pytest.approx(value, rel=1e-3), key


@compiler
def test_a_compiled_run_resumes_compiled_to_the_last_bit(data, folder, runs):
    """Also where the run would not begin so."""
    options = {"compile": "always", "max_epochs": 150, "patience": 150}
    settings = write_settings(folder / "resumed.yaml", **options)
    whole = Request("direct", data, 16, 1, settings, folder / "whole")
    assert train(whole) == 0
    part = dataclasses.replace(whole, out=folder / "resumed")
    assert interrupt(part, "epoch 20:", signal.SIGTERM) == INTERRUPTED
    assert train(dataclasses.replace(part, runtime={"compile": "never"})) == 0
    said = (part.out / "train.log").read_text()
    assert "resuming from" in said and "not compiled" not in said
    mine, theirs = (load_model(run.out / "model.ckpt").parameters() for run in (part, whole))
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


@pytest.mark.parametrize(
    ("choice", "epochs", "reason"),
    [
        ("auto", 2, "uncompiled steps: not worth compiling, which takes minutes (compile: auto, "),
        ("auto", 100_000, "uncompiled steps: worth compiling"),
        ("always", 2, "compile: always (set"),
        ("never", 2, "compile: never (set)"),
    ],
)
def test_a_run_compiles_if_it_is_worth_it_or_was_done_before(
    data, folder, choice, epochs, reason, monkeypatch
):
    asked = []

    def stand_in(evaluator, config, example, log):
        """Leave the files of compiled functions, which takes minutes otherwise."""
        asked.append(config)
        for name in FUNCTIONS:
            file = cache.function_file(evaluator._about(name, config), torch.device("cpu"))
            file.parent.mkdir(exist_ok=True)
            file.touch()

    monkeypatch.setattr(Evaluator, "compile", stand_in)
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(folder / f"cache-{choice}-{epochs}"))

    def said(name, **others):
        options = {"compile": choice, "max_epochs": epochs, "patience": 1, "min_delta": 1e9}
        settings = write_settings(folder / f"{name}.yaml", **options | others)
        assert train(Request("direct", data, 16, 1, settings, folder / name)) == 0
        return (folder / name / "train.log").read_text()

    assert reason in said(f"first-{choice}-{epochs}")
    done = bool(asked)
    assert done == (choice == "always" or epochs > 2)
    later = said(f"later-{choice}-{epochs}", compile="auto", max_epochs=2)
    assert ("has compiled these functions before" in later) == done
    assert len(asked) == 2 * done


@compiler
def test_compiled_dynamics_are_those_without(runs, folder, capfd):
    model, start = runs["never"] / "model.ckpt", folder / "start.extxyz"
    assert network_config_of(model)["num_features"] == NETWORK["num_features"]
    atoms = next(rattled_cells(1, seed=9)).repeat((2, 1, 1))
    atoms.calc = None
    write(start, atoms)
    last = []
    for choice in ("never", "always"):
        out = folder / f"md-{choice}"
        run(Dynamics(model, start, MD_TEST, (1,), out, device="cpu", compile=choice))
        last.append(read(out / "replica~1" / "trajectory.extxyz", -1))
        assert ("forces by a compiled function" in capfd.readouterr().err) == (choice == "always")
    np.testing.assert_allclose(last[1].positions, last[0].positions, atol=1e-5)


@compiler
def test_a_run_can_be_stopped_while_it_compiles(data, folder, root, monkeypatch, tmp_path):
    monkeypatch.chdir(root)
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path))
    settings = write_settings(folder / "long.yaml", compile="always")
    request = Request("direct", data, 16, 1, settings, folder / "long")
    # A program of its own: PyTorch's tracing cannot be left halfway in a process that goes on.
    process = start(request)
    wait_for("compiling gradients", request.out / "state" / "train.log", process)
    process.send_signal(signal.SIGTERM)
    _, messages = process.communicate(timeout=120)
    assert process.returncode == INTERRUPTED, messages
    assert not list(tmp_path.glob("*/")), "nothing half made is left"
    assert train(dataclasses.replace(request, runtime={"compile": "never"})) == 0


def test_a_cache_folder_that_cannot_be_made_is_named(data, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path / "file" / "compiled"))
    config, said = config_of(), []
    evaluator = Evaluator(network_of(module_of(config)), LOSS)
    evaluator.compile(config, batch_of(data), said.append)
    assert not evaluator.compiled
    assert f"set {cache.CACHE_VARIABLE} to a folder" in said[-1]


@compiler
@pytest.mark.parametrize("what", ["folder", "owner", "file", "record", "content"])
def test_a_compiled_function_of_somebody_else_is_not_loaded(
    what, data, compiled_files, monkeypatch, tmp_path
):
    good, said = compiled_files["predictions"], []
    file = copy_of(good, tmp_path)
    tmp_path.chmod(0o777 if what == "folder" else 0o700)
    match what:
        case "owner":
            monkeypatch.setattr(cache.os, "getuid", lambda: 12345)
        case "file":
            file.chmod(0o666)
        case "record":
            file.with_suffix(".sha256").chmod(0o620)
        case "content":
            with open(file, "ab") as handle:
                handle.write(b"more")
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path))
    loaded = []
    monkeypatch.setattr(torch._inductor, "aoti_load_package", lambda *a, **k: loaded.append(a))
    monkeypatch.setattr(cache, "_compile", lambda *arguments: 1 / 0)
    config = config_of()
    evaluator = Evaluator(network_of(module_of(config)), LOSS)
    evaluator.compile(config, batch_of(data, 3, "train"), said.append, ["predictions"])
    assert not loaded and not evaluator.compiled
    assert ("compiling it again" in str(said)) == (what in ("file", "record", "content"))
    assert ("can be written by others" in str(said)) == (what != "content"), said


@pytest.mark.slow
def test_without_a_compiler_the_modules_are_used_and_the_log_says_so(data, monkeypatch, tmp_path):
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", (None, str(tmp_path / "no-compiler")))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    config, said = config_of(), []
    network = network_of(module_of(config))
    evaluator, batch = Evaluator(network, LOSS), batch_of(data)
    evaluator.compile(config, batch, said.append, ["predictions"])
    assert not evaluator.compiled and "not compiled" in said[-1]
    energies, _ = evaluator.predict(batch, list(network.parameters()))
    assert len(energies) == len(batch[Key.NUM_NODES_KEY])
    assert not list(tmp_path.rglob("*.pt2"))
    # The next run does not spend a minute on finding out.
    (failure,) = tmp_path.glob("*.failed")
    before = len(said)
    evaluator.compile(config, batch, said.append, ["predictions"])
    (again,) = said[before:]
    assert "not compiled" in again and f"delete {failure} to try again" in again
