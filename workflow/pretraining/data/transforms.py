"""Alchemical transforms: turn labelled structures of one element into those of another.

Elements are renamed and lengths multiplied, while the labels stay. Forces are then no longer minus
the gradient of the energy, unless `scale_forces` divides them by the scale. `energy_shift` adds a
constant per atom, for labels whose energy zero differs from the target's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from pretraining.runtime.errors import UserError


@dataclass(frozen=True)
class Transform:
    """A named change of structures."""

    name: str = "none"
    elements: Mapping[str, str] = field(default_factory=dict)  # new symbols by the old ones
    scale: float = 1.0
    scale_forces: bool = False
    energy_shift: Mapping[str, float] = field(default_factory=dict)  # eV, by the new symbols
    cutoff: float | None = None  # Å, of a network that trains on these structures, if not its own

    @classmethod
    def from_settings(cls, name: str, transforms: Mapping[str, Any]) -> Transform:
        """Look a transform up in the configuration's `transforms`; ``none`` always exists.

        Raises a `UserError` if there is no such transform, or it names an unknown element.
        """
        transforms = {"none": {}, **transforms}
        if name not in transforms:
            raise UserError(f"no transform {name!r}: `transforms` has {', '.join(transforms)}")
        options = dict(transforms[name])
        elements = options.get("elements", {})
        symbols = {
            "elements": (*elements, *elements.values()),
            "energy_shift": options.get("energy_shift", {}),
        }
        for key, named in symbols.items():
            for symbol in named:
                if symbol not in atomic_numbers:
                    raise UserError(f"transforms.{name}.{key}: {symbol!r} is not an element")
        return cls(name, **options)

    def apply(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Transform a structure given as the arrays of :meth:`.Store.arrays`."""
        changed = dict(arrays)
        changed["numbers"] = self.apply_to_numbers(arrays["numbers"])
        if self.scale != 1.0:
            changed["positions"] = arrays["positions"] * self.scale
            changed["cell"] = arrays["cell"] * self.scale
            if self.scale_forces and "forces" in arrays:
                changed["forces"] = arrays["forces"] / self.scale
        if self.energy_shift and "energy" in arrays:
            changed["energy"] = arrays["energy"] + sum(
                shift * np.count_nonzero(changed["numbers"] == atomic_numbers[symbol])
                for symbol, shift in self.energy_shift.items()
            )
        return changed

    def apply_to_numbers(self, numbers: np.ndarray) -> np.ndarray:
        """Rename the elements of atoms given by their atomic numbers, shape (N,)."""
        renamed = np.array(numbers)
        for old, new in self.elements.items():
            renamed[np.asarray(numbers) == atomic_numbers[old]] = atomic_numbers[new]
        return renamed
