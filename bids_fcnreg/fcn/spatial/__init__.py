"""Grids, displacements and transforms."""
