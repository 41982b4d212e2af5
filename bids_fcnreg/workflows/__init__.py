"""Nipype workflow factories; they only wire."""
