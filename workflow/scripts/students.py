"""Draw the errors of pre-trained and fine-tuned models against those of their label sources."""

from __future__ import annotations
