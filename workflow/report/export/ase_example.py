"""Energies and forces by the models of this folder; needs nequip alone (requirements.txt).

python ase_example.py                              the structures of check.extxyz, and how far the
                                                   models are from the energies and forces there
python ase_example.py in.xyz --out predicted.xyz   structures of your own

Energies are the mean of the committee, with its standard deviation. For MD use one model:

    atoms.calc = calculator("NAME.nequip.zip")     any machine
    atoms.calc = calculator("NAME-ase.nequip.pt2") compiled, several times as fast
"""

import argparse
import logging
import sys
from pathlib import Path

import ase.io
import numpy as np
from nequip.integrations.ase import NequIPCalculator

HERE = Path(__file__).resolve().parent


def calculator(file, device="cpu"):
    """Return the ASE calculator of a model file."""
    compiled = str(file).endswith(".pt2")
    load = NequIPCalculator.from_compiled_model if compiled else NequIPCalculator._from_saved_model
    return load(HERE / file, device=device, chemical_species_to_atom_type_map=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("structures", nargs="?", default=HERE / "check.extxyz")
    parser.add_argument("--out", help="structures with energies and forces, extended XYZ")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    logging.disable(logging.INFO)
    structures = ase.io.read(args.structures, ":")
    committee, wrong = [], False
    for file in sorted([*HERE.glob("*.nequip.zip"), *HERE.glob("*-ase.nequip.pt2")]):
        calc, found = calculator(file.name, args.device), []
        for atoms in structures:
            copy = atoms.copy()
            copy.calc = calc
            found.append((copy.get_potential_energy() / len(copy), copy.get_forces()))
        if file.suffix == ".zip":
            committee.append(found)
        name, off = file.name.split(".")[0].removesuffix("-ase"), []
        for atoms, (energy, forces) in zip(structures, found, strict=True):
            if f"{name}_energy" in atoms.info:
                known = atoms.info[f"{name}_energy"] / len(atoms), atoms.arrays[f"{name}_forces"]
                off.append([abs(energy - known[0]), abs(forces - known[1]).max()])
                # Single precision has seven digits.
                wrong |= not (off[-1][0] <= 1e-6 + 1e-7 * abs(energy) and off[-1][1] <= 1e-5)
        if off:
            energy, force = np.max(off, axis=0)
            print(f"{file.name}: off by at most {energy:.1e} eV/atom and {force:.1e} eV/Å")
    for i, (atoms, *results) in enumerate(zip(structures, *committee, strict=True)):
        energies, forces = (np.array(values) for values in zip(*results, strict=True))
        print(
            f"structure {i}: {energies.mean():.6f} eV/atom; standard deviation of {len(results)} "
            f"models {energies.std():.6f} eV/atom, and of a force component at most "
            f"{forces.std(axis=0).max():.4f} eV/Å"
        )
        atoms.info["energy"] = energies.mean() * len(atoms)
        atoms.arrays["forces"] = forces.mean(axis=0)
    if args.out:
        ase.io.write(args.out, structures, format="extxyz")
    return "a model is not what it was when it was exported" if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
