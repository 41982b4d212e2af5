"""Compiled kernels for one pair on a CPU."""
