"""Each product of a study is held against the configuration by its own record."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import ase.io
import pytest
import yaml

from copper import CONFIG, structures
from pretraining.data.prepare import prepare
from pretraining.data.retrieve import identity_of, remote_files
from pretraining.data.store import Store
from pretraining.dynamics.generate import Request, generate
from pretraining.labels.chunks import chunk_rows, join, write_chunk
from pretraining.labels.evaluate import isolated_energies, provenance
from pretraining.labels.label import label, read_structures
from pretraining.operations.fit import examine
from pretraining.runtime.files import file_sha256, write_json
from pretraining.runtime.records import record_of, write_record
from pretraining.study.config import validate_study
from pretraining.study.generation import trajectories
from pretraining.study.grid import grid_table
from pretraining.study.sources import Source
from pretraining.study.views import config_view
from scripts import run_script

RUN = "density~8_replica~1"
FILE = {"path": "resources/lj.txt", "url": "https://host.invalid/lj.txt", "sha256": "1" * 64}
STUDY = CONFIG | {
    "results": "results",
    "sources": CONFIG["sources"] | {"lj": CONFIG["sources"]["lj"] | {"files": [FILE]}},
    "datasets": CONFIG["datasets"]
    | {
        "melt": {
            "generate": {
                "source": "emt",
                "composition": {"Cu": 1},
                "atoms": 4,
                "min_distance": 2.0,
                "densities": [8.0],
                "stages": [{"from": 6000, "to": 5000, "ps": 0.01}],
                "frame_every_ps": 0.005,
            },
            "split": {"n_val": 1, "n_test": 1},
        }
    },
    "dynamics": {
        "heat": {
            "models": [{"experiment": "fig3", "n": [3]}],
            "start": {"dataset": "melt", "repeat": [1, 1, 1]},
            "stages": [{"from": 100, "to": 600, "ps": 0.05}],
            "frame_every_ps": 0.01,
            "log_every_ps": 0.005,
            "radius": 3.2,
        }
    },
}


def source_of(config, name="emt"):
    return Source.from_entry(name, config["sources"][name])


def valid(config):
    return validate_study(copy.deepcopy(config), "study.yaml")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Products of a study, made by the functions that make them in a run."""
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make(valid(STUDY), Path("results"))
    return folder


def make(config, results):
    for name, labelled in (("cu-synthetic", False), ("cu", True)):
        Path("resources").mkdir(exist_ok=True)
        ase.io.write(f"resources/{name}.extxyz", structures(30, 1, labelled))
    source, reference = source_of(config), results / "labels/references/emt.json"
    reference.parent.mkdir(parents=True)
    energies = isolated_energies(source, ["Cu"])
    write_json(reference, energies)
    write_record(record_of(reference), provenance(source, energies, []), reference)
    (run,) = trajectories(config["datasets"]["melt"]["generate"])
    protocol = config_view(config, "generate~melt")["generate"]
    frames = results / f"data/melt/trajectories/{run.name}.extxyz"
    generate(Request(source, energies, protocol, run, frames, frames.with_suffix(".csv")))
    for name in config["datasets"]:
        view = config_view(config, f"dataset~{name}")
        out = results / "data" / name / "prepared.h5"
        prepare(view, name, Path("."), out, out.with_name("summary.json"), [], reference)
    with Store(results / "data/Cu-synthetic/prepared.h5") as store:
        chunks = []
        for name in ("eval", "00000", "00001"):
            cut = results / f"data/Cu-synthetic/chunks/{name}.extxyz"
            chunks.append(results / f"labels/Cu-synthetic/emt/chunks/{name}.extxyz")
            chunks[-1].parent.mkdir(parents=True, exist_ok=True)
            write_chunk(store, chunk_rows(store, name, 8, 16), cut, 8)
            made = chunks[-1], 0, 1, record_of(chunks[-1]), cut
            label(source, read_structures(cut), energies, *made)
        out = results / "labels/Cu-synthetic/emt/npre~12.h5"
        join(store, "emt", chunks, out, 12, None, [record_of(chunk) for chunk in chunks])
    files = remote_files(config, "source~lj")
    Path(results / "retrieved").mkdir()
    retrieved = [{"path": file.path, "sha256": file.digest} for file in files]
    stamp = {"files": retrieved, "wanted": [identity_of(file) for file in files]}
    write_record(results / "retrieved/source~lj.json", stamp)
    start = results / "dynamics/heat/start.extxyz"
    Path("start.yaml").write_text(yaml.safe_dump(config_view(config, "start~heat")))
    data = results / "data/melt/prepared.h5"
    assert not run_script(
        "dynamics_start", "--settings", "start.yaml", "--data", data, "--out", start
    ).returncode
    model = results / "runs/direct/target~Cu/source~none/n~3/seed~1/model.ckpt"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"weights")
    folder = results / "dynamics/heat" / model.parent.relative_to(results / "runs") / "replica~1"
    folder.mkdir(parents=True)
    (folder / "coordination.csv").write_text("time_ps\n")
    outcome = {
        "model_sha256": file_sha256(model),
        "start_sha256": file_sha256(start),
        "protocol": config_view(config, "dynamics~heat")["dynamics"],
    }
    write_record(folder / "outcome.json", outcome, folder / "coordination.csv")


