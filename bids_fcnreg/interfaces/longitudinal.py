"""Longitudinal processing: base of all sessions, registration through it, and changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    InputMultiObject,
    OutputMultiObject,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from bids_fcnreg.bids.derivatives import write_tsv
from bids_fcnreg.bids.region_tables import volume_changes
from bids_fcnreg.interfaces.threads import ThreadsInputSpec, set_threads
from bids_fcnreg.io.nifti import grid_of
from bids_fcnreg.io.spatial_image import open_image


class _BaseInputSpec(ThreadsInputSpec):
    images = InputMultiObject(File(exists=True), mandatory=True, desc="image of each session")
    masks = InputMultiObject(File(exists=True), mandatory=True, desc="their brain masks")
    sessions = traits.List(traits.Str, mandatory=True, desc="their names in messages")
    device = traits.Str("auto", usedefault=True, desc="auto, cpu, cuda or cuda:N")
    use_gpu = traits.Bool(False, usedefault=True, nohash=True, desc="takes a GPU slot")


class _BaseOutputSpec(TraitedSpec):
    base = File(exists=True, desc="mean image of all sessions, in midpoint space")
    mask = File(exists=True, desc="its brain mask")
    transforms = OutputMultiObject(
        File(exists=True),
        desc="ITK .h5 of each session: maps points of the base to points of the session",
    )
    inverses = OutputMultiObject(File(exists=True), desc="inverses of `transforms`")


class LongitudinalBase(SimpleInterface):
    """Register all sessions of a participant to an unbiased midpoint space."""

    input_spec = _BaseInputSpec
    output_spec = _BaseOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from bids_fcnreg.fcn.within_subject import register_within_subject, rigid_to_midpoint
        from bids_fcnreg.io import image
        from bids_fcnreg.io.itk import write_transform
        from bids_fcnreg.preprocessing.coregistration import check_sides

        set_threads(self.inputs.num_threads)
        images = [image.read(path) for path in self.inputs.images]
        masks = [image.read(path) for path in self.inputs.masks]
        rigid = rigid_to_midpoint(images, masks)
        check_sides(images, masks, rigid, self.inputs.sessions)
        found = register_within_subject(images, masks, rigid, device=self.inputs.device)
        directory = Path(runtime.cwd)
        self._results["base"] = str(image.write(directory / "base.nii.gz", found.base))
        self._results["mask"] = str(image.write(directory / "mask.nii.gz", found.mask, "uint8"))
        for name, transforms in (("transforms", found.forward), ("inverses", found.inverse)):
            self._results[name] = [
                str(write_transform(directory / f"{name}_{number}.h5", transform))
                for number, transform in enumerate(transforms)
            ]
        return runtime


class _RegisterThroughBaseInputSpec(ThreadsInputSpec):
    fixed = File(exists=True, mandatory=True, desc="brain of the template")
    fixed_mask = File(exists=True, mandatory=True, desc="its mask")
    moving = File(exists=True, mandatory=True, desc="brain of the session")
    moving_mask = File(exists=True, mandatory=True, desc="its mask")
    base_transform = File(exists=True, mandatory=True, desc="ITK .h5, template to base")
    base_inverse = File(exists=True, mandatory=True, desc="ITK .h5, base to template")
    base_quality = File(exists=True, mandatory=True, desc="JSON of that registration")
    within_transform = File(exists=True, mandatory=True, desc="ITK .h5, base to session")
    within_inverse = File(exists=True, mandatory=True, desc="ITK .h5, session to base")


class _RegisterThroughBaseOutputSpec(TraitedSpec):
    transform = File(exists=True, desc="ITK .h5 that resamples the session onto the template")
    inverse = File(exists=True, desc="ITK .h5 that resamples the template onto the session")
    quality = File(exists=True, desc="JSON of the quality metrics")


class RegisterThroughBase(SimpleInterface):
    """Register a session to a template through the participant's base."""

    input_spec = _RegisterThroughBaseInputSpec
    output_spec = _RegisterThroughBaseOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from bids_fcnreg.fcn.within_subject import register_through_base
        from bids_fcnreg.io import image
        from bids_fcnreg.io.itk import read_transform
        from bids_fcnreg.io.registration import read_registration, write_registration

        inputs = self.inputs
        set_threads(inputs.num_threads)
        brains = (image.read(inputs.fixed_mask), image.read(inputs.moving_mask))
        result = register_through_base(
            image.read(inputs.fixed),
            brains[0],
            image.read(inputs.moving),
            brains[1],
            read_registration(inputs.base_transform, inputs.base_inverse, inputs.base_quality),
            (read_transform(inputs.within_transform), read_transform(inputs.within_inverse)),
        )
        grid = grid_of(open_image(inputs.fixed))
        self._results |= write_registration(Path(runtime.cwd), result, grid, brains)
        return runtime


class _RegionChangeInputSpec(BaseInterfaceInputSpec):
    labels = File(exists=True, mandatory=True, desc="label image in the space of the base")
    transforms = InputMultiObject(
        File(exists=True), mandatory=True, desc="ITK .h5 of each session, base to session"
    )
    sessions = traits.List(traits.Str, mandatory=True, desc="labels of the sessions")
    reference = traits.Str(desc="label of the session that changes are relative to")
    table = traits.List(
        traits.Tuple(traits.Int, traits.Str), mandatory=True, desc="index and name of regions"
    )


class _RegionChangeOutputSpec(TraitedSpec):
    changes = File(
        exists=True,
        desc="TSV: index, name, for each session volume and change, and the reference session",
    )


class RegionChange(SimpleInterface):
    """Tabulate the volumes of regions in all sessions, by Jacobian integration."""

    input_spec = _RegionChangeInputSpec
    output_spec = _RegionChangeOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from bids_fcnreg.fcn.within_subject import warped_volumes
        from bids_fcnreg.io import image
        from bids_fcnreg.io.itk import read_transform

        labels, table = image.read(self.inputs.labels), self.inputs.table
        indices = [index for index, _ in table]
        volumes = [
            warped_volumes(labels, read_transform(path), indices)
            for path in self.inputs.transforms
        ]
        sessions, reference = self.inputs.sessions, self.inputs.reference
        if not isdefined(reference) or reference not in sessions:
            reference = None
        changes = volume_changes(table, volumes, sessions, reference)
        self._results["changes"] = str(write_tsv(Path(runtime.cwd) / "changes.tsv", *changes))
        return runtime
