"""Every way to get the configuration wrong ends in one line that names file, key and cure."""

from __future__ import annotations

import copy
import re

import pytest
import yaml

from pretraining.runtime.errors import UserError
from pretraining.runtime.files import read_yaml
from pretraining.study.config import load_config, validate_config, validate_study
from pretraining.study.queries import datasets_read, largest_pool, sources_read
from pretraining.study.views import config_view


@pytest.fixture(scope="module")
def paper(root):
    """The shipped configuration of the paper's grid, as written."""
    return yaml.safe_load((root / "config/config.yaml").read_text())


@pytest.mark.parametrize(
    "names",
    [
        ["config.yaml"],
        ["config.yaml", "fig5-published.yaml"],
        ["config.yaml", "fig5-sp2-sp3.yaml"],
        ["config.yaml", "published-labels.yaml"],
        ["demo.yaml"],
        ["generate.yaml"],
        ["replication.yaml"],
        ["replication.yaml", "replication-more.yaml"],
    ],
    ids=" + ".join,
)
def test_shipped_configurations_are_valid(root, names):
    config = validate_study(load_config(*(root / "config" / name for name in names)), "test")
    # Validation is idempotent: what it returns it accepts, and changes no further.
    assert validate_study(config, "again") == config
    for name in config["datasets"]:
        # What the preparation of a set reads.
        validate_config(config_view(config, f"dataset~{name}"), "settings")


def test_a_later_file_takes_precedence(root):
    more = ("replication.yaml", "replication-more.yaml")
    config = load_config(*(root / "config" / name for name in more))
    assert config["shipped"] == "resources/replication/more.csv"
    assert {"fig3", "fig_own"} <= set(config["experiments"])


