"""Thin Nipype interfaces; no mathematics. The two below are for workflows of others."""

from __future__ import annotations

from bids_fcnreg.interfaces.pairs import ApplyTransforms, Registration

__all__ = ["ApplyTransforms", "Registration"]