def refused(config):
    config = valid(config)
    found = examine(config, grid_table(config))
    return {refusal.what: refusal.why for refusal in found}


def changed(path, value):
    """Return the configuration with another value at this path of keys."""
    config = copy.deepcopy(STUDY)
    *folders, last = path
    entry = config
    for key in folders:
        entry = entry.setdefault(key, {}) if isinstance(entry, dict) else entry[key]
    entry[last] = value
    return config


REFERENCE = "labels/references/emt.json"
TRAJECTORIES = "data/melt/trajectories"
STAMP = "retrieved/source~lj.json"
CUT, CHUNKS = "data/Cu-synthetic/chunks", "labels/Cu-synthetic/emt/chunks"
LABELLED = "labels/Cu-synthetic/emt/npre~12.h5"
START, OUTCOME = (
    "dynamics/heat/start.extxyz",
    ("dynamics/heat/direct/target~Cu/source~none/n~3/seed~1/replica~1"),
)
OF_EMT = {REFERENCE, TRAJECTORIES, CHUNKS, LABELLED}


def test_what_fits_is_accepted(study, monkeypatch):
    monkeypatch.chdir(study)
    assert refused(STUDY) == {}
    # Where files lie, how people call things, and how a job runs make no difference.
    shutil.copy("resources/cu.extxyz", "elsewhere-cu.extxyz")
    Path("there").mkdir()
    shutil.move("elsewhere-cu.extxyz", "there/cu.extxyz")
    config = changed(["datasets", "Cu", "path"], "there/cu.extxyz")
    config["sources"]["emt"] |= {"title": "another", "time_limit": 7}
    config["sources"]["lj"]["files"][0]["url"] = "https://elsewhere.invalid/lj.txt"
    config["training"]["device"] = "auto"
    config["dynamics"]["heat"] |= {"title": "Heat", "replicas": 2}
    assert refused(config) == {}


@pytest.mark.parametrize(
    ("path", "value", "what", "why"),
    [
        (["sources", "emt", "kwargs"], {"asap_cutoff": True}, OF_EMT, "another kwargs"),
        (["sources", "emt", "calculator"], "ase.calculators.lj.LennardJones", OF_EMT, "calculator"),
        (["sources", "emt", "fresh_calculator"], True, OF_EMT, "another fresh_calculator"),
        (["sources", "emt", "isolated_atom"], {"vacuum": 9.0}, OF_EMT, "another isolated_atom"),
        (["sources", "emt", "elements"], ["Cu", "Ag"], {REFERENCE}, "it lacks Ag"),
        (["datasets", "Cu", "split", "n_test"], 5, {"dataset Cu"}, "another split"),
        (["datasets", "Cu", "checks"], {"min_distance": 0.7}, {"dataset Cu"}, "another checks"),
        (["datasets", "Cu", "path"], "resources/cu-synthetic.extxyz", {"dataset Cu"}, "other f"),
        (["datasets", "Cu", "energy_reference"], {"given": {"Cu": 1.0}}, {"dataset Cu"}, "energy"),
        (["datasets", "melt", "generate", "seed"], 9, {TRAJECTORIES}, "another seed"),
        (["datasets", "melt", "generate", "stages", 0, "from"], 6500, {TRAJECTORIES}, "stages"),
        (["sources", "lj", "files", 0, "sha256"], "2" * 64, {STAMP}, "other files"),
        (["labelling", "chunk_size"], 9, {CUT}, "another chunk_size"),
        (["dynamics", "heat", "stages", 0, "from"], 110, {OUTCOME}, "another stages"),
        (["dynamics", "heat", "limits"], {"min_distance": 0.1}, {OUTCOME}, "another limits"),
        (["dynamics", "heat", "start", "repeat"], [2, 1, 1], {START}, "another repeat"),
    ],
)  # fmt: skip
def test_what_was_made_with_other_settings_is_refused(study, monkeypatch, path, value, what, why):
    """The product itself, that is; what follows from it Snakemake knows."""
    monkeypatch.chdir(study)
    found = refused(changed(path, value))
    assert set(found) == what and all(why in reason for reason in found.values())


