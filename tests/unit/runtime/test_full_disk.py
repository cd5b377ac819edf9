"""A disk that is full: one line that names the file, no partial output, and nothing lost."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import ase.io
import numpy as np
import pytest
import yaml
from ase.build import bulk

from pretraining.data.store import Store
from pretraining.runtime.records import DIGEST, OUTPUTS
from toy import rattled_cells, write_settings, write_store

pytestmark = pytest.mark.slow

SIZE = 6_000_000


class Disk:
    """A small file system of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ballast = folder / "ballast"

    def fill(self, left: int = 0) -> None:
        """Leave so many bytes free, to the block."""
        with open(self.ballast, "wb", buffering=0) as handle:
            free = os.statvfs(self.folder)
            try:
                handle.write(bytes(free.f_bavail * free.f_frsize))
            except OSError as error:  # a program was quicker
                assert error.errno == errno.ENOSPC
            handle.truncate(max(0, handle.tell() - left))

    def clear(self) -> None:
        self.ballast.unlink()

    def files(self) -> list[str]:
        """Files that are there, without those that a program goes on from."""
        names = (path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*"))
        return sorted(n for n in names if (self.folder / n).is_file() and n != "ballast")


@pytest.fixture
def disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a small disk cannot be mounted here")
    yield Disk(folder)
    subprocess.run(["umount", str(folder)], check=True)


def command(script: str, **options) -> list[str]:
    line = [sys.executable, f"workflow/scripts/{script}.py"]
    for name, value in options.items():
        values = value if isinstance(value, list) else [value]
        line += [f"--{name.replace('_', '-')}", *map(str, values)]
    return line


@pytest.fixture
def run(root):
    """Return a function that runs a program to its end."""

    def run(line: list[str], **options) -> subprocess.CompletedProcess:
        return subprocess.run(line, cwd=root, capture_output=True, text=True, **options)

    return run


def assert_no_room(status: int, messages: str, folder: Path, why: int = errno.ENOSPC) -> None:
    """The program has ended in one line that names a file of the folder and the cure."""
    errors = [line for line in messages.splitlines() if line.startswith("error: ")]
    assert status == 1 and "Traceback" not in messages, messages
    assert len(errors) == 1, messages
    assert f" {folder}/" in errors[0], errors
    assert f"cannot be written ({os.strerror(why)}): make room there" in errors[0]


# What differs between two runs of the same kind.
TIMES = ("train_time_s", "wall_time_s", OUTPUTS, DIGEST)


def wait_until(true, job: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline and job.poll() is None
        time.sleep(0.01)


def result_of(folder: Path) -> dict:
    metrics = json.loads((folder / "metrics.json").read_text())
    return {k: v for k, v in metrics.items() if k not in TIMES}


def test_training(root, tmp_path, disk, run):
    options = {"kind": "direct", "n": 25, "seed": 1}
    options["data"] = write_store(tmp_path / "data.h5")
    options["settings"] = write_settings(tmp_path / "settings.yaml")
    assert run(command("train", **options, out=tmp_path / "whole")).returncode == 0
    out = disk.folder / "run"
    line = command("train", **options, out=out)
    job = subprocess.Popen(line, cwd=root, stderr=subprocess.PIPE, text=True)
    log = out / "state/train.log"
    wait_until(lambda: log.exists() and "epoch 2:" in log.read_text(), job)
    disk.fill()
    _, messages = job.communicate()
    assert_no_room(job.returncode, messages, disk.folder)
    assert {Path(name).parent.name for name in disk.files()} == {"state"}
    done = run(line)  # still full
    assert_no_room(done.returncode, done.stderr, disk.folder)
    disk.clear()
    done = run(line)
    assert done.returncode == 0 and "resuming from" in done.stderr
    assert result_of(out) == result_of(tmp_path / "whole")
    assert disk.files() == [f"run/{n}" for n in ("curve.csv", "metrics.json", "model.ckpt")] + [
        "run/train.log"
    ]


def test_training_with_a_limit_to_the_size_of_files(tmp_path, run):
    """No root is needed for this one."""
    options = {"kind": "direct", "n": 25, "seed": 1, "out": tmp_path / "run"}
    options["data"] = write_store(tmp_path / "data.h5")
    options["settings"] = write_settings(tmp_path / "settings.yaml")

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))

    done = run(command("train", **options), preexec_fn=limit)
    assert_no_room(done.returncode, done.stderr, tmp_path / "run", errno.EFBIG)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["state"]


