"""Longitudinal workflows: unbiased base of all sessions, and changes between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from bids_fcnreg.interfaces.longitudinal import LongitudinalBase, RegionChange
from bids_fcnreg.interfaces.registration import Resample
from bids_fcnreg.workflows.outputs import sink
from bids_fcnreg.workflows.register import uses_gpu
from bids_fcnreg.workflows.resources import field_node

if TYPE_CHECKING:
    from bids_fcnreg.bids.atlases import Atlas
    from bids_fcnreg.bids.order import ReferenceSession
    from bids_fcnreg.bids.scan import Scan
    from bids_fcnreg.bids.templates import Template
    from bids_fcnreg.config import Config

#: Memory of the registration of sessions to each other: base, and per session.
SESSIONS_GB, SESSION_GB = 2.5, 0.3


def init_base_wf(*, config: Config, sessions: Sequence[str]) -> LiterateWorkflow:
    """Register all sessions of a subject to an unbiased midpoint space.

    Parameters
    ----------
    config : Config
        Device and threads.
    sessions : sequence of str
        Names of the sessions in messages.

    Inputs
    ------
    image1, mask1, image2, mask2, …
        Preprocessed T1w and brain mask of each session.

    Outputs
    -------
    base, mask
        Mean image and brain mask.
    transforms
        ITK .h5 of all sessions: map points of the base to points of the session.
    transform1, inverse1, transform2, inverse2, …
        The same for each session, and the inverse.
    """
    workflow = LiterateWorkflow(name="base_wf")
    workflow.__desc__ = (
        "The sessions of each participant were first registered to each other, rigidly and then "
        "by a smooth deformation, in an unbiased midpoint space [@longitudinal]; their "
        "mean image was registered to the template, and each session's transform is the "
        "composition of both. "
    )
    n_sessions = len(sessions)
    numbers = range(1, n_sessions + 1)
    images = [f"{kind}{n}" for kind in ("image", "mask") for n in numbers]
    inputnode = field_node("inputnode", *images)
    each = [f"{kind}{n}" for kind in ("transform", "inverse") for n in numbers]
    outputnode = field_node("outputnode", "base", "mask", "transforms", *each)
    on_gpu = uses_gpu(config.device)
    base = pe.Node(
        LongitudinalBase(
            sessions=list(sessions),
            device=config.device,
            use_gpu=on_gpu,
            num_threads=1 if on_gpu else config.omp_nthreads,
        ),
        name="sessions",
        mem_gb=SESSIONS_GB + n_sessions * SESSION_GB,
    )
    workflow.connect([
        (base, outputnode, [("base", "base"), ("mask", "mask"), ("transforms", "transforms")]),
    ])  # fmt: skip
    for kind, field in (("image", "images"), ("mask", "masks")):
        merge = pe.Node(niu.Merge(n_sessions), name=f"all_{field}", run_without_submitting=True)
        workflow.connect([
            (inputnode, merge, [(f"{kind}{n}", f"in{n}") for n in numbers]),
            (merge, base, [("out", field)]),
        ])  # fmt: skip
    for kind, field in (("transform", "transforms"), ("inverse", "inverses")):
        split = pe.Node(
            niu.Split(splits=[1] * n_sessions, squeeze=True),
            name=f"each_{kind}",
            run_without_submitting=True,
        )
        workflow.connect([
            (base, split, [(field, "inlist")]),
            (split, outputnode, [(f"out{n}", f"{kind}{n}") for n in numbers]),
        ])  # fmt: skip
    return workflow


def init_changes_wf(
    *,
    config: Config,
    scans: Sequence[Scan],
    reference: ReferenceSession,
    template: Template,
    atlas: Atlas,
    name: str,
) -> LiterateWorkflow:
    """Compute the regional volumes of an atlas in all sessions, and store the table.

    Parameters
    ----------
    config : Config
        Settings with the directories.
    scans : sequence of Scan
        The sessions.
    reference : ReferenceSession
        Session that changes are relative to.
    template : Template
        Space of the atlas.
    atlas : Atlas
        Label image and names of its labels.

    Inputs
    ------
    inverse
        ITK .h5 that resamples the template onto the base.
    base
        Image of the base.
    transforms
        ITK .h5 of each session: maps points of the base to points of the session.
    """
    workflow = LiterateWorkflow(name=name)
    inputnode = field_node("inputnode", "inverse", "base", "transforms")
    resample = pe.Node(
        Resample(in_file=str(atlas.image), interpolation="label", num_threads=config.omp_nthreads),
        name="resample",
        mem_gb=1.5,
    )
    sessions = [_column(scan.session) for scan in scans]
    measure = pe.Node(
        RegionChange(sessions=sessions, table=list(atlas.labels)), name="measure", mem_gb=2.0
    )
    since = "No reference session: not computed"
    if not reference.missing:
        measure.inputs.reference = _column(reference.session)
        since = f"Change since session {measure.inputs.reference}"
    files = tuple(path for scan in scans for path in scan.images)
    store = sink(
        config,
        replace(scans[0], session=None, images=files),
        "ds_changes",
        **atlas.entities,
        suffix="dseg",
        desc=f"{template.space}Changes",
        Description=f"Volumes of the regions of the atlas {atlas.label} in all sessions",
    )
    store.inputs.meta_dict = {
        "reference_session": {
            "Description": "Session that changes are relative to, n/a if it is missing: "
            f"{reference.reason}"
        }
    } | {
        column: {"Description": f"{what} of the region in session {session}", "Units": unit}
        for session in sessions
        for column, what, unit in (
            (f"ses-{session}_volume_mm3", "Volume", "mm^3"),
            (f"ses-{session}_change_percent", since, "percent"),
        )
    }
    workflow.connect([
        (inputnode, resample, [("inverse", "transform"), ("base", "reference")]),
        (inputnode, measure, [("transforms", "transforms")]),
        (resample, measure, [("out_file", "labels")]),
        (measure, store, [("changes", "in_file")]),
    ])  # fmt: skip
    return workflow


def _column(session: str | None) -> str:
    """Return the label of a session in column names."""
    return session or "none"
