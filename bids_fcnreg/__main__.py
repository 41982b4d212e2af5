"""`python -m bids_fcnreg`: the BIDS App."""

from __future__ import annotations

import sys

from bids_fcnreg.cli.bids_app import main

if __name__ == "__main__":
    sys.exit(main())
