"""Files of strangers: what carries code is refused, or read without running it."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import zipfile

import ase.io
import numpy as np
import pytest
import torch

from pretraining.training.network.checkpoint import load_model
from pretraining.training.run import Request, train
from pretraining.training.state import SUM
from scripts import run_script
from toy import MD_TEST, rattled_cells, write_settings, write_store


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.makedirs, (str(self.path), 0o777, True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run, its data and its settings."""
    folder = tmp_path_factory.mktemp("trust")
    write_store(folder / "data.h5")
    write_settings(folder / "settings.yaml", max_epochs=1)
    train(Request("direct", folder / "data.h5", 12, 1, folder / "settings.yaml", folder / "run"))
    ase.io.write(folder / "in.extxyz", list(rattled_cells(2)))
    return folder


def content_of(folder):
    return torch.load(folder / "run" / "model.ckpt", weights_only=True)


def pickled(folder, touched, path):
    content = content_of(folder)
    content["hyper_parameters"]["info_dict"]["about"]["note"] = Hostile(touched)
    torch.save(content, path)


def bare_pickle(folder, touched, path):
    path.write_bytes(pickle.dumps(Hostile(touched)))


def old_format(folder, touched, path):
    torch.save(Hostile(touched), path, _use_new_zipfile_serialization=False)


def packaged(folder, touched, path):
    with torch.package.PackageExporter(path) as exporter:
        exporter.save_pickle("model", "eager_model.pkl", "text")
        exporter.save_source_string("hostile", f"import os\nos.mkdir({str(touched)!r})")


def compiled(folder, touched, path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Hostile(touched)))
        archive.writestr("archive/version", "3")


def scripted(folder, touched, path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), path)


def foreign_training(folder, touched, path):
    """As NequIP's own training writes it: other weights than the averaged ones come first."""
    content = content_of(folder)
    content["hyper_parameters"]["info_dict"].pop("about")
    torch.save(content, path)


def names_code(**config):
    """Return a file of plain settings that name code."""

    def write(folder, touched, path):
        content = content_of(folder)
        named = {
            key: {k: v if v != "PATH" else str(touched) for k, v in value.items()}
            if isinstance(value, dict)
            else value
            for key, value in config.items()
        }
        content["hyper_parameters"]["model"] |= named | {"path": str(touched)}
        torch.save(content, path)

    return write


