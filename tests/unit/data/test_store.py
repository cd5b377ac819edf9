"""The indexed file of structures."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pretraining.data.store import Store, StoreWriter
from pretraining.runtime.errors import UserError


def make(n: int, labels: bool = True, seed: int = 0) -> list[Atoms]:
    """`n` structures of different sizes with random positions and labels."""
    rng = np.random.default_rng(seed)
    frames = []
    for i in range(n):
        size = 1 + i % 5
        atoms = Atoms(
            numbers=rng.integers(1, 90, size),
            positions=rng.normal(size=(size, 3)),
            cell=np.diag(rng.uniform(3, 9, 3)),
            pbc=[True, i % 2, False],
            info={"index": 10 * i, "config_type": f"tÿpe{i % 3}", "time": 0.5 * i, "ignored": 1},
        )
        if labels:
            atoms.calc = SinglePointCalculator(
                atoms, energy=rng.normal(), forces=rng.normal(size=(size, 3))
            )
        frames.append(atoms)
    return frames


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(n=st.integers(1, 12), labels=st.booleans(), cut=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_what_is_written_is_read(tmp_path: Path, n: int, labels: bool, cut: tuple) -> None:
    frames = make(n, labels)
    n_val = int(cut[0] * n)
    n_test = int(cut[1] * (n - n_val))
    path = tmp_path / "set.h5"
    Store.write(path, frames, n_val, n_test, {"a": 1}, info=["config_type", "time"])
    with Store(path) as store:
        assert (store.n_val, store.n_test, store.n_train) == (n_val, n_test, n - n_val - n_test)
        assert store.has_labels is labels
        assert store.provenance == {"a": 1}
        assert len(store) == n
        for i, (read, wrote) in enumerate(zip(store, frames, strict=True)):
            assert read == wrote  # positions, numbers, cell, pbc
            assert read.info["index"] == 10 * i
            assert read.info["config_type"] == wrote.info["config_type"]
            assert read.info["time"] == wrote.info["time"]
            assert "ignored" not in read.info
            if labels:
                assert read.get_potential_energy() == wrote.get_potential_energy()
                np.testing.assert_array_equal(read.get_forces(), wrote.get_forces())
            else:
                assert read.calc is None
        rows = [i for group in ("val", "test", "train") for i in store.indices(group)]
        assert rows == list(range(n))


def test_subsets_are_nested_prefixes(tmp_path: Path) -> None:
    frames = make(20)
    Store.write(tmp_path / "set.h5", frames, 3, 5)
    with Store(tmp_path / "set.h5") as store:
        assert [a.info["index"] for a in store.subset("val")] == [0, 10, 20]
        assert [a.info["index"] for a in store.subset("train", 2)] == [80, 90]
        assert list(store.indices("train", 4))[:2] == list(store.indices("train", 2))
        with pytest.raises(UserError, match="12 train structures, not the 13 needed"):
            store.indices("train", 13)
        with pytest.raises(UserError, match="no group 'dev'"):
            store.indices("dev")
        with pytest.raises(IndexError):
            store[20]
        assert store[-1] == frames[-1]


def test_columns(tmp_path: Path) -> None:
    frames = make(4)
    del frames[1].info["time"]
    del frames[2].info["config_type"]
    for atoms, flag in zip(frames, (True, False, True, True), strict=True):
        atoms.info["flag"] = flag
    Store.write(tmp_path / "set.h5", frames, 1, 1, info=["config_type", "time", "absent", "flag"])
    with Store(tmp_path / "set.h5") as store:
        assert store.column("config_type").tolist() == ["tÿpe0", "tÿpe1", "", "tÿpe0"]
        np.testing.assert_array_equal(store.column("time"), [0, np.nan, 1, 1.5])
        np.testing.assert_array_equal(store.column("time", "train"), [1, 1.5])
        assert store.column("energy", "train", 1).shape == (1,)
        assert store.column("flag").tolist() == [True, False, True, True]
        assert "time" not in store[1].info
        assert "config_type" not in store[2].info
        assert "absent" not in store[0].info
        assert store[3].info["flag"] is True
        assert store.n_atoms.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("name", ["a/b", "/", ".", "..", "../ptr", "100 %", "a%2Fb", "$(x) 'y'"])
def test_any_name_of_an_entry(tmp_path: Path, name: str) -> None:
    frames = make(4)
    for number, atoms in enumerate(frames):
        atoms.info |= {name: number, "ptr": 0.5}
    Store.write(tmp_path / "set.h5", frames, 1, 1, info=[name, "ptr"])
    with Store(tmp_path / "set.h5") as store:
        assert sorted(store.info_names) == sorted([name, "ptr"])
        assert (
            [store.info(i)[name] for i in range(4)] == store.column(name).tolist() == [0, 1, 2, 3]
        )


def test_checksum_is_of_the_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = make(9)
    first = Store.write(tmp_path / "a.h5", frames, 1, 1, {"made": "today"})
    monkeypatch.setattr("pretraining.data.store_writer._BUFFERED_ATOMS", 2)
    assert Store.write(tmp_path / "b.h5", iter(frames), 1, 1, {"made": "tomorrow"}) == first
    assert Store.write(tmp_path / "c.h5", frames, 1, 2) != first
    frames[3].positions[0, 0] += 1e-9
    assert Store.write(tmp_path / "d.h5", frames, 1, 1) != first
    with Store(tmp_path / "b.h5") as store:
        assert store.checksum == first


def test_arrays_can_be_copied_from_store_to_store(tmp_path: Path) -> None:
    checksum = Store.write(tmp_path / "a.h5", make(6), 1, 2, info=["time"])
    copy = StoreWriter(tmp_path / "b.h5", True, ["time"])
    with Store(tmp_path / "a.h5") as store, copy as writer:
        for i in range(len(store)):
            writer.add_arrays(store.arrays(i), store.info(i))
        assert writer.finish(1, 2) == checksum


def test_a_broken_write_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "set.h5"
    Store.write(path, make(3), 1, 1)
    before = path.read_bytes()

    def frames():
        yield from make(2)
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError):
        Store.write(path, frames(), 1, 1)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["set.h5"]


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "set.h5"
    with pytest.raises(UserError, match="no structures to write"):
        Store.write(path, [], 0, 0)
    with pytest.raises(UserError, match="2 validation and 2 test structures do not fit into 3"):
        Store.write(path, make(3), 2, 2)
    mixed = make(2) + make(1, labels=False)
    mixed[2].info["index"] = 77
    with pytest.raises(UserError, match="structure 77 has no energy and no forces"):
        Store.write(path, mixed, 1, 1)
    wrong = make(2)
    wrong[1].calc.results["forces"] = np.zeros((7, 3))
    with pytest.raises(UserError, match="structure 10: energy must be one number"):
        Store.write(path, wrong, 0, 0)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="no prepared set at"):
        Store(path)
    path.write_text("not a store")
    with pytest.raises(UserError, match="not a readable HDF5 file"):
        Store(path)
    h5py.File(path, "w").close()
    with pytest.raises(UserError, match="is not a prepared set"):
        Store(path)
    Store.write(path, make(50), 1, 1)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UserError, match="not a readable HDF5 file"):
        Store(path)


def test_pickle_and_fork(tmp_path: Path) -> None:
    Store.write(tmp_path / "set.h5", make(4), 1, 1)
    store = Store(tmp_path / "set.h5")
    assert pickle.loads(pickle.dumps(store))[2] == store[2]
    pid = os.fork()
    if pid == 0:
        os._exit(0 if store[3] == make(4)[3] and store._pid == os.getpid() else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert store[1] == make(4)[1]


def read_bytes() -> int:
    """Bytes this process has read by system calls so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts bytes through /proc")
def test_reading_some_does_not_read_all(tmp_path: Path) -> None:
    atoms = bulk("C", "diamond", a=3.57, cubic=True) * (3, 3, 3)
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=np.zeros((len(atoms), 3)))
    path = tmp_path / "set.h5"
    Store.write(path, (atoms for _ in range(2000)), 10, 10)
    size = path.stat().st_size
    assert size > 20_000_000
    before = read_bytes()
    with Store(path, verify=False) as store:
        store[1234]
        assert read_bytes() - before < 0.02 * size
        store.subset("train", 100)
        assert read_bytes() - before < 0.1 * size
