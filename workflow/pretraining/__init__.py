"""Synthetic pre-training of neural-network interatomic potentials."""
