"""A calculator that crashes, hangs, prints and returns nonsense."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
from ase.calculators.calculator import Calculator, all_changes

from pretraining.runtime.errors import UserError


class Troublemaker(Calculator):
    """Argon and neon work, at -1 eV/atom; other elements make trouble.

    Parameters
    ----------
    log
        File to which every start and every evaluation adds a line.
    start
        What its construction does: ``crash``, ``refuse`` or, given a number, a pause in s.
    once
        File that the first crash makes and that prevents others.
    pause
        Time of an evaluation, s.
    """

    implemented_properties = ("energy", "forces")

    def __init__(self, log=None, start=None, once=None, pause=0.0):
        super().__init__()
        self.log, self.once, self.pause = log, once, pause
        self.note(f"start {os.environ.get('OMP_NUM_THREADS')} {os.environ.get('PMI_FD')}")
        if start == "crash":
            os._exit(3)
        if start == "refuse":
            raise UserError("this code wants a licence")
        time.sleep(start or 0)

    def note(self, text):
        if self.log:
            with open(self.log, "a") as file:
                file.write(f"{os.getpid()} {text}\n")

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        print("noise", flush=True)
        os.write(1, b"\x00\xff is no text\n")
        symbol = self.atoms.get_chemical_symbols()[0]
        self.note(f"{symbol} {self.atoms.positions[0, 0]:.6f}")
        time.sleep(self.pause)
        if symbol == "He":
            self.crash()
        elif symbol == "Kr":
            self.note(f"child {subprocess.Popen(['sleep', '300']).pid}")
            time.sleep(300)
        elif symbol == "Xe":
            raise RuntimeError("no convergence")
        elif symbol == "Rn":
            raise SystemExit("this program is not licensed")
        forces = -self.atoms.positions if symbol != "Ne" else np.zeros((len(self.atoms), 3))
        if symbol == "H":
            forces[0, 0] = np.nan
        energy = np.inf if symbol == "Li" else -1.0 * len(self.atoms)
        self.results = {"energy": energy, "forces": forces}

    def crash(self):
        if self.once and Path(self.once).exists():
            return
        if self.once:
            time.sleep(0.5)
            Path(self.once).touch()
        # This child keeps the inherited files open.
        os.system("sleep 300 &")
        os.kill(os.getpid(), signal.SIGSEGV)
