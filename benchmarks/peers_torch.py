"""Peers in PyTorch: FireANTs and syntx."""

from __future__ import annotations

import torch
from measures import Meter
from peer import Maps, Task, Unavailable, read_field
from peers_ants import ants_maps, antspyx, deduct_writing

from bids_fcnreg.fcn.spatial.transform import Transform


def fireants(task: Task, meter: Meter) -> Maps:
    """Run FireANTs with the settings of its tutorial, from the centres of mass."""
    try:
        from fireants.io import BatchedImages
        from fireants.io import Image as FireImage
        from fireants.registration.affine import AffineRegistration
        from fireants.registration.greedy import GreedyRegistration
        from fireants.registration.moments import MomentsRegistration
    except ImportError as why:
        raise Unavailable(f"FireANTs cannot be imported ({why}).") from why
    if not task.device.startswith("cuda") or not torch.cuda.is_available():
        raise Unavailable("FireANTs is for GPUs: give --device cuda on a machine with one.")
    return run_fireants(
        task,
        meter,
        (FireImage, BatchedImages),
        (MomentsRegistration, AffineRegistration, GreedyRegistration),
    )


def run_fireants(task: Task, meter: Meter, images: tuple, stages: tuple) -> Maps:
    """Run the registration on the device of the task."""
    single, batched = images
    moments, affine, deformable = stages
    fixed, moving = (
        batched([single.load_file(str(path), device=task.device)])
        for path in (task.fixed, task.moving)
    )
    with meter:
        start = moments(4, fixed, moving, moments=1)
        start.optimize()
        linear = affine(
            [4, 2, 1],
            [200, 100, 50],
            fixed,
            moving,
            optimizer="Adam",
            optimizer_lr=3e-3,
            cc_kernel_size=5,
            init_rigid=start.get_affine_init(),
            progress_bar=False,
        )
        linear.optimize()
        found = deformable(
            scales=[4, 2, 1],
            iterations=[200, 100, 25],
            fixed_images=fixed,
            moving_images=moving,
            cc_kernel_size=5,
            deformation_type="compositive",
            smooth_grad_sigma=1,
            optimizer="adam",
            optimizer_lr=0.5,
            init_affine=linear.get_affine_matrix().detach(),
            progress_bar=False,
        )
        found.optimize()
        if task.device.startswith("cuda"):
            torch.cuda.synchronize()
    path = task.scratch / "fireants.nii"
    found.save_as_ants_transforms(str(path))  # affine and deformation, as one field
    return Maps(Transform((read_field(path),)))


def syntx(task: Task, meter: Meter) -> Maps:
    """Run syntx with the settings that it chooses for a pair.

    It starts from antspyx's images and writes transforms as ANTs does; see `peers_ants.ants`.
    """
    try:
        from syntx import auto_reg
    except ImportError as why:
        raise Unavailable(f"syntx cannot be imported ({why}; pip install syntx).") from why
    antspy = antspyx()
    fixed, moving = (antspy.image_read(str(path)) for path in (task.fixed, task.moving))
    with meter:
        found = auto_reg(fixed, moving, device=task.device)
        if task.device.startswith("cuda"):
            torch.cuda.synchronize()
    deduct_writing(meter, task.scratch, {*found["fwdtransforms"], *found["invtransforms"]})
    return ants_maps(found["fwdtransforms"], found["invtransforms"])
