"""Where results leave the workflow: files named, described and put into the derivatives directory.

Names, after ``sub-<label>[_ses-<label>][_acq-<label>][_ce-<label>][_rec-<label>]_``, with TPL the
template's space (``MNIPediatricAsym+3`` is cohort 3) and ATLAS the atlas's name:

====================================================  ==========================================
``desc-preproc_T1w.nii.gz``                           preprocessed image, native space
``desc-brain_mask.nii.gz``                            its brain mask
``space-TPL[_res-N]_desc-preproc_T1w.nii.gz``         the image in the template's space
``space-TPL[_res-N]_desc-brain_mask.nii.gz``          the mask in the template's space
``from-T1w_to-TPL_mode-image_xfm.h5``                 ITK transform, and its inverse with from/to
                                                      exchanged
``from-T1w_to-TPL_mode-image_desc-logjacobian_xfm.nii.gz``  map of its log-Jacobian determinant
``from-T1w_to-TPL_mode-image_desc-quality_xfm.json``  how good it is
``space-T1w_desc-preproc_T2w.nii.gz``                 another image of the session, on the grid of
                                                      the T1w image
``from-T2w_to-T1w_mode-image_xfm.txt``                its rigid transform, and the inverse
``from-T2w_to-T1w_mode-image_desc-alignment_xfm.json``  how good it is
``atlas-ATLAS_desc-TPL_dseg.nii.gz``, ``.tsv``        labels of the atlas, native, and their names
``atlas-ATLAS_desc-TPLVolumes_dseg.tsv``              volumes of its regions
``atlas-ATLAS_desc-TPLChanges_dseg.tsv``              the same in all sessions (without ``ses-``)
``figures/…_{T1w,mask,dseg,xfm}.*``                   pictures and tables for the report
====================================================  ==========================================

``seg-`` follows the atlas where that has several segmentations. The labels of ``desc-`` are
explained in ``descriptions.tsv``, atlases in ``atlas-ATLAS_description.json``.

Why these: the BIDS schema (1.11) has no suffix for transforms, Jacobian maps or quality metrics.
The latter two are properties of a transform and carry its name with a ``desc-``; ``.bidsignore``
lists ``*_xfm.*`` as fMRIPrep does. A table of regions is a ``_dseg.tsv``, which may have more
columns than ``index`` and ``name``. Label images say with ``desc-`` from which template they come:
so several templates do not overwrite each other, and fMRIPrep, which takes a ``dseg`` without
``desc-`` for tissue classes, leaves them alone. The schema has no ``cohort-`` for participants'
files; sMRIPrep looks for ``+``.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from nipype.interfaces.base import (
    Directory,
    File,
    InputMultiObject,
    SimpleInterface,
    Str,
    TraitedSpec,
    isdefined,
    traits,
)

from bids_fcnreg import __version__
from bids_fcnreg.atomic import checksum, publish, uncompressed_checksum
from bids_fcnreg.bids.derivatives import CHECKSUMS, NAME, UNCOMPRESSED, bids_uri, write_json
from bids_fcnreg.bids.template_archive import templateflow_home
from bids_fcnreg.io.spatial_image import open_image

_SPEC = json.loads((Path(__file__).parents[1] / "data" / "io_spec.json").read_text())


def _import_niworkflows() -> Any:
    """Import niworkflows' sinks without side effects on TEMPLATEFLOW_HOME.

    The import fills TEMPLATEFLOW_HOME with an index of all templates: this takes seconds, and
    crashes where the home directory is read-only, as in many containers. The index is needed only
    for a check of space names that is not used here, so a temporary directory is set meanwhile.
    """
    if "templateflow" in sys.modules:
        from niworkflows.interfaces import bids

        return bids
    home = os.environ.get("TEMPLATEFLOW_HOME")
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "README").touch()  # an empty directory would be filled
        os.environ["TEMPLATEFLOW_HOME"] = directory
        try:
            from niworkflows.interfaces import bids
            from templateflow.api import cache
        finally:
            if home is None:
                del os.environ["TEMPLATEFLOW_HOME"]
            else:
                os.environ["TEMPLATEFLOW_HOME"] = home
    cache.config.root = templateflow_home()
    vars(cache).pop("layout", None)  # the index of the other directory
    return bids


if TYPE_CHECKING:
    from niworkflows.interfaces import bids as _niworkflows
else:
    _niworkflows = _import_niworkflows()


class _DerivativesDataSinkInputSpec(_niworkflows._PrepareDerivativeInputSpec):
    base_directory = Directory(exists=True, mandatory=True, desc="the derivatives directory")
    bids_dir = Directory(desc="dataset the results come from")
    sources = InputMultiObject(
        Str, desc="paths or URIs of the sources of the file (default: source_file)"
    )
    checksums = traits.Dict(
        Str,
        Str,
        usedefault=True,
        desc="SHA-256 of external sources at the start of the run",
    )
    check_hdr = traits.Bool(False, usedefault=True, desc="files are copied unchanged")
    compress = traits.Enum(None, usedefault=True, desc="files are copied unchanged")


#: Entities in the names of our files.
_ENTITIES = frozenset(re.findall(r"{(\w+)", "".join(_SPEC["patterns"])))

for _name in _ENTITIES:
    _DerivativesDataSinkInputSpec.add_class_trait(_name, traits.Any(desc="BIDS entity"))


class _DerivativesDataSinkOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="the file in the derivatives directory")
    out_meta = File(exists=True, desc="its sidecar")


class DerivativesDataSink(_niworkflows.PrepareDerivative):
    """Store a result in the derivatives, with name and sidecar, atomically.

    Used as niworkflows' sink: ``source_file`` is all T1w runs (their common entities are kept if
    the patterns contain them); entities and capitalized sidecar fields are keywords of the
    constructor; ``meta_dict`` adds fields while the workflow runs.

    - The file is copied unchanged.
    - Its sidecar names ``Sources`` as BIDS URIs with their SHA-256 in ``SourcesSHA256``, the
      software, and ``Resolution`` where the name has ``res-``. It is written before the file. A
      JSON file is its own sidecar. Figures have none, nor has a table without own fields: it is
      the lookup table of a label image and shares the image's sidecar.
    - File and sidecar are written under temporary names and then renamed.

    Raises
    ------
    ValueError
        If no pattern in ``data/io_spec.json`` fits the entities.
    """

    input_spec = _DerivativesDataSinkInputSpec
    output_spec = _DerivativesDataSinkOutputSpec
    _always_run = True
    _config_entities_dict = (
        *_niworkflows.PrepareDerivative._config_entities_dict,
        *_SPEC["entities"],
    )
    _config_entities = frozenset(entity["name"] for entity in _config_entities_dict)
    _file_patterns = tuple(_SPEC["patterns"])
    _standard_spaces = ()
    # No suffix changes the data type.
    _default_dtypes: ClassVar[Mapping[str, Any]] = defaultdict(type(None))
    _results: dict[str, Any]

    def __init__(self, **inputs: Any) -> None:
        # Not niworkflows' way: it adds a trait to each node for each entity that BIDS has, which
        # took half of the time to build a workflow.
        self._allowed_entities = set(_ENTITIES)
        self._static_traits = self.input_spec.class_editable_traits()
        others = set(inputs) - set(self._static_traits)
        self._metadata = {name: inputs.pop(name) for name in others}
        SimpleInterface.__init__(self, **inputs)

    def _run_interface(self, runtime: Any) -> Any:
        runtime = super()._run_interface(runtime)
        target, in_file = Path(self.inputs.base_directory).absolute(), Path(self.inputs.in_file[0])
        final = target / self._results["out_path"][0]
        metadata = self._describe(self._results["out_meta"], in_file, target)
        self._results = {"out_file": str(final)}
        if final.suffix == ".json":
            content = json.loads(in_file.read_text(encoding="utf-8"))
            os.utime(write_json(final, content | metadata))  # the newest result is used
            return runtime
        if metadata:
            sidecar = final.with_name(f"{final.name.split('.', 1)[0]}.json")
            self._results["out_meta"] = str(write_json(sidecar, metadata))
        publish(in_file, final)
        return runtime

    def _describe(self, given: dict[str, Any], in_file: Path, target: Path) -> dict[str, Any]:
        """Return the content of the sidecar, empty if the file has none."""
        if in_file.suffix in (".svg", ".png", ".html") or (in_file.suffix == ".tsv" and not given):
            return {}
        sources = self.inputs.sources if isdefined(self.inputs.sources) else None
        bids_dir = self.inputs.bids_dir if isdefined(self.inputs.bids_dir) else None
        uris: list[str] = []
        checksums: dict[str, str] = {}
        uncompressed: dict[str, str] = {}
        for path in sources or self.inputs.source_file:
            uris.append(bids_uri(path, bids_dir, target))
            known = self.inputs.checksums.get(path)
            if known or os.path.isfile(path):
                checksums[uris[-1]] = known or checksum(path)
                uncompressed |= _uncompressed(path, uris[-1], checksums[uris[-1]])
        made_by = [{"Name": NAME, "Version": __version__}]
        # Sorted, because equal results must give equal files.
        given = dict(sorted(given.items()))
        compressed = {UNCOMPRESSED: uncompressed} if uncompressed else {}
        metadata = {"Sources": uris, CHECKSUMS: checksums, **compressed, "GeneratedBy": made_by}
        metadata |= given
        if isdefined(self.inputs.resolution):
            size = " × ".join(f"{zoom:g}" for zoom in open_image(in_file).header.get_zooms()[:3])
            metadata["Resolution"] = f"Voxels of {size} mm, as template {self.inputs.space}"
        return metadata


def _uncompressed(path: str, uri: str, known: str) -> dict[str, str]:
    """Return the checksum of the decompressed content of an external file, by URI."""
    if uri.startswith("bids::") or not path.endswith(".gz") or not os.path.isfile(path):
        return {}
    if checksum(path) != known:  # changed since the start of the run
        return {}
    found = uncompressed_checksum(path)
    return {} if found == known else {uri: found}
