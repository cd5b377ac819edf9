"""A study goes through Slurm to Table 1."""

from __future__ import annotations


def test_small_study(cluster, checkout):
    checkout.head().finish(300)
    assert (checkout.results / "tables/table1.md").stat().st_size > 100
