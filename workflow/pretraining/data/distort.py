"""Structures around known crystals, without dynamics: strained, rattled, with vacancies."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk

from pretraining.runtime.errors import UserError


def prototypes(entries: Iterable[Mapping[str, Any]]) -> Iterator[Atoms]:
    """Yield crystals; each entry has arguments of ``ase.build.bulk``."""
    for number, entry in enumerate(entries):
        try:
            yield bulk(**entry)
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"prototypes[{number}]: ASE cannot build {dict(entry)}: {reason}"
            ) from None


def distorted(frames: Iterable[Atoms], settings: Mapping[str, Any]) -> Iterator[Atoms]:
    """Yield distorted copies of structures, of each in turn.

    Parameters
    ----------
    settings
        The dataset's section ``distort``. The random numbers of a structure follow from `seed` and
        its number: more structures leave the first ones as they are.

    Yields
    ------
    Atoms
        With the number of its original as ``start`` in ``info``.
    """
    starts = list(itertools.islice(frames, settings["number"]))
    if not starts:
        raise UserError("no structure to distort: give a file with structures, or prototypes")
    for number in range(settings["number"]):
        start = number % len(starts)
        atoms = starts[start].repeat(settings["repeat"])
        atoms.calc = None
        atoms.info = {**starts[start].info, "start": start}
        random = np.random.default_rng([settings["seed"], number])
        if len(atoms) <= settings["vacancies"]:
            raise UserError(
                f"distort.vacancies: {settings['vacancies']} are all {len(atoms)} atoms of "
                f"start {start}: lower it, or raise distort.repeat"
            )
        del atoms[random.choice(len(atoms), settings["vacancies"], replace=False)]
        strain = random.uniform(-1, 1, (3, 3)) * settings["strain"]
        # Symmetric: a rotation is no strain.
        atoms.set_cell(atoms.cell @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
        atoms.rattle(settings["rattle"], rng=random)
        yield atoms
