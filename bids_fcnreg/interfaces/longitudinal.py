"""Longitudinal processing: base of all sessions, registration through it, and changes."""

from __future__ import annotations

import json
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

from bids_fcnreg.interfaces.registration import grid_of_file


class _BaseInputSpec(BaseInterfaceInputSpec):
    images = InputMultiObject(File(exists=True), mandatory=True, desc="image of each session")
    masks = InputMultiObject(File(exists=True), mandatory=True, desc="their brain masks")
    device = traits.Str("auto", usedefault=True, desc="auto, cpu, cuda or cuda:N")
    use_gpu = traits.Bool(False, usedefault=True, nohash=True, desc="takes a GPU slot")
    num_threads = traits.Int(1, usedefault=True, nohash=True, desc="processor cores to use")


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
        import torch

        from bids_fcnreg.fcn.device import resolve_device
        from bids_fcnreg.fcn.within_subject import register_within_subject
        from bids_fcnreg.io import image
        from bids_fcnreg.io.itk import write_transform

        torch.set_num_threads(self.inputs.num_threads)
        found = register_within_subject(
            [image.read(path) for path in self.inputs.images],
            [image.read(path) for path in self.inputs.masks],
            device=resolve_device(self.inputs.device),
        )
        folder = Path(runtime.cwd)
        self._results["base"] = str(image.write(folder / "base.nii.gz", found.base))
        self._results["mask"] = str(image.write(folder / "mask.nii.gz", found.mask, "uint8"))
        for name, transforms in (("transforms", found.forward), ("inverses", found.inverse)):
            self._results[name] = [
                str(write_transform(folder / f"{name}_{number}.h5", transform))
                for number, transform in enumerate(transforms)
            ]
        return runtime


class _RegisterThroughBaseInputSpec(BaseInterfaceInputSpec):
    fixed = File(exists=True, mandatory=True, desc="brain of the template")
    fixed_mask = File(exists=True, mandatory=True, desc="its mask")
    moving = File(exists=True, mandatory=True, desc="brain of the session")
    moving_mask = File(exists=True, mandatory=True, desc="its mask")
    base_transform = File(exists=True, mandatory=True, desc="ITK .h5, template to base")
    base_inverse = File(exists=True, mandatory=True, desc="ITK .h5, base to template")
    base_quality = File(exists=True, mandatory=True, desc="JSON of that registration")
    within_transform = File(exists=True, mandatory=True, desc="ITK .h5, base to session")
    within_inverse = File(exists=True, mandatory=True, desc="ITK .h5, session to base")
    num_threads = traits.Int(1, usedefault=True, nohash=True, desc="processor cores to use")


class _RegisterThroughBaseOutputSpec(TraitedSpec):
    transform = File(exists=True, desc="ITK .h5 that resamples the session onto the template")
    inverse = File(exists=True, desc="ITK .h5 that resamples the template onto the session")
    quality = File(exists=True, desc="JSON of the quality metrics")


class RegisterThroughBase(SimpleInterface):
    """Register a session to a template through the participant's base."""

    input_spec = _RegisterThroughBaseInputSpec
    output_spec = _RegisterThroughBaseOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        import torch

        from bids_fcnreg.fcn.quality import Quality
        from bids_fcnreg.fcn.register import Registration
        from bids_fcnreg.fcn.within_subject import register_through_base
        from bids_fcnreg.io import image
        from bids_fcnreg.io.itk import read_transform, write_transform

        inputs = self.inputs
        torch.set_num_threads(inputs.num_threads)
        names = ("fixed", "fixed_mask", "moving", "moving_mask")
        transforms = ("base_transform", "base_inverse", "within_transform", "within_inverse")
        base_transform, base_inverse, to_session, to_base = (
            read_transform(getattr(inputs, name)) for name in transforms
        )
        fixed, fixed_mask, moving, moving_mask = (
            image.read(getattr(inputs, name)) for name in names
        )
        quality = Quality(**json.loads(Path(inputs.base_quality).read_text()))
        result = register_through_base(
            fixed,
            fixed_mask,
            moving,
            moving_mask,
            Registration(base_transform, base_inverse, quality),
            (to_session, to_base),
        )
        folder, grid = Path(runtime.cwd), grid_of_file(inputs.fixed)
        (folder / "quality.json").write_text(json.dumps(result.quality.as_dict(), indent=2) + "\n")
        self._results |= {
            "transform": str(write_transform(folder / "forward.h5", result.forward, over=grid)),
            "inverse": str(write_transform(folder / "inverse.h5", result.inverse, over=grid)),
            "quality": str(folder / "quality.json"),
        }
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
        from bids_fcnreg.bids.derivatives import write_tsv
        from bids_fcnreg.fcn.within_subject import warped_volumes
        from bids_fcnreg.io import image
        from bids_fcnreg.io.itk import read_transform

        labels = image.read(self.inputs.labels)
        volumes = [
            warped_volumes(labels, read_transform(path), [index for index, _ in self.inputs.table])
            for path in self.inputs.transforms
        ]
        sessions, reference = self.inputs.sessions, self.inputs.reference
        known = isdefined(reference) and reference in sessions
        header = ["index", "name"]
        for session in sessions:
            header += [f"ses-{session}_volume_mm3", f"ses-{session}_change_percent"]
        header.append("reference_session")
        rows = []
        for (index, name), *theirs in zip(self.inputs.table, *volumes, strict=True):
            row = [index, name]
            before = theirs[sessions.index(reference)] if known else None
            for volume in theirs:
                change = f"{100 * (volume / before - 1):.4f}" if before else None
                row += [f"{volume:.3f}", change]
            rows.append([*row, f"ses-{reference}" if known else None])
        self._results["changes"] = str(write_tsv(Path(runtime.cwd) / "changes.tsv", header, rows))
        return runtime
