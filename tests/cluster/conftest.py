"""A real Slurm for the tests of this folder, one after another, and a checkout for each.

``PRETRAINING_TEST_CLUSTER=1 python -m pytest -n0 tests/cluster`` runs them, with ``-m faults`` the
slow ones instead. They run in one process: there is one cluster, and a file lock in case of two.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from slurmcluster import Cluster, unavailable
from study import Checkout, Head


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


@pytest.fixture
def new_checkout(cluster, root, tmp_path, monkeypatch) -> Iterator[Callable[..., Checkout]]:
    """A function that makes a checkout in a folder of its own, ``new_checkout(study=SMALL)``.

    Heads that are still running at the test's end are killed.
    """
    heads: list[Head] = []
    begin = Head.__init__

    def remembered(self: Head, *arguments: Any) -> None:
        begin(self, *arguments)
        heads.append(self)

    monkeypatch.setattr(Head, "__init__", remembered)
    count = 0

    def make(study: dict | None = None) -> Checkout:
        nonlocal count
        count += 1
        return Checkout(root, Path(tmp_path) / f"checkout{count}", study)

    yield make
    for one in heads:
        one.kill()


@pytest.fixture
def checkout(new_checkout) -> Checkout:
    """A checkout with the small study."""
    return new_checkout()
