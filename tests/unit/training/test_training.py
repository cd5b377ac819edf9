"""Training: the procedure, interruption and resumption, divergence, refusals."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import signal
import sys
import threading
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list

from pretraining.data.store import Store
from pretraining.data.transforms import Transform
from pretraining.runtime.errors import UserError
from pretraining.runtime.records import DIGEST
from pretraining.runtime.stop import INTERRUPTED, Interrupted, StopRequest
from pretraining.training.network.checkpoint import load_model
from pretraining.training.network.graphs import EpochSampler, StructureDataset, make_loader
from pretraining.training.predict import predict, predict_part
from pretraining.training.run import Request, train
from pretraining.training.state import RunState
from stopping import interrupt, start, wait_for
from toy import labelled, rattled_cells, write_settings, write_store

OUTPUTS = ("curve.csv", "metrics.json", "model.ckpt", "train.log")
LEASE = SimpleNamespace(name="test", check=lambda: None)
TIMES = ("train_time_s", "wall_time_s", "outputs_sha256", DIGEST)
N = 25  # three steps an epoch


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("training")


@pytest.fixture(scope="module")
def data(folder):
    return write_store(folder / "data.h5")


@pytest.fixture(scope="module")
def settings(folder):
    return write_settings(folder / "settings.yaml")


def request(folder, pool, options, **kwargs):
    """Return a direct training, or what `kwargs` make of it."""
    defaults = {"kind": "direct", "data": pool, "n": N, "seed": 1, "settings": options}
    return Request(**(defaults | {"out": folder} | kwargs))


@pytest.fixture(scope="module")
def finished(folder, data, settings):
    """Folder of a run that nothing has disturbed."""
    out = folder / "finished"
    assert train(request(out, data, settings)) == 0
    return out


def metrics_of(out):
    return json.loads((out / "metrics.json").read_text())


def curve_of(out):
    with open(out / "curve.csv") as handle:
        return [
            {k: v for k, v in row.items() if k != "elapsed_s"} for row in csv.DictReader(handle)
        ]


def weights_of(out):
    return dict(load_model(out / "model.ckpt").named_parameters())


def assert_same_run(out, other):
    """Two runs are the same to the last bit, but for the time they took."""
    first, second = metrics_of(out), metrics_of(other)
    for name in TIMES:
        first.pop(name), second.pop(name)
    assert first == second
    assert curve_of(out) == curve_of(other)
    theirs = weights_of(other)
    assert all(torch.equal(weight, theirs[name]) for name, weight in weights_of(out).items())


# -- the procedure -------------------------------------------------------------------------------


def test_a_run_leaves_its_outputs_and_nothing_else(finished, data):
    files = sorted(path.name for path in finished.iterdir())
    assert files == ["curve.csv", "metrics.json", "model.ckpt", "train.log"]
    metrics = metrics_of(finished)
    assert (metrics["kind"], metrics["n"], metrics["seed"]) == ("direct", N, 1)
    assert (metrics["n_train"], metrics["n_val"], metrics["n_test"]) == (N, 5, 10)
    assert (metrics["epochs"], metrics["steps"]) == (8, 24)
    assert metrics["stopped_because"] == "max_epochs" and metrics["diverged"] is False
    assert metrics["device"] == "cpu" and metrics["wall_time_s"] >= metrics["train_time_s"] > 0
    for part in ("train", "val", "test"):
        assert metrics[part]["energy_rmse_mev_per_atom"] > 0
        assert metrics[part]["force_rmse_ev_per_angstrom"] > 0


def test_the_curve_begins_before_the_first_step_and_the_loss_falls(finished):
    rows = curve_of(finished)
    assert [int(row["epoch"]) for row in rows] == list(range(9))
    assert rows[0]["train_loss"] == ""
    assert float(rows[-1]["train_loss"]) < float(rows[1]["train_loss"])
    assert {float(row["learning_rate"]) for row in rows} == {0.03}


def test_the_metrics_are_those_of_the_stored_model(finished, data):
    metrics = metrics_of(finished)
    best = curve_of(finished)[metrics["best_epoch"]]
    assert float(best["val_force_rmse_ev_per_angstrom"]) == pytest.approx(
        metrics["val"]["force_rmse_ev_per_angstrom"]
    )
    model = load_model(finished / "model.ckpt")
    with Store(data) as store:
        for part in ("val", "test"):
            errors = predict_part(model, store, part).errors(part)[part]
            same = {key: errors[key] for key in metrics[part]}
            assert same == pytest.approx(metrics[part], rel=1e-5)


def test_the_test_errors_are_the_plain_root_mean_squares(finished, data):
    model = load_model(finished / "model.ckpt")
    with Store(data) as store:
        frames = store.subset("test")
    energies, forces = [], []
    for atoms, predicted in zip(frames, predict(model, frames), strict=True):
        difference = predicted.get_potential_energy() - atoms.get_potential_energy()
        energies.append(difference / len(atoms))
        forces.append(predicted.get_forces() - atoms.get_forces())
    errors = metrics_of(finished)["test"]
    rmse = 1000 * np.sqrt(np.mean(np.square(energies)))
    assert errors["energy_rmse_mev_per_atom"] == pytest.approx(rmse, rel=1e-4)
    rmse = np.sqrt(np.mean(np.square(forces)))
    assert errors["force_rmse_ev_per_angstrom"] == pytest.approx(rmse, rel=1e-4)


def test_the_average_number_of_neighbours_is_of_the_runs_own_subset(tmp_path, data):
    settings = write_settings(tmp_path / "settings.yaml", max_epochs=1)
    averages = []
    for n in (3, 12):
        train(request(tmp_path / str(n), data, settings, n=n))
        with Store(data) as store:
            frames = store.subset("train", n)
        counts = np.concatenate([np.bincount(neighbor_list("i", atoms, 4.0)) for atoms in frames])
        averages.append(metrics_of(tmp_path / str(n))["avg_num_neighbors"])
        assert averages[-1] == pytest.approx(counts.mean())
    assert averages[0] != averages[1]


def test_the_seed_changes_the_weights_and_only_the_seed_and_epoch_the_order(finished, data):
    def order(seed, epoch):
        sampler = EpochSampler(20, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(1, 3) == order(1, 3)
    assert sorted(order(1, 3)) == list(range(20))
    assert order(1, 3) != order(1, 4) and order(1, 3) != order(2, 3)
    resumed = EpochSampler(20, 1)
    resumed.set_epoch(3, done=12)
    assert list(resumed) == order(1, 3)[12:]
    resumed.set_epoch(4)
    assert list(resumed) == order(1, 4)


def test_early_stopping_and_the_best_model_count_the_validation_before_the_first_step(
    tmp_path, data, finished
):
    settings = write_settings(tmp_path / "settings.yaml", learning_rate=0.5, patience=3)
    out = tmp_path / "finetuned"
    kind = {"kind": "finetune", "initial": finished / "model.ckpt"}
    assert train(request(out, data, settings, **kind)) == 0
    metrics = metrics_of(out)
    assert metrics["best_epoch"] == 0
    assert (metrics["stopped_because"], metrics["epochs"]) == ("patience", 3)
    # on the very subset of its parent it starts as the parent ended
    assert metrics["test"] == metrics_of(finished)["test"]
    parent = weights_of(finished)
    assert all(torch.equal(weight, parent[name]) for name, weight in weights_of(out).items())


def test_patience_counts_improvements_of_at_least_min_delta(tmp_path, data):
    settings = write_settings(tmp_path / "settings.yaml", patience=2, min_delta=50.0)
    train(request(tmp_path / "out", data, settings))
    metrics = metrics_of(tmp_path / "out")
    assert (metrics["stopped_because"], metrics["epochs"]) == ("patience", 2)
    # the best model is the best all the same
    errors = [float(row["val_force_rmse_ev_per_angstrom"]) for row in curve_of(tmp_path / "out")]
    assert metrics["best_epoch"] == int(np.argmin(errors))


def test_a_carbon_network_is_fine_tuned_on_silicon(tmp_path, settings, data, finished):
    silicon = write_store(tmp_path / "si.h5", symbol="Si")
    kind = {"kind": "finetune", "initial": finished / "model.ckpt", "n": 8}
    short = write_settings(tmp_path / "settings.yaml", max_epochs=1)
    train(request(tmp_path / "si", silicon, short, **kind))
    train(request(tmp_path / "c", data, short, **kind))
    assert metrics_of(tmp_path / "si")["elements"] == ["Si"]
    # the toy's labels do not look at the element
    assert curve_of(tmp_path / "si") == curve_of(tmp_path / "c")


def test_pre_training_on_transformed_structures(tmp_path, data):
    settings = write_settings(tmp_path / "settings.yaml", max_epochs=1)
    train(request(tmp_path / "pre", data, settings, kind="pretrain", transform="Si"))
    metrics = metrics_of(tmp_path / "pre")
    assert (metrics["elements"], metrics["cutoff"]) == (["Si"], 5.0)
    silicon = write_store(tmp_path / "si.h5", symbol="Si")
    kind = {"kind": "finetune", "initial": tmp_path / "pre" / "model.ckpt"}
    train(request(tmp_path / "fine", silicon, settings, **kind))
    assert metrics_of(tmp_path / "fine")["cutoff"] == 4.0
    assert load_model(tmp_path / "fine" / "model.ckpt").metadata["r_max"] == "4.0"


# -- the data as the network sees it -------------------------------------------------------------


def test_neighbour_lists_made_at_each_access_are_the_same(data):
    with Store(data) as store:
        kept, remade = (
            StructureDataset(store, store.indices("val"), ["C"], 4.0, Transform(), memory)
            for memory in (1e9, 0)
        )
    assert (kept.n_cached, remade.n_cached) == (5, 0)
    assert kept.avg_num_neighbors == remade.avg_num_neighbors
    (a,), (b,) = (list(make_loader(dataset, 5)) for dataset in (kept, remade))
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert torch.equal(tensor, b[name])
        assert tensor.dtype in (torch.float64, torch.int64)


def test_atoms_without_neighbours_do_not_count_in_the_average(tmp_path):
    pair = labelled(Atoms("C3", [[0, 0, 0], [0, 0, 1.6], [0, 0, 8]], cell=[12] * 3, pbc=True))
    Store.write(tmp_path / "pair.h5", [pair], n_val=0, n_test=0)
    with Store(tmp_path / "pair.h5") as store:
        dataset = StructureDataset(store, [0], ["C"], 4.0, Transform())
    assert dataset.avg_num_neighbors == 1.0


def test_a_structure_without_a_cell_can_be_learnt(tmp_path):
    frames = list(rattled_cells(8))
    for atoms in frames[::2]:
        atoms.pbc, atoms.cell = False, None
        labelled(atoms)
    Store.write(tmp_path / "mixed.h5", frames, n_val=2, n_test=2)
    settings = write_settings(tmp_path / "settings.yaml", max_epochs=2)
    train(request(tmp_path / "out", tmp_path / "mixed.h5", settings, n=4))
    metrics = metrics_of(tmp_path / "out")
    assert not metrics["diverged"] and metrics["test"]["force_rmse_ev_per_angstrom"] > 0


# -- interruption --------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_killed_and_stopped_ends_as_if_it_had_not_been(
    root, folder, data, settings, finished, monkeypatch
):
    monkeypatch.chdir(root)
    out = folder / "killed"
    log = out / "state" / "train.log"
    process = start(request(out, data, settings))
    wait_for("epoch 2:", log, process)
    process.kill()
    process.communicate()
    assert not (out / "metrics.json").exists()
    process = start(request(out, data, settings))
    wait_for("epoch 4:", log, process)
    process.send_signal(signal.SIGTERM)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED, messages
    assert "resuming from" in messages and "stopped by SIGTERM" in messages
    assert train(request(out, data, settings)) == 0
    assert not (out / "state").exists()
    log = (out / "train.log").read_text()
    assert log.count("resuming from") == 2 and "afresh" not in log
    assert_same_run(out, finished)


# The lease has its own tests (tests/unit/runtime/test_lease.py).
@pytest.mark.slow
@pytest.mark.parametrize("first", ["ends", "is killed"])
def test_a_second_process_leaves_a_run_to_the_first(
    root, folder, data, settings, finished, monkeypatch, capfd, first
):
    monkeypatch.chdir(root)
    out = folder / f"twice-{first}"
    slow = write_settings(folder / "slow.yaml", max_epochs=8 if first == "ends" else 400)
    process = start(request(out, data, slow))
    wait_for("epoch 1:", out / "state" / "train.log", process)
    if first == "is killed":
        threading.Timer(3, process.kill).start()
        # What the killed one did belongs to another run than that of this one.
        slow = settings
    assert train(request(out, data, slow)) == 0
    assert (process.wait() == 0) == (first == "ends")
    process.stderr.close()
    said = capfd.readouterr().err
    assert f"process {process.pid} on " in said and "works on it: waiting" in said
    assert ("done by that process" in said) == (first == "ends")
    assert ("starting afresh" in said) == (first == "is killed")
    assert_same_run(out, finished)
    assert sorted(path.name for path in out.iterdir()) == sorted(OUTPUTS)


def test_a_run_goes_on_when_nobody_reads_its_messages(folder, data, settings, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as broken:
        monkeypatch.setattr(sys, "stderr", broken)
        assert train(request(folder / "unread", data, settings, n=5)) == 0
        with contextlib.suppress(BrokenPipeError):
            broken.close()


def test_a_signal_waits_for_a_step_only_while_there_are_steps():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        stop.deferred = True
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop and stop.signal == "SIGTERM"
        stop.deferred = False
        with pytest.raises(Interrupted, match="stopped by SIGUSR1"):
            os.kill(os.getpid(), signal.SIGUSR1)
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.fixture(scope="module")
def stopped(folder, data, settings):
    """Folder of a run that a signal has stopped: state only, to be copied."""
    out = folder / "stopped"
    assert interrupt(request(out, data, settings)) == INTERRUPTED
    return out


def test_a_signal_alone_makes_a_run_save_its_state(folder, data, finished):
    settings = write_settings(folder / "seldom.yaml", checkpoint_seconds=3600)
    out = folder / "signalled"
    assert interrupt(request(out, data, settings), number=signal.SIGTERM) == INTERRUPTED
    assert [path.name for path in out.iterdir()] == ["state"]
    assert train(request(out, data, settings)) == 0
    assert "resuming from" in (out / "train.log").read_text()
    assert_same_run(out, finished)


def flip_bits(content):
    """Change bits in the middle of a file, where weights are: PyTorch itself loads them."""
    middle = len(content) // 2
    flipped = bytes(byte ^ 1 for byte in content[middle : middle + 256])
    return content[:middle] + flipped + content[middle + 256 :]


@pytest.mark.parametrize(
    ("how", "damage"),
    [
        ("cut", lambda content: content[:5000]),
        ("end-missing", lambda content: content[:-1]),
        ("empty", lambda content: b""),
        ("garbage", lambda content: b"\x80" * len(content)),
        ("bits", flip_bits),
    ],
)
def test_a_broken_checkpoint_is_set_aside_and_the_one_before_used(
    folder, data, settings, stopped, finished, how, damage
):
    out = shutil.copytree(stopped, folder / f"broken-{how}")
    last = out / "state" / "last.ckpt"
    last.write_bytes(damage(last.read_bytes()))
    assert train(request(out, data, settings)) == 0
    log = (out / "train.log").read_text()
    assert "last.ckpt cannot be used" in log and "set aside as" in log
    assert "resuming from" in log and "previous.ckpt" in log and "afresh" not in log
    assert_same_run(out, finished)


def test_without_a_readable_checkpoint_the_run_starts_again(
    folder, data, settings, stopped, finished
):
    out = shutil.copytree(stopped, folder / "lost")
    for name in ("last.ckpt", "previous.ckpt"):
        (out / "state" / name).write_bytes(b"not a checkpoint")
    assert train(request(out, data, settings)) == 0
    log = (out / "train.log").read_text()
    assert log.count("cannot be used") == 2 and "resuming from" not in log
    assert "starting afresh: no saved state can be used" in log
    assert_same_run(out, finished)


def rewritten(folder, change):
    """Write the state of a run as another version of the program might."""
    state = RunState(folder, json.loads((folder / "state/identity.json").read_text()), LEASE)
    content = state.load(lambda content: None)
    change(content)
    state.save(content)
    state.save(content)


@pytest.mark.parametrize(
    ("why", "change"),
    [
        ("compiled", lambda content: content.pop("compiled")),
        ("novel", lambda content: content.update(novel=1)),
        ("another network", lambda content: content["module"].popitem()),
    ],
)
def test_the_state_of_another_version_is_set_aside(folder, data, settings, stopped, why, change):
    out = shutil.copytree(stopped, folder / f"version-{why.split()[0]}")
    rewritten(out, change)
    assert train(request(out, data, settings)) == 0
    log = (out / "train.log").read_text()
    assert log.count("cannot be used") == 2 and why in log
    assert "starting afresh: no saved state can be used" in log


@pytest.mark.parametrize("what", ["settings", "n", "data"])
def test_the_state_of_another_run_is_not_used(folder, data, settings, stopped, what):
    out = shutil.copytree(stopped, folder / f"changed-{what}")
    changed = {
        "settings": {"settings": write_settings(folder / "changed.yaml", max_epochs=1)},
        "n": {"n": 6},
        "data": {"data": write_store(folder / "changed.h5", seed=9)},
    }[what]
    assert train(request(out, data, settings, **changed)) == 0
    name = {"n": "run"}.get(what, what)
    log = (out / "train.log").read_text()
    assert f"starting afresh: the saved state is of another run ({name} has changed)" in log
    assert "resuming from" not in log


def test_a_run_goes_on_elsewhere_with_other_intervals(folder, data, stopped, finished):
    settings = write_settings(folder / "elsewhere.yaml", checkpoint_seconds=99, device="auto")
    out = shutil.copytree(stopped, folder / "elsewhere")
    assert train(request(out, data, settings)) == 0
    assert "resuming from" in (out / "train.log").read_text()
    if metrics_of(out)["device"] == "cpu":
        assert_same_run(out, finished)


# -- divergence and refusals ---------------------------------------------------------------------


def test_a_run_that_diverges_says_so_and_keeps_the_best_model(tmp_path, data):
    settings = write_settings(tmp_path / "settings.yaml", learning_rate=1e6)
    assert train(request(tmp_path / "out", data, settings)) == 0
    metrics = metrics_of(tmp_path / "out")
    assert metrics["diverged"] is True and metrics["stopped_because"] == "diverged"
    assert metrics["divergence"]
    assert metrics["best_epoch"] == 0 and metrics["test"]["force_rmse_ev_per_angstrom"] > 0
    load_model(tmp_path / "out" / "model.ckpt")


def test_a_loss_that_explodes_is_divergence_though_it_is_finite(tmp_path, data):
    settings = write_settings(tmp_path / "settings.yaml", learning_rate=1.0, divergence_factor=50)
    train(request(tmp_path / "out", data, settings))
    metrics = metrics_of(tmp_path / "out")
    assert metrics["diverged"] and "the training loss of epoch" in metrics["divergence"]


def test_labels_that_overflow_leave_no_finite_model(tmp_path):
    frames = list(rattled_cells(12))
    for atoms in frames:
        atoms.calc.results["forces"] *= 1e200
    Store.write(tmp_path / "huge.h5", frames, n_val=2, n_test=2)
    settings = write_settings(tmp_path / "settings.yaml")
    assert train(request(tmp_path / "out", tmp_path / "huge.h5", settings, n=8)) == 0
    metrics = metrics_of(tmp_path / "out")
    assert metrics["diverged"] and metrics["best_epoch"] is None
    assert Counter(metrics["test"].values()) == {None: 2}


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is present")
def test_a_missing_gpu_is_refused_unless_the_cpu_is_allowed(tmp_path, data):
    settings = write_settings(tmp_path / "settings.yaml", device="cuda", max_epochs=1)
    with pytest.raises(UserError, match="a GPU is asked for, but .* `allow_cpu: true`"):
        train(request(tmp_path / "out", data, settings))
    assert not (tmp_path / "out").exists()
    write_settings(settings, device="cuda", allow_cpu=True, max_epochs=1)
    train(request(tmp_path / "out", data, settings))
    assert metrics_of(tmp_path / "out")["device"] == "cpu"


def test_a_set_without_a_test_part_has_no_test_errors(tmp_path):
    data = write_store(tmp_path / "data.h5", n=10, n_val=2, n_test=0)
    settings = write_settings(tmp_path / "settings.yaml", max_epochs=1)
    train(request(tmp_path / "out", data, settings, n=4))
    metrics = metrics_of(tmp_path / "out")
    assert metrics["n_test"] == 0 and set(metrics["test"].values()) == {None}
    assert metrics["diverged"] is False


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 41}, "has 30 train structures, not the 41 needed"),
        ({"kind": "finetune"}, "--initial: needed for a fine-tuning"),
        ({"initial": "x.ckpt"}, "--initial: needed for a fine-tuning, and for nothing else"),
        ({"kind": "finetune", "initial": "nowhere.ckpt"}, "no model at nowhere.ckpt"),
        ({"transform": "Ge"}, "no transform 'Ge'"),
        ({"settings": "nowhere.yaml"}, "nowhere.yaml cannot be read"),
        ({"data": "nowhere.h5"}, "no prepared set at nowhere.h5"),
    ],
)
def test_a_fault_of_the_request_is_named(tmp_path, data, settings, change, message):
    with pytest.raises(UserError, match=message):
        train(request(tmp_path / "out", data, settings, **change))
    assert not (tmp_path / "out").exists()


def test_faults_of_the_data_are_named(tmp_path, settings):
    unlabelled = [atoms.copy() for atoms in rattled_cells(6)]
    Store.write(tmp_path / "unlabelled.h5", unlabelled, n_val=1, n_test=1)
    no_validation = write_store(tmp_path / "no_validation.h5", n=6, n_val=0, n_test=1)
    frames = list(rattled_cells(6))
    frames[4].calc.results["energy"] = float("nan")
    Store.write(tmp_path / "nan.h5", frames, n_val=1, n_test=1)
    for path, message in {
        tmp_path / "unlabelled.h5": "has no labels",
        no_validation: "has no validation structures",
        tmp_path / "nan.h5": "structure 4 has a value in its energy that is not finite",
    }.items():
        with pytest.raises(UserError, match=message):
            train(request(tmp_path / "out", path, settings, n=4))
