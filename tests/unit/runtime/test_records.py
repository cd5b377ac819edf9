"""Files that are read back: whoever reads one notices what was changed in it."""

from __future__ import annotations

import json
import random
import shutil
from contextlib import closing

import h5py
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from pretraining.data.energy_references import read_reference
from pretraining.data.readers import open_raw
from pretraining.data.store import Store
from pretraining.dynamics.stability.survival import read_counts, summarise
from pretraining.labels.chunks import join, write_chunk
from pretraining.labels.label import Journal, label, read_structures
from pretraining.results.runs_table import read_metrics
from pretraining.runtime.errors import UserError
from pretraining.runtime.files import write_json
from pretraining.runtime.records import DIGEST, OUTPUTS, read_record, record_of, write_record
from pretraining.study.sources import Source
from pretraining.training.network.checkpoint import load_model

ERRORS = {"energy_rmse_mev_per_atom": 1.5, "force_rmse_ev_per_angstrom": 0.25}
EMT_SOURCE = Source("emt", "ase.calculators.emt.EMT")


def frames(n):
    rng = np.random.default_rng(0)
    for i in range(n):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.05, rng=rng)
        atoms.calc = EMT()
        atoms.get_forces()
        atoms.info |= {"index": i, "kind": f"kind {i}", "density": 8.9 + i}
        yield atoms


def chunks(folder):
    return [folder / "eval.extxyz", folder / "00000.extxyz"]


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """One file of each kind, as the workflow's own functions write them."""
    folder = tmp_path_factory.mktemp("originals")
    Store.write(folder / "set.h5", frames(6), 2, 1, {"dataset": "x"}, info=["kind", "density"])
    with Store(folder / "set.h5") as store:
        for chunk, rows in zip(chunks(folder), (range(3), range(3, 6)), strict=True):
            write_chunk(store, rows, chunk, 3)
            shutil.copy(chunk, folder / f"bare-{chunk.name}")
            structures = read_structures(chunk)
            label(EMT_SOURCE, structures, {"Cu": 0.5}, chunk, made=record_of(chunk))
        write_chunk(store, range(3), folder / "bare.extxyz", 3)
    write_json(folder / "emt.json", {"Cu": 0.5})
    write_record(record_of(folder / "emt.json"), {"source": "emt"}, folder / "emt.json")
    (folder / "model.ckpt").write_bytes(random.Random(1).randbytes(5000))
    write_record(folder / "metrics.json", {"test": ERRORS, "n": 3}, folder / "model.ckpt")
    (folder / "coordination.csv").write_text("time_ps,fold_3\n0.5,12\n")
    outcome = {"status": "survived", "time_ps": 0.5}
    write_record(folder / "outcome.json", outcome, folder / "coordination.csv")
    return folder


def joined(folder):
    with Store(folder / "set.h5") as store:
        records = [record_of(chunk) for chunk in chunks(folder)]
        return join(store, "emt", chunks(folder), folder / "joined.h5", provenance=records)


def raw(folder):
    return open_raw({"path": "bare.extxyz", "format": "extxyz"}, folder)


READERS = {
    "set.h5": lambda folder: Store(folder / "set.h5").close(),
    "eval.extxyz": joined,
    "00000.provenance.json": joined,
    "bare.extxyz": lambda folder: read_structures(folder / "bare.extxyz"),
    "bare.provenance.json": raw,
    "emt.json": lambda folder: read_reference(folder / "emt.json"),
    "model.ckpt": lambda folder: load_model(folder / "model.ckpt"),
    "metrics.json": lambda folder: read_metrics(folder / "metrics.json"),
    "outcome.json": lambda folder: summarise([folder / "outcome.json"]),
    "coordination.csv": read_counts,
}