def change(config, key, value):
    """Set a dotted key, or delete it where the value is `...`."""
    config = copy.deepcopy(config)
    *parents, last = key.split(".")
    section = config
    for parent in parents:
        section = section.setdefault(parent, {})
    if value is ...:
        del section[last]
    else:
        section[last] = value
    return config


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("experiments.fig2.sources", ["acee"], ["fig2.sources[0]", "'acee'", "allowed: edip"]),
        ("experiments.fig2.target", "C-GAP-71", ["fig2.target", "'C-GAP-71'", "C-GAP-17"]),
        ("experiments.fig2.structures", "nothing", ["fig2.structures", "'nothing'"]),
        ("experiments.fig2.transforms", ["Ge"], ["fig2.transforms[0]", "'Ge'", "none, Si"]),
        ("experiments.fig2.sizes", [25, 5000], ["fig2.sizes[1]", "5000", "pool of 'C-GAP-17'"]),
        ("experiments.fig2.pretrain_sizes", [200000], ["pretrain_sizes[0]", "pool"]),
        ("experiments.fig2.sizes", [-25], ["fig2.sizes[0]", "-25", "minimum of 1"]),
        ("experiments.fig2.sizes", [], ["fig2.sizes"]),
        ("experiments.fig2.sizes", [25.5], ["fig2.sizes[0]", "25.5", "integer"]),
        ("experiments.fig2.direct_seeds", [1, 2, 1], ["direct_seeds", "1 is given twice"]),
        ("experiments.fig2.finetune_seeds", [-1], ["finetune_seeds[0]", "-1", "minimum of 0"]),
        ("experiments.fig2.sizes", ..., ["experiments.fig2", "'sizes' is missing"]),
        ("experiments.fig2.compare", "colour", ["fig2.compare", "'colour'", "pretrain_size"]),
        ("compare_sources", {"sources": ["acee"]}, ["compare_sources.sources[0]: 'acee' is not"]),
        ("datasets.C-GAP-17.labels", {"source": "vasp"}, ["C-GAP-17.labels.source: 'vasp' is not"]),
        ("experiments.fig2.also_test", ["C-GAP-71"], ["also_test[0]", "'C-GAP-71'", "allowed"]),
        ("experiments.fig2.also_test", ["C-GAP-17"], ["also_test[0]", "is the target"]),
        ("experiments.fig2.also_test", ["C-SYNTH-23M"], ["also_test[0]", "has no labels"]),
        ("experiments", {}, ["experiments"]),
        ("experiments", ..., ["'experiments' is missing"]),
        ("sources", ..., ["'sources' is missing"]),
        ("trainig", {}, ["unknown key 'trainig'", "did you mean 'training'"]),
        ("training.batchsize", 10, ["training", "'batchsize'", "did you mean 'batch_size'"]),
        ("training.batch_size", 0, ["training.batch_size", "0", "minimum of 1"]),
        (
            "training.learning_rate",
            -0.01,
            ["learning_rate", "-0.01", "equal to the minimum of 0"],
        ),
        ("training.device", "gpu", ["training.device", "'gpu'", "'auto', 'cpu', 'cuda'"]),
        ("training.ema_decay", 1.0, ["training.ema_decay", "1.0"]),
        ("network.cutoff", 0, ["network.cutoff", "0", "Å"]),
        ("network.num_layers", "four", ["network.num_layers", "'four'", "integer"]),
        ("datasets.C-GAP-17.labels", ..., ["C-GAP-17"]),
        ("datasets.C-GAP-17.labels", {"energy": "energy"}, ["C-GAP-17.labels", "energy + forces"]),
        ("datasets.C-GAP-17.path", "a.xyz", ["datasets.C-GAP-17", "load_atoms"]),
        ("datasets.C-GAP-17.load_atoms", ..., ["datasets.C-GAP-17", "path"]),
        ("datasets.C-GAP-17.energy_reference", {"source": "pbe"}, ["energy_reference", "'pbe'"]),
        ("datasets.C-GAP-17.energy_reference", {"mean": True}, ["energy_reference", "'mean'"]),
        ("datasets.C-GAP-17.energy_reference", {"given": {"c": 1.0}}, ["energy_reference", "'c'"]),
        ("datasets.C-GAP-17.split.val", "val", ["C-GAP-17.split"]),
        ("datasets.C-GAP-17.split.test_path", "t.xyz", ["split", "only one of: key | test_path"]),
        ("datasets.C-SYNTH-23M.split", {"test_path": "t.xyz"}, ["split.test_path", "beside path"]),
        ("datasets.C-SYNTH-23M.split", {"val_path": "v.xyz"}, ["'test_path' is missing"]),
        ("datasets.C-GAP-17.energy_reference", {"median_shift": True}, ["fig2", "energy zero"]),
        ("datasets.C-SYNTH-23M.energy_reference", {"given": {"C": 1.0}}, ["has no labels"]),
        ("datasets.C-GAP-17.filters", [{"key": "a"}], ["C-GAP-17.filters[0]", "include"]),
        ("datasets.C/GAP", {"path": "x"}, ["C/GAP"]),
        ("sources.ace.calculator", "PyACE", ["sources.ace.calculator", "'PyACE'", "import path"]),
        (
            "sources.ace.kind",
            "machine",
            ["ace.kind", "'machine'", "'empirical', 'ml', 'dft'"],
        ),
        ("sources.ace.elements", ["Carbon"], ["sources.ace.elements[0]", "'Carbon'"]),
        ("transforms.Si", {"energy_shift": {"Sj": 1}}, ["Si.energy_shift", "'Sj'"]),
        ("sources.ace.elements", ["C", "Xx"], ["sources.ace.elements[1]", "'Xx'", "symbol"]),
        (
            "sources.ace.time_limit",
            0,
            ["ace.time_limit", "0", "equal to the minimum of 0"],
        ),
        ("sources.ace.files", [{"url": "https://a/b"}], ["sources.ace.files[0]", "'path'"]),
        (
            "sources.ace.neutral_kwargs",
            {"basis_set": "x"},
            ["sources.ace.neutral_kwargs.basis_set", "in kwargs too"],
        ),
        (
            "sources.ace.kwargs",
            {"basis_set": "{home}/c_ace.yace"},
            ["sources.ace.kwargs", "'{home}'", "{root}, {prefix}"],
        ),
        (
            "transforms.Si",
            {"scale": 0},
            ["Si.scale", "0", "equal to the minimum of 0"],
        ),
        (
            "pretrained_weights",
            [{"structures": "C-SYNTH-23M", "source": "ace", "npre": 1, "seed": 1, "file": "w"}],
            ["pretrained_weights[0]", "'avg_num_neighbors' is missing"],
        ),
        ("labelling.chunk_size", -5, ["labelling.chunk_size", "-5", "minimum of 1"]),
        ("figures.aggregate", "median", ["figures.aggregate", "'median'", "'best', 'mean'"]),
    ],
)
def test_bad_configuration_is_one_line(paper, key, value, words):
    if key == "datasets.C-GAP-17.split.val":
        paper = change(paper, "datasets.C-GAP-17.split.key", ...)
    with pytest.raises(UserError) as error:
        validate_study(change(paper, key, value), "config/mine.yaml")
    message = str(error.value)
    assert message.startswith("config/mine.yaml: ")
    assert "\n" not in message
    for word in words:
        assert word in message


