"""Format, lint and agreement of the files that say the same thing twice."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def run(root, *command):
    process = subprocess.run(
        command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.returncode == 0, process.stdout[-5000:]
    return process.stdout


def test_ruff_check(root):
    run(root, "ruff", "check", ".")


def test_ruff_format(root):
    run(root, "ruff", "format", "--check", ".")


def test_snakefmt(root):
    run(root, "snakefmt", "--check", "Snakefile", "workflow")


@pytest.mark.parametrize("config", ["config/config.yaml", "config/demo.yaml"])
def test_snakemake_lint(checkout, config):
    checkout.snakemake("--lint", "--configfile", config)


def test_environments_pin_what_the_lock_pins(root):
    lock = dict(
        line.split("==")
        for line in (root / "requirements.lock").read_text().lower().splitlines()
        if "==" in line and not line.startswith("#")
    )
    checked = 0
    for path in (root / "envs").glob("*.yaml"):
        for entry in yaml.safe_load(path.read_text())["dependencies"]:
            for pin in entry["pip"] if isinstance(entry, dict) else []:
                if "==" in pin:
                    name, version = pin.lower().split("==")
                    # A code of its own environment only.
                    if name in (path.stem, "torch-sim-atomistic"):
                        continue
                    assert lock[name] == version, f"{path.name}: {pin}"
                    checked += 1
    assert checked > 15


def test_the_lock_pins_every_direct_dependency(root):
    lock = (root / "requirements.lock").read_text().lower()
    for line in (root / "requirements.in").read_text().lower().splitlines():
        if line and not line.startswith("#"):
            assert re.search(rf"^{re.escape(line.split('==')[0])}==", lock, re.MULTILINE), line


def test_rules_name_existing_scripts_and_environments(root):
    text = "".join(path.read_text() for path in (root / "workflow/rules").glob("*.smk"))
    scripts = set(re.findall(r"workflow/scripts/\w+\.py", text))
    assert len(scripts) > 10
    for script in scripts:
        assert (root / script).is_file(), script
    for environment in set(re.findall(r"envs/\w+\.yaml", text)):
        assert (root / environment).is_file(), environment


def imports(root, file, seen):
    """Return the foreign modules that a script imports anywhere, others when they are imported."""
    found = set()
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree) if file.parent.name == "scripts" else tree.body:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            module = root / "workflow" / f"{name.replace('.', '/')}.py"
            if not name.startswith("pretraining"):
                found.add(name.partition(".")[0])
            elif module.is_file() and module not in seen:
                seen.add(module)
                found |= imports(root, module, seen)
    return found - set(sys.stdlib_module_names)


def installed_with(names):
    """Return packages and all that they need, as they are installed here."""
    known, new = set(), {canonicalize_name(name) for name in names}
    while new:
        name = new.pop()
        known.add(name)
        try:
            needs = [Requirement(need) for need in requires(name) or []]
        except PackageNotFoundError:
            continue
        wanted = [need for need in needs if not need.marker or need.marker.evaluate({"extra": ""})]
        new |= {canonicalize_name(need.name) for need in wanted} - known
    return known


@pytest.mark.parametrize("name", ["train", "dynamics", "analysis"])
def test_an_environment_has_what_its_scripts_import(root, name):
    rules = "".join(path.read_text() for path in (root / "workflow/rules").glob("*.smk"))
    # The rule of molecular dynamics has the environment of its engine.
    named = [f"envs/{name}.yaml"] + ["envs/{environment}.yaml"] * (name in ("train", "dynamics"))
    blocks = [
        block
        for block in re.split(r"\n *(?:use )?rule\b", rules)
        if any(environment in block for environment in named)
    ]
    scripts = {
        script for block in blocks for script in re.findall(r"workflow/scripts/\w+.py", block)
    }
    assert scripts
    pins = yaml.safe_load((root / f"envs/{name}.yaml").read_text())["dependencies"][-1]["pip"]
    present = installed_with(pin.partition("==")[0] for pin in pins)
    owners = packages_distributions()
    for script in sorted(scripts):
        for module in imports(root, root / script, set()):
            packages = {canonicalize_name(package) for package in owners[module]}
            assert packages & present, f"{script} needs {module}, which envs/{name}.yaml has not"


def schema_keys(schema, definitions):
    """Yield every property name of the schema, at any depth."""
    if "$ref" in schema:
        yield from schema_keys(definitions[schema["$ref"].rsplit("/", 1)[1]], definitions)
    for name, subschema in schema.get("properties", {}).items():
        yield name
        yield from schema_keys(subschema, definitions)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from schema_keys(schema[key], definitions)


def test_every_key_is_documented(root):
    schema = yaml.safe_load((root / "workflow/schemas/config.schema.yaml").read_text())
    text = (root / "config/README.md").read_text()
    words = set(re.findall(r"\w+", text))
    missing = {key for key in schema_keys(schema, schema["$defs"]) if key not in words}
    assert not missing


@pytest.mark.parametrize(
    "script", ["label.py", "train.py", "predict.py", "prepare.py", "table1.py", "grid.py"]
)
def test_programs_explain_themselves(root, script):
    assert "usage:" in run(root, sys.executable, f"workflow/scripts/{script}", "--help")
