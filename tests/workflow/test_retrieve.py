"""Getting the files of a study: what is announced, and a server's files up to a prepared set."""

from __future__ import annotations

import functools
import hashlib
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import ase.io
import pytest
import yaml
from ase.build import bulk
from ase.calculators.emt import EMT

from pretraining.data.store import Store


def test_sizes_and_addresses_are_shown_before(checkout):
    output = checkout.snakemake("retrieve", "-n").stdout
    for words in (
        "Everything that this study reads:\ndataset C-SYNTH-23M:",
        "  resources/load-atoms/raw-downloads/C-SYNTH-23M/carbon-data-v1.0.zip  about 560 MB  from "
        "https://zenodo.org/records/7704087/files/jla-gardner/carbon-data-v1.0.zip",
        "source ace:",
        "  resources/potentials/c_ace.yace  245 kB  from https://raw.githubusercontent.com/lammps/",
        "source gap20u:",
        "  size unknown  by hand, from https://doi.org/10.17863/CAM.82086",
        "total: 10 files, about 634 MB, and 2 of unknown size, ",
    ):
        assert words in output
    # No experiment reads it.
    assert "gap17" not in output
    counts = checkout.job_counts("retrieve")
    assert counts["retrieve_files"] == 6 and "prepare" not in counts


class QuietHandler(SimpleHTTPRequestHandler):
    """A server of a folder."""

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture(scope="module")
def study(copy_repository, tmp_path_factory):
    """A study whose files lie on a server; yields the checkout, the server's folder and it."""
    folder = tmp_path_factory.mktemp("server")
    frames = []
    for i in range(30):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.1, seed=i)
        atoms.calc = EMT()
        atoms.get_forces()
        frames.append(atoms)
    ase.io.write(folder / "cu.extxyz", frames)
    (folder / "emt.par").write_text("parameters")
    handler = functools.partial(QuietHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        yield copy_repository(tmp_path_factory.mktemp("study")), folder, http.server_port
        http.shutdown()


def write(study, **changes):
    checkout, folder, port = study
    sha256 = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("cu.extxyz", "emt.par")
    }
    dataset = {
        "path": "resources/cu.extxyz",
        "url": f"http://127.0.0.1:{port}/cu.extxyz",
        "sha256": sha256["cu.extxyz"],
        "labels": {"energy": "energy", "forces": "forces"},
        "energy_reference": {"source": "emt"},
        "split": {"n_val": 4, "n_test": 4},
    }
    source = {"title": "EMT", "kind": "empirical", "elements": ["Cu"]}
    source["calculator"] = "ase.calculators.emt.EMT"
    source["files"] = [
        {
            "path": "resources/potentials/emt.par",
            "url": f"http://127.0.0.1:{port}/emt.par",
            "sha256": sha256["emt.par"],
        }
    ]
    experiment = dict.fromkeys(("pretrain_seeds", "finetune_seeds", "direct_seeds"), [1])
    experiment |= {"target": "Cu", "structures": "Cu", "sources": ["emt"]}
    experiment |= {"pretrain_sizes": [8], "sizes": [4]}
    config = {
        "results": "results/cu",
        "datasets": {"Cu": dataset | changes},
        "sources": {"emt": source},
        "experiments": {"fig3": experiment},
    }
    (checkout.folder / "config/cu.yaml").write_text(yaml.safe_dump(config))


def run(study, *arguments, check=True):
    arguments = ("--configfile", "config/cu.yaml", "--cores", "2", *arguments)
    return study[0].snakemake(*arguments, check=check)


PREPARED = "results/cu/data/Cu/prepared.h5"


def test_from_a_server_to_a_prepared_set(study):
    write(study)
    folder = study[0].folder
    output = run(study, PREPARED, "retrieve").stdout
    assert "resources/potentials/emt.par: size unknown from http://127.0.0.1" in output
    with Store(folder / PREPARED) as store:
        assert len(store) == 30
    assert (folder / "resources/potentials/emt.par").read_text() == "parameters"
    assert "Nothing to be done" in run(study, PREPARED, "retrieve").stdout


def test_files_in_place_need_no_server_and_wrong_ones_are_left(study):
    folder = study[0].folder
    write(study, url="http://127.0.0.1:9/cu.extxyz")
    output = run(study, PREPARED).stdout
    assert "resources/cu.extxyz: in place" in output
    (folder / "resources/cu.extxyz").write_text("mine")
    write(study, split={"n_val": 5, "n_test": 4})
    output = run(study, PREPARED, check=False).stdout
    assert "error: dataset Cu: resources/cu.extxyz is in place but has the sha256 " in output
    assert (folder / "resources/cu.extxyz").read_text() == "mine"


def test_what_the_network_does_not_give(study):
    folder = study[0].folder
    (folder / "resources/cu.extxyz").unlink()
    write(study, url=f"http://127.0.0.1:{study[2]}/other.extxyz")
    process = run(study, "retrieve", check=False)
    assert process.returncode != 0
    assert (
        "error: dataset Cu: 1 file missing: resources/cu.extxyz (size unknown) from "
        f"http://127.0.0.1:{study[2]}/other.extxyz (the server says 404): fetch by "
        "other means, put in place and run again"
    ) in process.stdout
