"""Transforms in the formats of other software, as the workflow stores them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from nipype.pipeline import engine as pe

from bids_fcnreg.bids.derivatives import prepare_output
from bids_fcnreg.bids.output_names import CONVERTED, output_names
from bids_fcnreg.bids.scan import Scan
from bids_fcnreg.bids.templates import Template
from bids_fcnreg.config import Config
from bids_fcnreg.io.formats import table
from bids_fcnreg.io.formats.image_grids import ImageGrids
from bids_fcnreg.io.itk import read_transform, write_transform
from bids_fcnreg.io.nifti import read_grid
from bids_fcnreg.workflows.base import init_single_subject_wf
from bids_fcnreg.workflows.transform_formats import init_transform_formats_wf
from tests.transforms_between_images import assert_same_points, curved, image, mapped, voxels


@pytest.fixture
def study(tmp_path) -> tuple[Config, Scan, Template, Path]:
    """A scan and a template of different orientation, and the directory of the scan's results."""
    scan_file = tmp_path / "raw/sub-01/anat/sub-01_T1w.nii.gz"
    scan_file.parent.mkdir(parents=True)
    (tmp_path / "raw/dataset_description.json").write_text(
        '{"Name": "Raw", "BIDSVersion": "1.10.0"}'
    )
    image("oblique RAS").to_filename(scan_file)
    image("plumb LAS").to_filename(tmp_path / "template.nii.gz")
    template = Template("Other", None, None, tmp_path / "template.nii.gz", None)
    config = Config(
        bids_dir=tmp_path / "raw",
        output_dir=tmp_path / "out",
        work_dir=tmp_path / "work",
        xfm_formats=("itk", *CONVERTED),
        omp_nthreads=1,
    )
    prepare_output(config.output_dir, config.bids_dir)
    return config, Scan("01", None, (scan_file,)), template, tmp_path / "out/sub-01/anat"


def test_all_formats_map_points_as_the_itk_transforms(study):
    config, scan, template, anat = study
    anat.mkdir(parents=True)
    grids = {"T1w": read_grid(scan.images[0]), "Other": read_grid(template.t1w)}
    stored = {}
    for way, fixed in (("from-T1w_to-Other", "Other"), ("from-Other_to-T1w", "T1w")):
        path = anat / f"sub-01_{way}_mode-image_xfm.h5"
        stored[way] = write_transform(path, curved(grids[fixed])), fixed
    workflow = pe.Workflow("formats", base_dir=str(config.work_dir))
    part = init_transform_formats_wf(config=config, scan=scan, template=template)
    part.inputs.inputnode.transform = str(stored["from-T1w_to-Other"][0])
    part.inputs.inputnode.inverse = str(stored["from-Other_to-T1w"][0])
    part.inputs.inputnode.preproc = str(scan.images[0])
    workflow.add_nodes([part])
    workflow.run()
    made = {path.name for path in anat.iterdir()}
    assert made <= set(output_names(scan, [template], {})) | {
        path.name for path, _ in stored.values()
    }
    for way, (path, fixed) in stored.items():
        points = voxels(grids[fixed])
        expected = mapped(read_transform(path), points)
        (moving,) = set(grids) - {fixed}
        between = ImageGrids(grids[fixed], grids[moving])
        for name, endings in CONVERTED.items():
            stem = f"sub-01_{way}_mode-image_desc-{name}_xfm"
            chain = table.read(anat / f"{stem}{endings[0]}", between, name)
            for affine in endings[1:]:
                chain = chain.then(table.read(anat / f"{stem}{affine}", between, name))
            assert_same_points(mapped(chain, points), expected)
            sidecar = json.loads((anat / f"{stem}.json").read_text())
            assert sidecar["Sources"] == [f"bids::sub-01/anat/{path.name}"]
            assert sidecar["Description"].startswith("Transform of ")


def test_formats_are_written_on_demand(study):
    config, scan, template, _ = study
    template = replace(template, mask=template.t1w)
    for formats, expected in ((("fsl", "x5"), {"fsl", "x5"}), (("itk",), set()), ((), set())):
        whole = init_single_subject_wf(replace(config, xfm_formats=formats), scan, [template], {})
        names = [name.split(".")[-1] for name in whole.list_node_names()]
        assert {name.split("_")[-1] for name in names if name.startswith("convert_")} == expected
