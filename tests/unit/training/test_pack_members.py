"""Which trainings share a job, and what they keep of their outputs meanwhile."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from pretraining.training.packing import KEPT, OUTPUTS, PACKED, drop_all, keep, packs, take_back


def grid_of(*parents):
    """Return a grid with a pre-training by name, and five fine-tunings of it of two sizes each."""
    common = {"structures": "C", "npre": 10, "imported": False}
    rows = [
        common | {"kind": "pretrain", "parent": "", "path": p, "n": 0, "seed": 1} for p in parents
    ]
    for parent in parents:
        for n in (25, 400):
            rows += [
                common
                | {"kind": "finetune", "parent": parent, "path": f"{parent}/{n}/{seed}"}
                | {"n": n, "seed": seed}
                for seed in range(5)
            ]
    return pd.DataFrame(rows)


def members(found):
    """Return the runs of each pack."""
    return sorted(sorted(p for p in found if found[p] == name) for name in set(found.values()))


def test_runs_of_similar_length_share_a_job():
    grid = grid_of("a", "b")
    seconds = {
        path: {0: 900.0, 25: 60.0, 400: 600.0}[n]
        for path, n in zip(grid["path"], grid["n"], strict=True)
    }
    found = packs(grid, seconds, 8)
    assert set(found) == set(grid["path"])
    # Ten alike are five and five, not eight and two.
    assert [len(pack) for pack in members(found)] == [2, 5, 5, 5, 5]
    lengths = [{seconds[path] for path in pack} for pack in members(found)]
    assert all(len(length) == 1 for length in lengths)
    # A run more of another kind changes no pack.
    more = pd.concat([grid, grid_of("c").query("kind == 'pretrain'")])
    later = packs(more, seconds | {"c": 90000.0}, 8)
    assert {path: later[path] for path in found} == found


def test_packs_of_one_pretraining_each():
    grid = grid_of("a", "b", "c")
    together, apart = (packs(grid, dict.fromkeys(grid["path"], 60.0), 4, apart=a) for a in (0, 1))

    def parents(found):
        return [{path[0] for path in pack} for pack in members(found) if "/" in pack[0]]

    assert max(map(len, parents(together))) > 1 and set(map(len, parents(apart))) == {1}


def test_imported_weights_are_no_training():
    grid = grid_of("a").assign(imported=lambda g: g["kind"] == "pretrain")
    assert "a" not in packs(grid, dict.fromkeys(grid["path"], 1.0), 2)


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """A run that has finished in a pack of the Snakemake run "one"; its outputs were deleted."""
    monkeypatch.setenv(PACKED, "one")
    for name in OUTPUTS:
        (tmp_path / name).write_text(json.dumps({"config_hash": "this"}))
    keep(tmp_path)
    for name in OUTPUTS:
        (tmp_path / name).unlink()
    return tmp_path


def test_a_run_takes_back_its_outputs(finished):
    assert take_back(finished, "this")
    assert json.loads((finished / "metrics.json").read_text()) == {"config_hash": "this"}
    drop_all([finished, finished / "another"])
    assert sorted(path.name for path in finished.iterdir()) == sorted(OUTPUTS)
    assert not take_back(finished, "this")


@pytest.mark.parametrize("owner", ["another", None])
def test_another_snakemake_trains_anew(finished, monkeypatch, owner):
    monkeypatch.delenv(PACKED)
    if owner:
        monkeypatch.setenv(PACKED, owner)
    assert not take_back(finished, "this") and not (finished / "model.ckpt").exists()


def test_another_configuration_trains_anew(finished):
    assert not take_back(finished, "another")


def test_a_copy_that_is_cut_short_is_no_result(finished):
    (finished / KEPT / "metrics.json").write_text('{"config')
    assert not take_back(finished, "this")


def test_a_finished_run_needs_no_copy(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv(PACKED, "one")
    keep(tmp_path)  # there are no outputs to be copied
    assert "no copy was kept" in capfd.readouterr().err


def test_nothing_is_kept_of_a_run_alone(tmp_path, monkeypatch):
    monkeypatch.delenv(PACKED, raising=False)
    keep(tmp_path)
    assert not list(tmp_path.iterdir())
