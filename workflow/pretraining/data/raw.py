"""A raw dataset before preparation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ase import Atoms


@dataclass
class Raw:
    """A raw dataset: its structures, to be iterated over once, and where they come from."""

    frames: Iterable[Atoms]
    origin: dict[str, Any] = field(default_factory=dict)
    n: int | None = None
