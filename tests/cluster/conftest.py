"""A real Slurm for the tests of this folder, one after another, and a checkout for each.

``PRETRAINING_TEST_CLUSTER=1 python -m pytest -n0 tests/cluster`` runs them, in half an hour.
They run in one process: there is one cluster, and a file lock in case of two.
"""

from __future__ import annotations

import fcntl
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from slurmcluster import Cluster, unavailable
from study import TARGET, Checkout, Head, long_training

# What labelling starts from.
UNLABELLED = [f"results/small/data/Cu-synthetic/chunks/{c}.extxyz" for c in ("eval", "00000")]
UNLABELLED.append("results/small/labels/references/emt.json")


@pytest.fixture(scope="session")
def running_cluster() -> Iterator[Cluster]:
    """The cluster, started for the first test and stopped after the last."""
    reason = unavailable()
    if reason is not None:
        pytest.skip(reason)
    cluster = Cluster()
    lock = cluster.folder.with_name(f"{cluster.folder.name}.lock")
    with open(lock, "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            try:
                cluster.start()
            except (RuntimeError, TimeoutError) as error:
                pytest.fail(f"Slurm did not start: {error}\n{cluster.logs()}", pytrace=False)
            yield cluster
        finally:
            cluster.stop()


@pytest.fixture
def cluster(running_cluster, request) -> Iterator[Cluster]:
    """The cluster, up and without jobs."""
    running_cluster.clear()
    yield running_cluster
    if request.session.testsfailed:
        print(running_cluster.logs())


@pytest.fixture(scope="session")
def whole(root, tmp_path_factory) -> Checkout:
    """A checkout with an undisturbed training of 400 epochs, made without Slurm.

    Other trainings and labelling can start in it, too.
    """
    checkout = Checkout(root, tmp_path_factory.mktemp("whole") / "checkout", long_training(400))
    checkout.snakemake("--cores", "2", "--", TARGET, *UNLABELLED)
    return checkout


@pytest.fixture
def new_checkout(cluster, whole, root, tmp_path, monkeypatch) -> Iterator[Callable[..., Checkout]]:
    """A function that copies `whole` without its training, ``new_checkout(study=None)``.

    With ``fresh=True`` it makes a checkout without results. Heads that are still running at the
    test's end are killed.
    """
    heads: list[Head] = []
    begin = Head.__init__

    def remembered(self: Head, *arguments: Any) -> None:
        begin(self, *arguments)
        heads.append(self)

    monkeypatch.setattr(Head, "__init__", remembered)
    numbers = itertools.count(1)

    def make(study: dict | None = None, fresh: bool = False) -> Checkout:
        folder = tmp_path / f"checkout{next(numbers)}"
        if fresh:
            return Checkout(root, folder, study)
        checkout = whole.copy(folder)
        if study is not None:
            checkout.configure(study)
        return checkout

    yield make
    for one in heads:
        one.kill()
