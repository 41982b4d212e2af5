"""Similarity, regularization, and what they add up to."""