def weights_only(root, weights=None, **sections):
    """Return the replication, which names no structures and no sources, with other sections."""
    config = read_yaml(root / "config/replication.yaml")
    for key, entry in sections.items():
        config[key] = config.get(key, {}) | entry
    return config | (
        {"pretrained_weights": weights(config["pretrained_weights"])} if weights else {}
    )


def test_published_weights_need_neither_structures_nor_sources(root):
    config = validate_study(weights_only(root), "r.yaml")
    titles = {name: source["title"] for name, source in config["sources"].items()}
    assert titles == {"edip": "EDIP", "lcbop": "LCBOP", "gap20u": "GAP-20U", "ace": "C-ACE"}
    assert datasets_read(config) == {"C-GAP-17-PBE"} and not sources_read(config)
    # An entry may give the title alone; what is given elsewhere is kept.
    sources = {"ace": {"title": "ACE", "kind": "ml"}, "mine": {"title": "M", "kind": "dft"}}
    datasets = {"C-SYNTH-23M": {"title": "synthetic", "structures": 3}}
    config = validate_study(weights_only(root, sources=sources, datasets=datasets), "r.yaml")
    assert config["sources"]["ace"]["title"] == "ACE" and "mine" in config["sources"]
    assert config["datasets"]["C-SYNTH-23M"]["title"] == "synthetic"


STRUCTURES = "datasets.C-SYNTH-23M: give one of: load_atoms | path | generate | prototypes; "
STRUCTURES += "its structures are "
LACKS = "read by a pre-training of experiments.fig2 that pretrained_weights lacks: "
SYNTHETIC = {"dataset": "C-SYNTH-23M"}
HEATED = {"models": [{"experiment": "fig2"}], "stages": [{"temperature": 300, "ps": 1}]}
CALCULATED = {"labels": {"source": "ace"}, "path": "a"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"weights": lambda entries: [e for e in entries if e["npre"] != 330]},
            f"{STRUCTURES}{LACKS}"
            "structures C-SYNTH-23M, transform none, source ace, npre 330, seed 42",
        ),
        (
            {
                "weights": lambda entries: [e for e in entries if e["npre"] != 330],
                "datasets": {"C-SYNTH-23M": {"load_atoms": "C-SYNTH-23M"}},
            },
            "sources.ace: give one of: calculator | own_labels | published_labels; its labels are "
            "read by a pre-training of experiments.fig2 that pretrained_weights lacks: structures "
            "C-SYNTH-23M, transform none, source ace, npre 330, seed 42",
        ),
        (
            {"weights": lambda entries: [e | {"structures": "C-SYNT"} for e in entries]},
            "pretrained_weights[0].structures: 'C-SYNT' is not one of the configured datasets",
        ),
        (
            {"weights": lambda entries: [e for e in entries if e["source"] != "edip"]},
            "experiments.fig3.sources[0]: 'edip' is not one of the configured sources",
        ),
        ({"weights": lambda entries: []}, "section 'sources' is missing"),
        ({"embeddings": {"m": {"base": [SYNTHETIC]}}}, f"{STRUCTURES}read by embeddings.m.base[0]"),
        (
            {"dynamics": {"heat": HEATED | {"start": SYNTHETIC}}},
            f"{STRUCTURES}read by dynamics.heat.start",
        ),
        (
            {"compare_sources": {"datasets": ["C-SYNTH-23M"]}},
            f"{STRUCTURES}read by compare_sources.datasets[0]",
        ),
        (
            {"compare_sources": {"sources": ["edip"]}},
            "sources.edip: give a calculator; its labels are read by compare_sources.sources[0]",
        ),
        (
            {"datasets": {"mine": CALCULATED}},
            "datasets.mine.labels.source: 'ace' has no calculator to label with",
        ),
        (
            {"sources": {"ace": {"title": "a", "kind": "ml", "calculator": "a.B"}}},
            "sources.ace: key 'elements' is missing, which 'calculator' needs",
        ),
    ],
)
def test_what_nothing_gives_is_named_where_something_reads_it(root, change, message):
    with pytest.raises(UserError) as error:
        validate_study(weights_only(root, **change), "r.yaml")
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"r.yaml: {message}")


