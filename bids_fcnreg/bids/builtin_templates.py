"""Templates that need no download: their files are part of this package or of nilearn.

Both are averages of the same 152 young adults (Fonov et al., NeuroImage 2011), 1 mm,
skull-stripped, with maps of gray and white matter: the symmetric average 2009a, of nilearn, and
the asymmetric average 2009c, the space of fMRIPrep's results, of this package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bids_fcnreg.config import ASYMMETRIC_TEMPLATE, SYMMETRIC_TEMPLATE
from bids_fcnreg.errors import InputError


@dataclass(frozen=True)
class BuiltinFiles:
    """Where the files of a built-in template are.

    Attributes
    ----------
    name : str
        Name of the space.
    package, directory : str
        Python package with the files, and their directory in it.
    files : mapping of str to str
        Names of the files: ``t1``, ``gm`` and ``wm``, and ``mask`` if there is one.
    certain : float
        Value of a probability of 1 in the maps of gray (``gm``) and white matter (``wm``); that of
        cerebrospinal fluid is the remainder.
    url : str
        URI of the directory, for the provenance of results.
    reference : str
        URI of an image on the grid of the template.
    downloaded_first : bool
        Whether files of the template in TemplateFlow's directory are preferred.
    """

    name: str
    package: str
    directory: str
    files: Mapping[str, str]
    certain: float
    url: str
    reference: str
    downloaded_first: bool = False

    def path(self, kind: str) -> Path:
        """Return a file by its kind.

        Raises
        ------
        InputError
            If it is not installed.
        """
        package = find_spec(self.package)
        if package is None or package.origin is None:
            raise InputError(
                f"{self.package}, which contains {self.name}, is not installed. Install it."
            )
        path = Path(package.origin).parent / self.directory / self.files[kind]
        if not path.exists():
            raise InputError(f"{path} is missing. Reinstall {self.package}.")
        return path

    def uri(self, kind: str) -> str:
        """Return the URI of a file by its kind, the same on all machines."""
        return f"{self.url}/{self.files[kind]}"


_NILEARN_URL = "https://github.com/nilearn/nilearn/blob/main/nilearn/datasets/data"
_NILEARN_FILE = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
_ASYMMETRIC = f"tpl-{ASYMMETRIC_TEMPLATE}"

#: Files of the built-in templates by name.
BUILTIN_FILES = {
    one.name: one
    for one in (
        BuiltinFiles(
            SYMMETRIC_TEMPLATE,
            package="nilearn",
            directory="datasets/data",
            files={kind: _NILEARN_FILE.format(kind) for kind in ("t1", "gm", "wm")},
            certain=255,
            url=_NILEARN_URL,
            reference=f"{_NILEARN_URL}/{_NILEARN_FILE.format('t1')}",
        ),
        BuiltinFiles(
            ASYMMETRIC_TEMPLATE,
            package="bids_fcnreg",
            directory=f"data/{_ASYMMETRIC}",
            files={
                "t1": f"{_ASYMMETRIC}_res-01_desc-brain_T1w.nii.gz",
                "mask": f"{_ASYMMETRIC}_res-01_desc-brain_mask.nii.gz",
                "gm": f"{_ASYMMETRIC}_res-01_label-GM_probseg.nii.gz",
                "wm": f"{_ASYMMETRIC}_res-01_label-WM_probseg.nii.gz",
            },
            certain=1,
            url=f"pkg:pypi/bids-fcnreg#bids_fcnreg/data/{_ASYMMETRIC}",
            # TemplateFlow's, which is on the same grid.
            reference=f"bids:templateflow:{_ASYMMETRIC}/{_ASYMMETRIC}_res-01_T1w.nii.gz",
            downloaded_first=True,
        ),
    )
}


def nilearn_map(kind: str) -> Path:
    """Return a file of the symmetric template: ``t1``, ``gm`` or ``wm``, values from 0 to 255."""
    return BUILTIN_FILES[SYMMETRIC_TEMPLATE].path(kind)
