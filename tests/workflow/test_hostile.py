"""A study of a stranger: all strings are taken literally, and none runs in a shell."""

from __future__ import annotations

import copy

import ase.io
import pytest
import yaml

import copper

HURT = """it's "$(touch HURT)" `touch HURT`; touch HURT & | > HURT \\ % {x} $x $\\foo$ <b> ../ #1"""
ENTRY = HURT.replace("\\", "")  # ASE drops it
TITLES = {
    "$defs.dataset.properties.title",
    "$defs.source.properties.title",
    "$defs.source.properties.install",
    "$defs.files.items.properties.from",
    "$defs.about.properties.theory",
    "$defs.about.properties.licence",
    "$defs.about.properties.cite",
    "$defs.experiment.properties.title",
    "$defs.sample.properties.title",
    "$defs.dynamics.properties.title",
}
# Names of entries of the structures' files.
KEYS = {
    "$defs.dataset.properties.labels.properties.energy",
    "$defs.dataset.properties.labels.properties.per_atom_energy",
    "$defs.dataset.properties.labels.properties.forces",
    "$defs.dataset.properties.filters.items.properties.key",
    "$defs.dataset.properties.split.properties.key",
    "$defs.dataset.properties.split.properties.test",
    "$defs.dataset.properties.split.properties.val",
    "$defs.dataset.properties.split.properties.groups",
    "$defs.dataset.properties.keep.items",
}
# Each alone makes its study end in one line.
FATAL = {
    "$defs.dataset.properties.format",
    "$defs.source.properties.preload.items",
    "$defs.source.properties.python",
    "$defs.embedding.properties.descriptor",
}
# A file that Snakemake opens, with --sdm conda only; names that are only compared; a style that
# matplotlib must know before anything runs.
ELSEWHERE = {"$defs.source.properties.env", "$defs.generate.properties.exclude.items"}
ELSEWHERE |= {"properties.figures.properties.style"}


def test_every_free_string_of_the_configuration_is_known_here(root):
    """Any other has a pattern or is one of a list."""

    def free(schema, path=()):
        if isinstance(schema, dict):
            if schema.get("type") == "string" and not {"pattern", "enum", "const"} & set(schema):
                yield ".".join(path)
            for key, value in schema.items():
                yield from free(value, (*path, str(key)))

    schema = yaml.safe_load((root / "workflow/schemas/config.schema.yaml").read_text())
    assert set(free(schema)) == TITLES | KEYS | FATAL | ELSEWHERE


@pytest.fixture
def study(checkout):
    """A study whose titles, file names and keys are hostile."""
    copper.add_files(checkout)
    resources = checkout.folder / "resources"
    frames = ase.io.read(resources / "cu.extxyz", ":")
    for number, atoms in enumerate(frames):
        atoms.info |= {ENTRY: "$(touch HURT)", "group": number}
    data = resources / "da; $(touch HURT) 'x' \"y\".extxyz"
    ase.io.write(data, frames)
    config = copy.deepcopy(copper.CONFIG)
    path = str(data.relative_to(checkout.folder))
    config["datasets"]["Cu"] |= {"path": path, "title": HURT, "keep": [ENTRY]}
    config["datasets"]["Cu"]["filters"] = [{"key": ENTRY, "include": ["$(touch HURT)"]}]
    config["datasets"]["Cu-synthetic"]["title"] = HURT
    for source in config["sources"].values():
        source |= {"title": HURT + source["title"], "install": HURT, "neutral_kwargs": {}}
        source["about"] = dict.fromkeys(("theory", "licence", "cite"), HURT)
    config["experiments"]["fig3"] |= {"title": HURT, "sources": ["emt"], "sizes": [3]}
    config["training"]["max_epochs"] = 1
    config["dynamics"] = {
        "heat": {
            "title": HURT,
            "models": [{"experiment": "fig3", "kinds": ["direct"]}],
            "start": {"file": path},
            "stages": [{"temperature": 300, "ps": 0.005}],
            "frame_every_ps": 0.001,
            "log_every_ps": 0.001,
            "snapshots": [0, 0.005],
        }
    }
    return config


def run(checkout, config, *arguments):
    """Run a study whose configuration has a hostile name; nothing of it was run."""
    name = "config/a; $(touch HURT) 'b' \"c\".yaml"
    (checkout.folder / name).write_text(yaml.safe_dump(config))
    done = checkout.snakemake("--configfile", name, "--cores", "2", *arguments, check=False)
    assert not list(checkout.folder.rglob("HURT*"))
    return done


@pytest.mark.slow
def test_a_study_of_hostile_strings_runs(checkout, study):
    for target in ([], ["archive"]):
        done = run(checkout, study, *target)
        assert done.returncode == 0, done.stdout[-8000:]
    table = (checkout.folder / "results/copper/tables/table1.md").read_text()
    assert HURT in table


def change_format(config):
    config["datasets"]["Cu"]["format"] = HURT
    return "data/Cu/prepared.h5"


def change_split(config):
    config["datasets"]["Cu"]["split"] = {"key": HURT, "test": HURT, "val": HURT}
    return "data/Cu/prepared.h5"


def change_groups(config):
    config["datasets"]["Cu"]["split"] |= {"groups": HURT + HURT}
    return "data/Cu/prepared.h5"


def change_labels(config):
    config["datasets"]["Cu"]["labels"] = {"energy": HURT, "forces": HURT}
    return "data/Cu/prepared.h5"


def change_preload(config):
    config["sources"]["emt"]["preload"] = [HURT.replace("{", "").replace("}", "")]
    return "labels/references/emt.json"


def change_python(config):
    config["sources"]["emt"]["python"] = HURT
    return "labels/references/emt.json"


def change_descriptor(config):
    samples = {"base": [{"dataset": "Cu", "environments": 9, "title": HURT}]}
    samples["project"] = [{"dataset": "Cu-synthetic", "environments": 9}]
    config["embeddings"] = {"map": {**samples, "descriptor": HURT}}
    return "embeddings/map/map.csv"


def change_weights(config):
    weights = {"structures": "Cu-synthetic", "source": "emt", "npre": 12, "seed": 1}
    weights |= {"file": "we; $(touch HURT) 'x'/w.pth", "avg_num_neighbors": 31.0}
    config["pretrained_weights"] = [weights]
    parent = "structures~Cu-synthetic/transform~none/source~emt/npre~12/seed~1"
    return f"runs/imported/{parent}/metrics.json"


CHANGES = [change_format, change_split, change_groups, change_labels, change_preload]
CHANGES += [change_python, change_descriptor, change_weights]


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_a_hostile_string_that_means_nothing_ends_in_one_line(checkout, study, change):
    folder = checkout.folder / "we; $(touch HURT) 'x'"
    folder.mkdir(exist_ok=True)
    (folder / "w.pth").write_text("no weights")
    study["results"] = f"results/{change.__name__}"
    target = change(study)
    done = run(checkout, study, f"{study['results']}/{target}")
    assert done.returncode == 1
    assert "error: " in done.stdout and "Traceback" not in done.stdout, done.stdout[-4000:]