def test_labelling(tmp_path, disk, run):
    frames = []
    for i in range(120):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.1, seed=i)
        frames.append(atoms)
    ase.io.write(tmp_path / "in.extxyz", frames)
    sources = {"emt": {"calculator": "ase.calculators.emt.EMT"}}
    (tmp_path / "sources.yaml").write_text(yaml.safe_dump({"sources": sources}))
    (tmp_path / "reference.json").write_text('{"Cu": 0.5}')
    options = {"config": tmp_path / "sources.yaml", "source": "emt"}
    options |= {"structures": tmp_path / "in.extxyz", "reference": tmp_path / "reference.json"}
    assert run(command("label", **options, out=tmp_path / "whole.extxyz")).returncode == 0
    out = disk.folder / "labelled.extxyz"
    made = disk.folder / "provenance.json"
    line = command("label", **options, out=out, provenance=made)
    disk.fill(left=16_000)  # of some 60,000
    done = run(line)
    assert_no_room(done.returncode, done.stderr, disk.folder)
    assert disk.files() == ["labelled.extxyz.part"]
    # Room for the rest of the journal, but not for what is made of it.
    disk.fill(left=60_000)
    done = run(line)
    assert_no_room(done.returncode, done.stderr, disk.folder)
    assert not out.exists() and "structures were done before" in done.stderr
    disk.clear()
    done = run(line)
    assert done.returncode == 0 and "120 of 120 structures were done before" in done.stderr
    # EMT's last digit depends on the structure that it has computed before.
    found, whole = (ase.io.read(file, ":") for file in (out, tmp_path / "whole.extxyz"))
    for mine, theirs in zip(found, whole, strict=True):
        assert mine.info["emt_energy"] == pytest.approx(theirs.info["emt_energy"], abs=1e-12)
        assert (mine.arrays["emt_force"] == theirs.arrays["emt_force"]).all()
    assert disk.files() == ["labelled.extxyz", "provenance.json"]


def test_preparation(tmp_path, disk, run):
    ase.io.write(tmp_path / "set.extxyz", list(rattled_cells(400)))
    dataset = {
        "path": str(tmp_path / "set.extxyz"),
        "labels": {"energy": "energy", "forces": "forces"},
        "energy_reference": {"given": {"C": 0.0}},
        "split": {"n_val": 5, "n_test": 10},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"datasets": {"set": dataset}}))
    out, summary = disk.folder / "prepared.h5", disk.folder / "summary.json"
    line = command(
        "prepare", config=tmp_path / "config.yaml", dataset="set", out=out, summary=summary
    )
    for left in (0, 50_000, 1_000_000, 1_200_000):
        disk.fill(left)
        done = run(line)
        assert_no_room(done.returncode, done.stderr, disk.folder)
        assert disk.files() == []
    disk.clear()
    assert run(line).returncode == 0
    with Store(out) as store:
        assert len(store) == 400 and np.isfinite(store.column("energy")).all()
    assert out.stat().st_size < 700_000  # what was set aside has been given back


def test_a_table_is_the_old_one_or_the_new_one(tmp_path, disk, run):
    grid = ["kind\ttarget\tstructures\ttransform\tsource\tnpre\tpreseed\tn\tseed\ttrained_on"]
    grid[0] += "\tmetrics"
    for seed in range(400):
        path = tmp_path / f"{seed}.json"
        errors = {"energy_rmse_mev_per_atom": 1.0, "force_rmse_ev_per_angstrom": 0.1}
        path.write_text(json.dumps({"test": errors}))
        grid.append(f"direct\tCu\t\tnone\tnone\t0\t\t3\t{seed}\t\t{path}")
    (tmp_path / "grid.tsv").write_text("\n".join(grid) + "\n")
    out = disk.folder / "runs.csv"
    out.write_text("old\n")
    disk.fill(left=8192)
    line = command("collect_runs", grid=tmp_path / "grid.tsv", out=out)
    done = run(line)
    assert_no_room(done.returncode, done.stderr, disk.folder)
    assert out.read_text() == "old\n" and disk.files() == ["runs.csv"]
    disk.clear()
    assert run(line).returncode == 0
    assert len(out.read_text().splitlines()) == 401


def test_a_trajectory(root, tmp_path, disk, run):
    protocol = {
        **{"dataset": "copper", "source": "emt", "composition": {"Cu": 1}, "atoms": 8},
        **{"seed": 1, "min_distance": 1.6, "stages": [{"temperature": 1500, "ps": 1.2}]},
        **{"frame_every_ps": 0.01, "timestep_fs": 2.0, "thermostat": "nose-hoover"},
        **{"damping_fs": 25.0, "engine": "ase", "clash_distance": 0.5},
    }
    content = {"generate": protocol, "sources": {"emt": {"calculator": "ase.calculators.emt.EMT"}}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "reference.json").write_text('{"Cu": 0.5}')
    line = command(
        "generate",
        config=tmp_path / "config.yaml",
        density=7.5,
        anneal=600,
        reference=tmp_path / "reference.json",
        out=disk.folder / "a.extxyz",
        log=disk.folder / "a.csv",
        checkpoint_seconds=0.05,
    )
    job = subprocess.Popen(line, cwd=root, stderr=subprocess.PIPE, text=True)
    wait_until((disk.folder / "a.state/checkpoint.npz").exists, job)
    disk.fill()
    _, messages = job.communicate()
    assert_no_room(job.returncode, messages, disk.folder)
    assert {Path(name).parent.name for name in disk.files()} == {"a.state"}
    disk.clear()
    done = run(line)
    assert done.returncode == 0 and "resuming after" in done.stderr
    assert disk.files() == ["a.csv", "a.extxyz", "a.provenance.json"]
    times = [atoms.info["time"] for atoms in ase.io.read(disk.folder / "a.extxyz", ":")]
    np.testing.assert_allclose(times, np.arange(121) / 100)
