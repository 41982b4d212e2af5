"""Tables of the regions of a label image."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bids_fcnreg.api.images import ImageLike
from bids_fcnreg.bids import region_tables
from bids_fcnreg.bids.lookup_tables import read_lookup
from bids_fcnreg.errors import InputError
from bids_fcnreg.io import nifti
from bids_fcnreg.io.labels import are_integers

if TYPE_CHECKING:
    import pandas as pd


def region_volumes(
    labels: ImageLike,
    names: str | os.PathLike[str] | pd.DataFrame | Mapping[int, str] | None = None,
) -> pd.DataFrame:
    """Tabulate the volume of each region of a label image.

    Parameters
    ----------
    labels : path or nibabel image (i, j, k)
        Label of each voxel; 0 is the background.
    names : path, pandas.DataFrame or mapping, optional
        Lookup table with the columns ``index`` and ``name``, as a tab-separated file or in memory;
        or names by index. Labels without a name are named by their index.

    Returns
    -------
    pandas.DataFrame
        Columns ``index``, ``name`` and ``volume_mm3``, as in the tables of the BIDS App.

    Raises
    ------
    InputError
        If a file cannot be read, or the image contains values that are not integers.
    """
    import pandas as pd  # takes a quarter of a second

    image = nifti.load(labels, dtype="float64", role="label image")
    values = image.get_fdata()
    if not are_integers(values):
        raise InputError("The label image contains values that are not integers.")
    whole = np.rint(values).astype(np.int64)
    rows = region_tables.region_volumes(whole, image.affine, sorted(_names(names).items()))
    return pd.DataFrame(rows, columns=["index", "name", "volume_mm3"])


def _names(
    given: str | os.PathLike[str] | pd.DataFrame | Mapping[int, str] | None,
) -> dict[int, str]:
    """Return the names of regions by index."""
    import pandas as pd

    if given is None:
        return {}
    if isinstance(given, str | os.PathLike):
        return read_lookup(Path(given)).names
    if isinstance(given, pd.DataFrame):
        if missing := [name for name in ("index", "name") if name not in given.columns]:
            raise InputError(f"The table of names has no column {missing[0]}.")
        return dict(zip(given["index"].astype(int), given["name"].astype(str), strict=True))
    return dict(given)
