"""BIDS: what comes in, the templates, and how results are named."""
