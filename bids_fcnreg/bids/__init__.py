"""BIDS: input datasets, templates, atlases, and derivatives."""
