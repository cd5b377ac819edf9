"""A study of seconds, in a copy of the repository as a fresh clone has it, and Snakemake in it."""

from __future__ import annotations

import copy
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from slurmcluster import wait_for

import copper

CONFIG = "config/small.yaml"
# A training of 3 epochs takes 5 s, and saves its state each second.
SMALL: dict[str, Any] = copper.CONFIG | {
    "results": "results/small",
    "training": copper.CONFIG["training"] | {"checkpoint_seconds": 1},
}
# A direct training of the small study, below its results, and the file that it ends with.
DIRECT = "runs/direct/target~Cu/source~none/n~3/seed~1"
TARGET = f"{SMALL['results']}/{DIRECT}/metrics.json"
# Snakemake, which asks Slurm for its jobs every 2 s: by itself, ever less often.
SNAKEMAKE = """
from snakemake.cli import main
from snakemake_executor_plugin_slurm import Executor
Executor.next_seconds_between_status_checks = property(lambda self: 2, lambda self, seconds: None)
main()
"""
COMMAND = [sys.executable, "-c", SNAKEMAKE]


def long_training(epochs: int) -> dict[str, Any]:
    """Return a study like :data:`SMALL` whose trainings have that many epochs, of some 20 ms."""
    study = copy.deepcopy(SMALL)
    study["training"] |= {"max_epochs": epochs, "patience": epochs, "compile": "never"}
    return study


class Checkout:
    """A copy of the repository, with the small study's structures and configuration in it.

    Parameters
    ----------
    root
        The repository.
    folder
        Where to copy it; must not exist.
    study
        Content of the configuration file :data:`CONFIG`.
    """

    def __init__(self, root: Path, folder: Path, study: dict[str, Any]) -> None:
        self.folder = folder
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=root,
            stdout=subprocess.PIPE,
            check=True,
        )
        for name in filter(None, listed.stdout.decode().split("\0")):
            if name.startswith(("tests/", "docs/")) or not os.path.lexists(root / name):
                continue
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, folder / name, follow_symlinks=False)
        copper.add_files(self)
        self.configure(study)

    def copy(self, folder: Path) -> Checkout:
        """Return a copy, with its results and without its training."""
        made = copy.copy(self)
        made.folder = shutil.copytree(self.folder, folder, symlinks=True)
        made.results = folder / self.results.relative_to(self.folder)
        shutil.rmtree(made.results / DIRECT)
        return made

    def configure(self, study: dict[str, Any]) -> None:
        """Write the configuration, and remember where its results go."""
        self.results = self.folder / study["results"]
        (self.folder / CONFIG).write_text(yaml.safe_dump(study))

    def head(self, *arguments: str, log: str = "head.log", **environment: str) -> Head:
        """Start ``snakemake --profile slurm`` on the small study; it runs beside the test.

        Late files are waited for less long; `arguments` can be targets or anything else.
        """
        words = ["--profile", "slurm", "--configfile", CONFIG, "--latency-wait", "20", *arguments]
        return Head(words, self.folder, self.folder / log, environment)

    def start(self, *arguments: str, log: str = "local.log", **environment: str) -> Head:
        """Start Snakemake on the small study without Slurm; it runs beside the test."""
        words = ["--configfile", CONFIG, *arguments]
        return Head(words, self.folder, self.folder / log, environment)

    def snakemake(
        self, *arguments: str, check: bool = True, **environment: str
    ) -> subprocess.CompletedProcess:
        """Run Snakemake on the small study without Slurm; output and errors are in ``stdout``."""
        process = subprocess.run(
            [*COMMAND, "--configfile", CONFIG, *arguments],
            cwd=self.folder,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if check:
            assert process.returncode == 0, process.stdout[-8000:]
        return process


class Head:
    """A head process of Snakemake, in a process group of its own.

    Attributes
    ----------
    process
        The process; its ``pid`` is that of Snakemake itself.
    """

    def __init__(
        self, arguments: list[str], folder: Path, log: Path, environment: dict[str, str]
    ) -> None:
        self._log = log
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        with open(log, "wb") as handle:
            self.process = subprocess.Popen(
                [*COMMAND, *arguments],
                cwd=folder,
                env=os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"} | environment,
                stdin=subprocess.DEVNULL,
                stdout=handle,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def log(self) -> str:
        """Return what it has printed so far."""
        return self._log.read_text(errors="replace")

    def wait(self, timeout: float = 300) -> int:
        """Wait for its end and return its exit status."""
        wait_for(lambda: self.process.poll() is not None, timeout, f"the end of {self._log}")
        return self.process.returncode

    def finish(self, timeout: float = 300) -> str:
        """Wait for its end, which must be a success, and return what it has printed."""
        status = self.wait(timeout)
        assert status == 0, f"status {status}\n{self.log()[-8000:]}"
        return self.log()

    def kill(self) -> None:
        """Kill it at once: it can neither cancel its jobs nor clean up. Jobs go on."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def interrupt(self) -> None:
        """Interrupt it from the keyboard; it cancels its jobs."""
        self.process.send_signal(signal.SIGINT)


def snippets(root: Path, heading: str, containing: str = "") -> list[str]:
    """Return the YAML below a heading of the profile's README."""
    text = (root / "profiles/slurm/README.md").read_text().split(f"\n## {heading}\n")[1]
    blocks = re.findall(r"```yaml\n(.*?)```", text.split("\n## ")[0], re.DOTALL)
    blocks = [block for block in blocks if containing in block]
    assert blocks, heading
    return blocks


def add(checkout: Checkout, snippet: str) -> None:
    """Add a snippet to the profile, as a user does."""
    file = checkout.folder / "profiles/slurm/config.yaml"
    profile = yaml.safe_load(file.read_text())
    for key, value in yaml.safe_load(snippet).items():
        profile[key] = profile.get(key, {}) | value if isinstance(value, dict) else value
    file.write_text(yaml.safe_dump(profile))
