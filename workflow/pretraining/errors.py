"""The one exception type that is meant to be read by a user."""

from __future__ import annotations


class UserError(ValueError):
    """Wrong input, said in one line that names what is wrong and how to cure it."""
