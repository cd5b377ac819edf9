"""Layers that NequIP lacks: those of the paper's network, and the energy zero of labels.

NequIP's package files ship the source of this module: it imports only PyTorch, e3nn and layers of
NequIP.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from e3nn.math import normalize2mom
from e3nn.o3._irreps import Irreps
from nequip.data import AtomicDataDict as Key
from nequip.nn import AtomwiseReduce
from nequip.nn._graph_mixin import GraphModuleMixin
from nequip.nn.embedding import BesselEdgeLengthEncoding
from nequip.nn.nonlinearities import shifted_softplus


class OneHotTypes(GraphModuleMixin, torch.nn.Module):
    """Node attributes: one scalar for each atom type, 1 for the atom's own."""

    def __init__(self, num_types: int) -> None:
        super().__init__()
        self.num_types = num_types
        self._dtype = torch.get_default_dtype()
        self._init_irreps(irreps_out={Key.NODE_ATTRS_KEY: Irreps([(num_types, (0, 1))])})

    def forward(self, data: Key.Type) -> Key.Type:
        types = data[Key.ATOM_TYPE_KEY].view(-1)
        one_hot = torch.nn.functional.one_hot(types, self.num_types)
        data[Key.NODE_ATTRS_KEY] = one_hot.to(self._dtype)
        return data


class BesselInRadians(BesselEdgeLengthEncoding):
    """NequIP's Bessel basis with its roots n π as the trainable numbers, not n.

    The basis is the same. Adam changes every number by about the learning rate in a step, so the
    roots would learn π times as fast with n.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bessel_weights.data.mul_(math.pi)

    def forward(self, data: Key.Type) -> Key.Type:
        x = data[self.norm_length_field]
        orders = self.bessel_weights / math.pi
        cutoff = self.cutoff(x).to(self._output_dtype)
        bessel = (torch.sinc(x * orders) * orders).to(self._output_dtype)
        data[Key.EDGE_CUTOFF_KEY] = cutoff
        data[self.edge_invariant_field] = bessel * cutoff
        return data


class RadialNonlinearity(torch.nn.Module):
    """Shifted softplus, normalised as e3nn 0.4 normalised it in the radial network.

    The following linear layer multiplies by the gain √2, the normalisation constant of a generic
    nonlinearity. It is replaced by that of this one: for normal x, constant times shifted softplus
    has a mean square of one.
    """

    factor = float(normalize2mom(shifted_softplus).cst) / math.sqrt(2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * shifted_softplus(x)


class EnergyZero(GraphModuleMixin, torch.nn.Module):
    """A network whose energies have a constant added for each atom, in double precision.

    Parameters
    ----------
    network
        Energies relative to the zero, and forces.
    zero
        Energy of an atom of each type, eV.
    """

    def __init__(self, network: GraphModuleMixin, zero: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("zero", torch.tensor(zero, dtype=torch.float64).view(-1, 1))
        self._init_irreps(irreps_in=network.irreps_in, irreps_out=network.irreps_out)
        self.sum = AtomwiseReduce(
            Key.PER_ATOM_ENERGY_KEY, Key.TOTAL_ENERGY_KEY, irreps_in=network.irreps_out
        )

    def forward(self, data: Key.Type) -> Key.Type:
        """Return the network's output with absolute energies."""
        data = self.network(data)
        energies = data[Key.PER_ATOM_ENERGY_KEY].double()
        # LAMMPS' ML-IAP has more types than energies: those of ghosts.
        types = data[Key.ATOM_TYPE_KEY].view(-1)[: energies.size(0)]
        data[Key.PER_ATOM_ENERGY_KEY] = energies + torch.nn.functional.embedding(types, self.zero)
        return self.sum(data)
