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

    files = sorted(HERE.glob("*.nequip.zip")) + sorted(HERE.glob("*-ase.nequip.pt2"))
    committee = [file.name.removesuffix(".nequip.zip") for file in files]
    committee = [name for name in committee if not name.endswith(".pt2")]
    structures = ase.io.read(args.structures, ":")
    energies = {file.name: [] for file in files}
    forces = {file.name: [] for file in files}
    for file in files:
        calc = calculator(file.name, args.device)
        for atoms in structures:
            copy = atoms.copy()
            copy.calc = calc
            energies[file.name].append(copy.get_potential_energy())
            forces[file.name].append(copy.get_forces())

    members = [f"{name}.nequip.zip" for name in committee]
    for i, atoms in enumerate(structures):
        energy = np.array([energies[name][i] for name in members]) / len(atoms)
        force = np.array([forces[name][i] for name in members])
        print(
            f"structure {i}: {energy.mean():.6f} eV/atom, standard deviation of {len(members)} "
            f"models {energy.std():.6f} eV/atom, of a force component at most "
            f"{force.std(axis=0).max():.4f} eV/Å"
        )
        atoms.info["energy"] = energy.mean() * len(atoms)
        atoms.arrays["forces"] = force.mean(axis=0)
    if args.out:
        ase.io.write(args.out, structures, format="extxyz")

    wrong = False
    for file in energies:
        model = file.split(".nequip")[0].removesuffix("-ase")
        known = [i for i, atoms in enumerate(structures) if f"{model}_energy" in atoms.info]
        if not known:
            continue
        energy = max(
            abs(energies[file][i] - structures[i].info[f"{model}_energy"]) / len(structures[i])
            for i in known
        )
        force = max(
            abs(forces[file][i] - structures[i].arrays[f"{model}_forces"]).max() for i in known
        )
        print(f"{file}: off by at most {energy:.1e} eV/atom and {force:.1e} eV/Å")
        wrong = wrong or not (energy <= 1e-6 and force <= 1e-5)
    return "a model is not what it was when it was exported" if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
