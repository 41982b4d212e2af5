"""The transforms of a scan in the formats of other software."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from bids_fcnreg.bids.output_names import CONVERTED
from bids_fcnreg.interfaces.transform_formats import ConvertTransform
from bids_fcnreg.workflows.outputs import sink, transform_entities
from bids_fcnreg.workflows.resources import RESAMPLE, field_node, sized_node, voxels_of

if TYPE_CHECKING:
    from bids_fcnreg.bids.scan import Scan
    from bids_fcnreg.bids.templates import Template
    from bids_fcnreg.config import Config


def init_transform_formats_wf(
    *, config: Config, scan: Scan, template: Template, name: str = "outputs_formats_wf"
) -> LiterateWorkflow:
    """Write both transforms of a registration in the formats of ``config.xfm_formats``.

    Their names are those of the ITK transforms, with the format in ``desc-``: formats share
    extensions.

    Inputs
    ------
    transform, inverse
        The ITK transforms in the derivatives.
    preproc
        The registered image in the derivatives.
    """
    workflow = LiterateWorkflow(name=name)
    inputnode = field_node("inputnode", "transform", "inverse", "preproc")
    reference = str(template.t1w)
    forward = transform_entities(scan, template)
    backward = forward | {"from": template.space, "to": scan.suffix}
    of_template, of_scan = f"points of {template.space}", f"points of the {scan.suffix} image"
    for format_name in config.xfm_formats:
        if format_name not in CONVERTED:  # ITK's are always written
            continue
        for way, naming, maps in (
            ("transform", forward, f"{of_template} to {of_scan}"),
            ("inverse", backward, f"{of_scan} to {of_template}"),
        ):
            convert = sized_node(
                ConvertTransform(to=format_name, num_threads=config.omp_nthreads),
                f"convert_{way}_{format_name}",
                RESAMPLE,
                max(voxels_of(reference), voxels_of(scan.images[0])),
            )
            fixed, moving = ("fixed", "moving") if way == "transform" else ("moving", "fixed")
            setattr(convert.inputs, fixed, reference)
            workflow.connect([(inputnode, convert, [(way, "transform"), ("preproc", moving)])])
            _store(workflow, config, scan, convert, way, naming, maps)
    return workflow


def _store(
    workflow: LiterateWorkflow,
    config: Config,
    scan: Scan,
    convert: pe.Node,
    way: str,
    naming: dict[str, str],
    maps: str,
) -> None:
    """Store the files of a converted transform, made of that in the derivatives."""
    from bids_fcnreg.io.formats.table import FORMATS  # imports PyTorch

    name = convert.interface.inputs.to
    what = f"Transform of {FORMATS[name].title}"
    if name == "ants":
        what += ", a warp (.nii.gz) followed by an affine (.mat),"
    outputs = ("out_file", "affine")[: len(CONVERTED[name])]
    for output in outputs:
        stored = sink(
            config,
            scan,
            f"ds_{way}_{name}" + ("_affine" if output == "affine" else ""),
            desc=name,
            Description=f"{what} that resamples images as the ITK transform, which maps {maps}",
            **naming,
        )
        workflow.connect([
            (convert, stored, [(output, "in_file")]),
            (workflow.get_node("inputnode"), stored, [(way, "sources")]),
        ])  # fmt: skip