@pytest.mark.parametrize("name", READERS)
def test_a_changed_byte_is_noticed(originals, tmp_path, name):
    """Wherever it is; in HDF5, which has unused bytes, those of numbers: see below."""
    folder = shutil.copytree(originals, tmp_path / "copy")
    content, generator = (originals / name).read_bytes(), random.Random(2)
    if name == "set.h5":
        with h5py.File(originals / name) as file:
            places = [file["numbers"].id.get_chunk_info(0).byte_offset + i for i in range(4)]
            places += [file["energy"].id.get_chunk_info(0).byte_offset + i for i in range(8)]
    else:
        # Without the name of its digest a record counts as written by hand.
        places = generator.choices(range(content.find(b'"record_') % len(content)), k=30)
    for place in places:
        flipped = bytearray(content)
        flipped[place] ^= 1 << generator.randrange(7)
        (folder / name).write_bytes(flipped)
        with pytest.raises(UserError) as error:
            READERS[name](folder)
        assert name.split(".")[0] in str(error.value) and "\n" not in str(error.value)


def in_store(change):
    def apply(folder):
        with h5py.File(folder / "set.h5", "r+") as file:
            change(file)

    return apply


def add(name):
    def change(file):
        file[name][0] += 1

    return in_store(change)


def setting(key, value):
    return in_store(lambda file: file.attrs.modify(key, value))


def rename(file):
    file["info/kind"][0] = "other"


def shorten(file):
    file["energy"].resize(5, axis=0)


@pytest.mark.parametrize(
    "change",
    [
        *(add(name) for name in ("numbers", "positions", "cell", "index", "energy", "forces")),
        *(add(name) for name in ("ptr", "duplicate_of", "info/density")),
        in_store(rename),
        in_store(shorten),
        in_store(lambda file: file.pop("forces")),
        setting("n_val", 1),
        setting("n_train", 2),
        setting("has_labels", False),
        setting("checksum", "0"),
        setting("provenance", '{"dataset": "y"}'),
    ],
)
def test_a_changed_store_is_noticed(originals, tmp_path, change):
    shutil.copy(originals / "set.h5", tmp_path)
    Store(tmp_path / "set.h5").close()
    change(tmp_path)
    with pytest.raises(UserError, match="set.h5 .*: make it anew with `snakemake … -R"):
        Store(tmp_path / "set.h5")


def test_a_model_of_another_run_is_refused_and_an_edit_on_purpose_has_a_cure(originals, tmp_path):
    folder = shutil.copytree(originals, tmp_path / "copy")
    path, record = folder / "model.ckpt", folder / "metrics.json"
    path.write_bytes(b"another model")
    with pytest.raises(UserError, match=f"delete the entries {OUTPUTS} and {DIGEST} there"):
        load_model(path)
    metrics = json.loads(record.read_text())
    metrics["n"] = 4
    write_json(record, metrics)
    with pytest.raises(UserError, match=f"delete its entry {DIGEST}"):
        read_record(record)
    del metrics[DIGEST], metrics[OUTPUTS]
    write_json(record, metrics)
    assert read_record(record)["n"] == 4
    with pytest.raises(UserError, match="cannot be opened as a NequIP model"):
        load_model(path)


def test_a_changed_line_of_a_journal_is_labelled_again(tmp_path):
    path = tmp_path / "out.extxyz.part"
    records = [{"i": i, "energy": 0.5, "forces": [[0.25, 0.0, 0.0]]} for i in range(3)]
    with closing(Journal(path, "job")) as journal:
        for record in records:
            journal.add(record)
    with closing(Journal(path, "job")) as journal:
        assert journal.done == dict(enumerate(records))
    lines = path.read_text().splitlines(keepends=True)
    # The last line of a killed job is cut short.
    path.write_text("".join(lines) + lines[1][:20])
    with closing(Journal(path, "job")) as journal:
        assert journal.done == dict(enumerate(records))
    lines[2] = lines[2].replace("0.25", "0.35")
    path.write_text("".join(lines))
    with closing(Journal(path, "job")) as journal:
        assert journal.done == {0: records[0]}
