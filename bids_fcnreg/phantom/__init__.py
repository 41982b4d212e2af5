"""Synthetic datasets whose deformations are known."""