HOSTILE = [
    "$(touch x)",
    "a;b",
    "a b",
    "a'b",
    'a"b',
    "a`b`",
    "a\n",
    "a/b",
    "../a",
    "-a",
    "{a}",
    "~a",
    "",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_what_becomes_a_path_or_a_word_of_a_command_is_a_name(paper, name):
    weights = {"structures": "C-SYNTH-23M", "source": "ace", "npre": 10, "seed": 1}
    weights |= {"avg_num_neighbors": 31.0, "file": name}
    sections = ("datasets", "sources", "transforms", "experiments", "embeddings", "dynamics")
    values = [
        *((f"{section}.{name.replace('.', '')}", {}) for section in sections),
        ("datasets.C-GAP-17.load_atoms", name),
        ("datasets.C-GAP-17.labels", {"source": name}),
        ("datasets.C-GAP-17.energy_reference", {"source": name}),
        ("experiments.fig2.target", name),
        ("experiments.fig2.structures", name),
        ("experiments.fig2.sources", [name]),
        ("experiments.fig2.transforms", [name]),
        ("experiments.fig2.also_test", [name]),
        ("experiments.fig4.embedding", name),
        ("compare_sources.sources", [name]),
        ("sources.ace.elements", [name]),
        ("sources.ace.calculator", name),
        ("network.model", name),
    ]
    values += [("pretrained_weights", [weights])] if name not in ("a/b", "../a") else []
    values += [("results", name)] if name not in ("a/b", "../a") else []
    for key, value in values:
        with pytest.raises(UserError) as error:
            validate_config(change(paper, key, value), "file")
        line = str(error.value)
        assert "\n" not in line and line.startswith("file: "), (key, line)


@pytest.mark.parametrize("path", ["a\nb", "a\x00b", "-rf", "a\x1bb", "a\n", "a{b}", "<a>"])
def test_paths_hold_no_line_ends_and_are_no_options(paper, path):
    start = {"start": {"file": path}, "models": [{"experiment": "fig2"}]}
    start["stages"] = [{"temperature": 300, "ps": 1}]
    for key, value in (("datasets.own", {"path": path}), ("dynamics.own", start)):
        with pytest.raises(UserError, match="is not allowed"):
            validate_config(change(paper, key, value), "file")


def test_files_of_the_same_name_are_refused(paper):
    experiments = paper["experiments"] | {"md-fig4d": paper["experiments"]["fig2"]}
    with pytest.raises(UserError, match="experiments.md-fig4d: figures/md-fig4d.pdf is another"):
        validate_study(paper | {"experiments": experiments}, "c")
    entry = {"structures": "C-SYNTH-23M", "source": "ace", "seed": 42, "avg_num_neighbors": 31.0}
    weights = [entry | {"npre": n, "file": f"{n}/ace.pth"} for n in (100, 1000)]
    with pytest.raises(UserError, match=r"weights\[0\].file: another file has the name 'ace.pth'"):
        validate_study(paper | {"pretrained_weights": weights}, "c")
    weights[0]["file"] = weights[1]["file"]
    validate_study(paper | {"pretrained_weights": weights}, "c")


@pytest.mark.parametrize(
    "content, words",
    [
        (b"a: [1, 2", "line 2, column 1: not valid YAML"),
        (b"- a\n- b", "must be a mapping"),
        (b"word", "must be a mapping"),
        (b"", "section 'datasets' is missing"),
        (b"results: a\nresults: b", "line 2: key 'results' is given twice; keep one"),
        (b"a: {b: 1, b: 2}", "line 1: key 'b' is given twice"),
        (b"a: {<<: {b: 1}, <<: {c: 1}}", "line 1: key '<<' is given twice; write <<: [*first"),
        (b"a:\n\tb: 1", "line 2, column 1: not valid YAML (found character that cannot start"),
        (b"a: @b", "quote a value that begins with a sign"),
        (b"a: &x [*x]", "line 1, column 4: not valid YAML (found unconstructable recursive node)"),
        (b"&x\na: 1\nb: *x", "an alias (*) cannot stand inside its own anchor (&)"),
        (b"a: *x", "line 1, column 4: not valid YAML (found undefined alias)"),
        (b"? [a, b]\n: c", "a key is a word or a number"),
        (
            b"a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
            + b"".join(
                b"%c: &%c [%s]\n" % (key, key, b", ".join([b"*%c" % (key - 1)] * 10))
                for key in b"bcdefghijk"
            ),
            "its aliases (*) stand for more than 1,000,000 values",
        ),
        (b"a: 1\n---\nb: 2", "line 2, column 1: not valid YAML"),
        (b"a: !!python/name:os.system", "line 1, column 4: not valid YAML"),
        (b"a: 2023-13-45", "is not valid YAML: month must be in 1..12"),
        (b"a: \x00", "not valid YAML (unacceptable character"),
        (b"a: " + b"[" * 3000 + b"]" * 3000, "is not valid YAML: nested too deeply"),
        ("a: 1\nb: Größe".encode("latin-1"), "line 2: not UTF-8 text; save the file as UTF-8"),
        ("a: 1".encode("utf-16"), "line 1: not UTF-8 text"),
    ],
)
def test_files_that_are_no_configuration(tmp_path, content, words):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(words)) as error:
        validate_study(read_yaml(path), str(path))
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path):
    for path, reason in [("absent.yaml", "No such file"), ("", "Is a directory")]:
        with pytest.raises(UserError, match=rf"cannot be read \({reason}"):
            load_config(tmp_path / path)


