"""Thin Nipype interfaces; no mathematics."""
