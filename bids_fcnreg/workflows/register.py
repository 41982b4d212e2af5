"""Registration of one brain to one template, and resampling through its transform."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from bids_fcnreg.fcn.modes import MODES
from bids_fcnreg.fcn.nets.packaged_weights import packaged_weights
from bids_fcnreg.interfaces.longitudinal import RegisterThroughBase
from bids_fcnreg.interfaces.quality import Judge
from bids_fcnreg.interfaces.registration import Register, ToTemplate
from bids_fcnreg.workflows.resources import (
    PLAIN_GB,
    RESAMPLE,
    by_content,
    field_node,
    register_of,
    sized_node,
    version_of,
    voxels_of,
)

if TYPE_CHECKING:
    from bids_fcnreg.bids.scan import Scan
    from bids_fcnreg.bids.templates import Template
    from bids_fcnreg.config import Config

#: The registered image, by whether the scan is T1w.
_MOVING = {
    True: "The {} brain",
    False: "A T1w-like image, made from the tissue probabilities of the {} image,",
}


def init_register_wf(
    *,
    config: Config,
    template: Template,
    scan: Scan,
    longitudinal: bool = False,
    name: str = "register_wf",
) -> LiterateWorkflow:
    """Register a subject to a template.

    Parameters
    ----------
    config : Config
        Mode, model, device, seed and threads.
    template : Template
        Skull-stripped brain, and its mask.
    scan : Scan
        The scan; its lesion masks are excluded from the similarity.
    longitudinal : bool
        Whether to register through the base of the subject's sessions.
    name : str
        Name of the workflow.

    Inputs
    ------
    preproc
        Preprocessed image, with its skull unless skull-stripped in the input.
    brain
        The same, skull-stripped, or a T1w-like image.
    mask
        Brain mask on its grid.
    exclude
        Lesion mask on its grid.
    segmentation
        JSON of the quality metrics of its segmentation, if it is segmented.
    base_transform, base_inverse, base_quality
        If longitudinal, outputs of the base's ``estimate``.
    within_transform, within_inverse
        If longitudinal, transform from the base to the scan, and its inverse.

    Outputs
    -------
    transform
        ITK .h5 that resamples the scan onto the template.
    inverse
        ITK .h5 that resamples the template onto the scan.
    quality
        JSON of the quality metrics and the verdict.
    preproc_std
        ``preproc`` on the template's grid, interpolated once.
    mask_std
        ``mask`` on the template's grid.
    log_jacobian
        Log Jacobian determinant, subject over template, on the template's grid.
    """
    workflow = LiterateWorkflow(name=name)
    may_replace_template = not (scan.is_t1w or template.builtin)
    alternative = (
        " (or to its T1w-like image, if its white matter is not brighter than its gray matter)"
    )
    workflow.__desc__ = (
        f"{_MOVING[scan.is_t1w].format(scan.suffix)} was registered to {template.title}"
        f"{alternative if may_replace_template else ''}: an "
        f"affine alignment was followed by a nonlinear one, {_description(config)}. "
        "Images were resampled once, through the composition of both. "
    )
    affine = scan.precomputed.affines.get(template.space)
    if affine:
        origin = scan.precomputed.origins[affine]
        workflow.__desc__ += f"The affine alignment was initialized with that of {origin}. "
    through = ["base_transform", "base_inverse", "base_quality"]
    through += ["within_transform", "within_inverse"]
    given = [
        "preproc",
        "brain",
        "mask",
        "exclude",
        "segmentation",
        *(through if longitudinal else []),
    ]
    inputnode = field_node("inputnode", *given)
    results = ("transform", "inverse", "quality", "preproc_std", "mask_std", "log_jacobian")
    outputnode = field_node("outputnode", *results)
    reference, voxels = str(template.t1w), voxels_of(template.t1w)
    if longitudinal:
        estimate = sized_node(
            RegisterThroughBase(
                fixed=reference,
                fixed_mask=str(template.mask),
                num_threads=config.omp_nthreads,
            ),
            "estimate",
            register_of(config.mode),
            voxels,
        )
        workflow.connect([(inputnode, estimate, [(field, field) for field in through])])
    else:
        estimate = init_estimate_node(config, template)
        estimate.inputs.to_t1w_like = may_replace_template
        if affine:
            estimate.inputs.initial = str(affine)
    to_template = sized_node(
        ToTemplate(reference=reference, template_mask=str(template.mask)),
        "to_template",
        RESAMPLE,
        voxels,
    )
    judge = pe.Node(
        Judge(t1w_like=not scan.is_t1w),
        name="judge",
        mem_gb=PLAIN_GB,
    )
    if template.builtin and scan.is_t1w:
        judge.inputs.template = template.name
    workflow.connect([
        (inputnode, estimate, [("brain", "moving"), ("mask", "moving_mask")]),
        (inputnode, to_template, [("preproc", "preproc"), ("mask", "mask")]),
        (estimate, to_template, [("transform", "transform")]),
        (estimate, outputnode, [("transform", "transform"), ("inverse", "inverse")]),
        (estimate, judge, [("quality", "quality")]),
        (inputnode, judge, [("segmentation", "segmentation")]),
        (to_template, judge, [("log_jacobian", "log_jacobian"), ("mask_std", "mask")]),
        (judge, outputnode, [("quality", "quality")]),
        (to_template, outputnode, [
            (name, name) for name in ("preproc_std", "mask_std", "log_jacobian")
        ]),
    ])  # fmt: skip
    if scan.all_lesions and not longitudinal:
        workflow.connect(inputnode, "exclude", estimate, "moving_exclude")
    return workflow


def init_estimate_node(config: Config, template: Template, name: str = "estimate") -> pe.Node:
    """Make a node that registers a brain to a template.

    Parameters
    ----------
    config : Config
        Mode, network, model, device, seed and threads.
    template : Template
        Skull-stripped brain, and its mask.
    name : str
        Name of the node.
    """
    on_gpu = uses_gpu(config.device)
    register = Register(
        fixed=str(template.t1w),
        fixed_mask=str(template.mask),
        mode=config.mode,
        network=config.network,
        device=config.device,
        seed=config.seed,
        use_gpu=on_gpu,
        # Nipype counts as many GPU slots as processors.
        num_threads=1 if on_gpu else config.omp_nthreads,
    )
    if MODES[config.mode].trained:
        register.inputs.model = str(config.model or packaged_weights(config.network))
    node = sized_node(register, name, register_of(config.mode), voxels_of(template.t1w))
    return by_content(node)


def uses_gpu(device: str) -> bool:
    """Return whether a registration on `device` uses a GPU."""
    if device != "auto":
        return device.startswith("cuda")
    if not _may_use_gpu(version_of("torch")):  # importing it takes seconds
        return False
    import torch

    # Counts without initializing CUDA, which must not happen before a fork.
    return torch.cuda.device_count() > 0


def _may_use_gpu(version: str) -> bool:
    """Return whether this build of PyTorch may find a GPU: it needs the driver's library."""
    if version.endswith("+cpu"):
        return False
    if "+rocm" in version:
        return True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _description(config: Config) -> str:
    """Describe the computation of the deformation, for the methods text."""
    cited = {"diffeomorphic": "[@mdregnet]", "2017": "[@fcn2017]"}[config.network]
    return MODES[config.mode].methods.format(network=cited)