POTENTIAL = "nequip.nn.pair_potential.ZBL"
HOSTILE = {
    "pickled.ckpt": pickled,
    "another-suffix.bin": pickled,
    "bare.ckpt": bare_pickle,
    "old.ckpt": old_format,
    "weights.pth": bare_pickle,
    "packaged.nequip.zip": packaged,
    "compiled.nequip.pt2": compiled,
    "scripted.pt": scripted,
    "foreign.ckpt": foreign_training,
    "builder.ckpt": names_code(_target_="os.mkdir"),
    "loader.ckpt": names_code(_target_="nequip.model.ModelFromCheckpoint"),
    "nested.ckpt": names_code(
        _target_="nequip.model.NequIPGNNModel",
        pair_potential={"_target_": "os.mkdir", "path": "PATH"},
    ),
    "interpolated.ckpt": names_code(
        _target_="nequip.model.NequIPGNNModel",
        pair_potential={"_target_": POTENTIAL, "units": "${oc.create:{_target_:os.mkdir}}"},
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("script", ["predict", "train", "evaluate", "dynamics"])
def test_a_model_file_of_a_stranger_runs_nothing(folder, tmp_path, name, script):
    model, touched, out = tmp_path / name, tmp_path / "touched", tmp_path / "out"
    HOSTILE[name](folder, touched, model)
    settings, data = folder / "settings.yaml", folder / "data.h5"
    (tmp_path / "md.yaml").write_text(str({"dynamics": MD_TEST}))
    arguments = {
        "predict": ["--model", model, "--structures", folder / "in.extxyz"],
        "train": ["--kind", "finetune", "--n", 5, "--seed", 1, "--initial", model],
        "evaluate": ["--model", model, "--data", data],
        "dynamics": ["--model", model, "--start", folder / "in.extxyz"],
    }[script]
    arguments += ["--device", "cpu"] if script == "predict" else ["--machine", "{device: cpu}"]
    if script == "predict" and name.endswith(".pth"):
        arguments += ["--avg-num-neighbors", 31]
    if script == "train":
        arguments += ["--settings", settings, "--data", data]
    if script == "dynamics":
        arguments += ["--settings", tmp_path / "md.yaml"]
    done = run_script(script, *arguments, "--out", out)
    assert not touched.exists(), "code of the file ran"
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and last.startswith("error: ") and name in last
    assert script == "train" or done.stderr == last + "\n"
    if name.endswith(".ckpt") and name not in ("bare.ckpt", "old.ckpt"):
        assert "--trust" in last


def test_a_trusted_file_is_opened(folder, tmp_path):
    """By its whole, or by the code that it may name."""
    pickled(folder, tmp_path / "touched", tmp_path / "model.ckpt")
    options = ("--structures", folder / "in.extxyz", "--device", "cpu", "--out")
    options = (*options, tmp_path / "out.extxyz", "--relative")
    done = run_script("predict", "--trust", "--model", tmp_path / "model.ckpt", *options)
    assert (done.returncode, (tmp_path / "touched").exists()) == (0, True), done.stderr
    names_code(_target_="toy_builder.Network")(folder, "", tmp_path / "own.ckpt")
    for trust, message in (
        ([], "--trust toy_builder.Network"),
        (["--trust", "toy_builder.Other"], "--trust toy_builder.Network"),
        (["--trust", "toy_builder.Network"], "cannot be imported"),
    ):
        done = run_script("predict", *trust, "--model", tmp_path / "own.ckpt", *options)
        assert done.returncode == 1 and message in done.stderr


def test_a_state_of_a_stranger_is_set_aside(folder, tmp_path):
    settings, out = folder / "settings.yaml", tmp_path / "run"
    request = Request("direct", folder / "data.h5", 12, 1, settings, out)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pretraining.training.run.save_model", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(request)
    stored = io.BytesIO((out / "state" / "last.ckpt").read_bytes()[SUM:])
    content, hostile = torch.load(stored, weights_only=True), io.BytesIO()
    torch.save(content | {"rows": Hostile(tmp_path / "touched")}, hostile)
    for name in ("last.ckpt", "previous.ckpt"):
        checksum = hashlib.sha256(hostile.getvalue()).digest()
        (out / "state" / name).write_bytes(checksum + hostile.getvalue())
    assert train(request) == 0
    assert not (tmp_path / "touched").exists()
    said = (out / "train.log").read_text()
    assert (
        "last.ckpt cannot be used (UnpicklingError" in said
        and "starting afresh: no saved state" in said
    )


def test_arrays_of_a_stranger_are_not_unpickled(tmp_path):
    content = io.BytesIO()
    np.savez(content, energy=np.array([Hostile(tmp_path / "touched")], dtype=object))
    (tmp_path / "predictions.npz").write_bytes(content.getvalue())
    predictions = tmp_path / "predictions.npz"
    done = run_script("parity", "--predictions", predictions, "--out", tmp_path / "parity.png")
    assert done.returncode == 1 and "predictions.npz: not predictions" in done.stderr
    assert not (tmp_path / "touched").exists()


def test_a_pair_potential_of_nequip_needs_no_trust(folder, tmp_path):
    """It is among the plain settings of a network."""
    potential = {"_target_": POTENTIAL, "chemical_species": ["C"], "units": "metal"}
    network = {"model": "stock", "l_max": 1, "pair_potential": potential}
    settings = write_settings(tmp_path / "settings.yaml", network=network, max_epochs=1)
    train(Request("direct", folder / "data.h5", 4, 1, settings, tmp_path / "run"))
    assert load_model(tmp_path / "run" / "model.ckpt").metadata["type_names"] == "C"