def test_merge_keys(tmp_path):
    path = tmp_path / "merged.yaml"
    path.write_text(
        "a: &a {x: 1, y: 1}\nb: &b {z: 3}\nc: {<<: *a, y: 2}\nd: {y: 4, <<: [*b, *a]}\n"
        "e: &e {<<: *a, y: 5}\nf: {<<: *e, z: 6}\n"
    )
    content = read_yaml(path)
    assert content["c"] == {"x": 1, "y": 2}
    assert content["d"] == {"x": 1, "y": 4, "z": 3}
    assert content["f"] == {"x": 1, "y": 5, "z": 6}


def test_defaults_are_the_protocols(paper):
    left_out = ("network", "training", "transforms", "embeddings")
    config = {k: v for k, v in paper.items() if k not in left_out}
    for experiment in config["experiments"].values():
        experiment.pop("transforms", None)
        experiment.pop("embedding", None)
    training = validate_study(copy.deepcopy(config), "c")["training"]
    written = validate_study(paper, "c")["training"]
    for key, value in written.items():
        # The paper's pre-trainings may take longer.
        if key not in ("device", "pretrain"):
            assert training[key] == value


def test_largest_pool():
    def pool(n, split):
        defaults = {"fraction": 0.1, "max_test": 1000, "max_val": 100, "test": "test"}
        return largest_pool({"structures": n, "exclude": [], "split": defaults | split})

    assert pool(2475, {}) == 2475 - 247 - 100
    assert pool(115206, {}) == 115206 - 1100
    assert pool(200, {"n_test": 40, "n_val": 10}) == 150


def test_variables_of_codes_are_no_placeholders(paper):
    kwargs = {"lmpcmds": ["variable a equal 1", "print ${a} {}", "{root}/x {package:ase}/y"]}
    validate_study(change(paper, "sources.ace.kwargs", kwargs), "config/mine.yaml")


def test_only_what_decides_labels_is_in_a_sources_settings(paper):
    """How labels are made, and where files come from, is no reason to make them again."""
    config = validate_config(paper, "config/mine.yaml")
    files = [{"path": "a", "url": "https://a/b", "from": "https://a", "sha256": "0" * 64}]
    how = {
        "title": "new",
        "kind": "dft",
        "elements": ["C", "H"],
        "on_error": "skip",
        "time_limit": 7,
        "install": "by hand",
        "python": "python3",
        "env": "envs/x.yaml",
        "files": files,
    }
    before = copy.deepcopy(config_view(config, "source~ace"))
    config["sources"]["ace"] |= how
    assert config_view(config, "source~ace") == before
    assert config_view(config, "files~ace")["sources"]["ace"] == {
        "files": [{"path": "a", "sha256": "0" * 64}]
    }
    config["sources"]["ace"]["kwargs"]["basis_set"] = "other.yace"
    assert config_view(config, "source~ace") != before