def edit(name, **entries):
    """Change a record, as one that was made with other things."""

    def apply():
        path = Path("results", name)
        content = {k: v for k, v in json.loads(path.read_text()).items() if k != "record_digest"}
        write_record(path, content | entries)

    return apply


def delete(name):
    return Path("results", name).unlink


CHUNK = f"{CHUNKS}/00000.provenance.json"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (delete(f"{CHUNKS}/00000.provenance.json"), {CHUNKS}),
        (delete("labels/references/emt.provenance.json"), {REFERENCE}),
        (delete(REFERENCE), {TRAJECTORIES, CHUNKS, LABELLED, "dataset Cu"}),
        (edit(CHUNK, isolated_atoms_ev={"Cu": 0.5}), {CHUNKS}),
        (edit(CHUNK, structures_sha256="0"), {CHUNKS}),
        (edit(CHUNK, outputs_sha256={"00000.extxyz": "0"}), {CHUNKS}),
        (edit(CHUNK, outputs_sha256={}), {CHUNKS}),
        (edit(f"{CUT}/eval.provenance.json", prepared="0"), {CUT}),
        (edit(f"{OUTCOME}/outcome.json", model_sha256="0"), {OUTCOME}),
        (edit(f"{OUTCOME}/outcome.json", start_sha256="0"), {OUTCOME}),
        (delete(f"{OUTCOME}/coordination.csv"), {OUTCOME}),
        (edit("dynamics/heat/start.provenance.json", data_checksum="0"), {START}),
        (delete("data/melt/prepared.h5"), {START}),
        (delete("data/Cu-synthetic/prepared.h5"), {CUT, LABELLED}),
    ],
)
def test_what_was_made_from_other_things_is_refused(study, monkeypatch, tmp_path, change, what):
    monkeypatch.chdir(shutil.copytree(study, tmp_path / "copy"))
    change()
    assert set(refused(STUDY)) == what


def test_arguments_are_compared_but_not_the_folders_of_files(study, monkeypatch, tmp_path):
    monkeypatch.chdir(shutil.copytree(study, tmp_path / "copy"))

    def refused_with(file, unit):
        config = changed(["sources", "emt", "kwargs"], {"line": f"* * {file} Cu", "unit": unit})
        return refused(config).get(CHUNKS)

    kwargs = {"line": "* * here/eam.alloy Cu", "unit": "kcal/mol"}
    for name in ("eval", "00000", "00001"):
        made = {"kwargs": kwargs, "parameter_files_sha256": {"eam.alloy": "1" * 64}}
        edit(f"{CHUNKS}/{name}.provenance.json", **made)()
    assert refused_with("here/eam.alloy", "kcal/mol") is None
    assert refused_with("/there/eam.alloy", "kcal/mol") is None
    assert "another kwargs" in refused_with("here/eam.alloy", "kJ/mol")
    assert "another kwargs" in refused_with("here/eam.fs", "kcal/mol")
    Path("here").mkdir()
    Path("here/eam.alloy").write_text("another potential")
    assert refused_with("here/eam.alloy", "kcal/mol") == "eam.alloy was another file there"
