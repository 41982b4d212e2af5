"""Command lines: the BIDS App and the pairwise `fcnreg`."""
