"""Check the input and output directories before heavy modules are imported."""

from __future__ import annotations

from rich.console import Console

from bids_fcnreg.bids.derivatives import check_output, other_source_dataset, unrelated_files
from bids_fcnreg.bids.description import check_raw
from bids_fcnreg.config import Config


def check_directories(config: Config, console: Console) -> None:
    """Refuse unsuitable directories, and warn of unrelated files in the output directory.

    Raises
    ------
    InputError
        See `bids_fcnreg.bids.dataset.check_raw` and
        `bids_fcnreg.bids.derivatives.check_output`.
    """
    check_raw(config.bids_dir)
    check_output(config.output_dir, config.bids_dir)
    if others := unrelated_files(config.output_dir, config.work_dir):
        more = ", …" if len(others) > 3 else ""
        console.print(
            f"warning: the output directory {config.output_dir} contains unrelated files "
            f"({', '.join(others[:3])}{more})"
        )
    if other := other_source_dataset(config.output_dir, config.bids_dir):
        console.print(
            f"warning: the output directory {config.output_dir} holds results of {other}. Use one "
            "output directory per dataset, unless this is the same dataset under another path"
        )
