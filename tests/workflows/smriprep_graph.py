"""Print the nodes of sMRIPrep's workflow as JSON.

Usage: `smriprep_graph.py BIDS DERIVATIVES SPACE [SESSION ...]`, with the sessions that fMRIPrep
asks for.

The workflow is built with and without the derivatives given to it, and not run. Its templates only
have to be there: in the empty files of TemplateFlow's skeleton the built-in template is put.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from niworkflows.utils.spaces import Reference, SpatialReferences
from smriprep.utils.bids import collect_derivatives
from smriprep.workflows.anatomical import init_anat_fit_wf
from templateflow import api

from bids_fcnreg.bids.templates import resolve_template


def main(bids: Path, derivatives: Path, space: str, sessions: list[str]) -> None:
    for template in (space, "OASIS30ANTs"):
        for path in Path(api.TF_LAYOUT.root).glob(f"tpl-{template}/*.nii.gz"):
            if path.stat().st_size == 0:
                shutil.copyfile(resolve_template(space).t1w, path)
    found = collect_derivatives(derivatives, "01", [space], session_id=sessions or None)
    nodes = {"with": _nodes(bids, space, found), "without": _nodes(bids, space, {})}
    print(json.dumps(nodes))


def _nodes(bids: Path, space: str, precomputed: dict) -> list[str]:
    spaces = SpatialReferences(spaces=[Reference(space, {"res": "1"})])
    spaces.checkpoint()
    workflow = init_anat_fit_wf(
        bids_root=str(bids),
        output_dir="derivatives",
        freesurfer=False,
        hires=False,
        longitudinal=False,
        msm_sulc=False,
        t1w=[str(path) for path in bids.glob("sub-01/**/anat/*_T1w.nii.gz")],
        t2w=[],
        skull_strip_mode="force",
        skull_strip_template=Reference("OASIS30ANTs"),
        spaces=spaces,
        precomputed=precomputed,
        omp_nthreads=1,
    )
    return workflow.list_node_names()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4:])
