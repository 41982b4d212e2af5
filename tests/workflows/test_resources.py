"""Memory of nodes grows with images; an image that cannot be read does not stop the building."""

from __future__ import annotations

import nibabel as nib
import numpy as np

from bids_fcnreg.workflows.preprocess import init_preprocess_wf
from bids_fcnreg.workflows.resources import DEFAULT_VOXELS, MAX_VOXELS, Demand, voxels_of


def test_voxels_are_read_from_the_header(tmp_path):
    nib.Nifti1Image(np.zeros((4, 5, 6, 2), "uint8"), np.eye(4)).to_filename(tmp_path / "a.nii.gz")
    assert voxels_of(tmp_path / "a.nii.gz") == 120


def test_implausible_header_changes_demand_little(tmp_path):
    (tmp_path / "text.nii.gz").write_text("no image")
    assert voxels_of(tmp_path / "text.nii.gz") == DEFAULT_VOXELS
    assert voxels_of(tmp_path / "none.nii.gz") == DEFAULT_VOXELS
    header = nib.Nifti1Header()
    header.set_data_shape((30_000, 30_000, 30_000))
    (tmp_path / "huge.nii").write_bytes(header.binaryblock + bytes(4))
    assert voxels_of(tmp_path / "huge.nii") == MAX_VOXELS


def test_steps_of_a_larger_scan_are_given_more():
    def given(voxels: int) -> dict[str, tuple[float, float]]:
        workflow = init_preprocess_wf(
            n_runs=2,
            skull_strip="auto",
            method="deepbet",
            omp_nthreads=1,
            has_lesion=True,
            voxels=voxels,
        )
        names = ("conform", "average", "extract", "debias", "scale", "unite_lesions")
        nodes = {name: workflow.get_node(name) for name in names}
        return {name: (node.mem_gb, node.expected_seconds) for name, node in nodes.items()}

    small, large = given(10**6), given(10**8)
    for name in small:
        assert all(less < more for less, more in zip(small[name], large[name], strict=True)), name
    demand = Demand(10, 4.0, base_gb=0.5, base_seconds=2)
    assert demand.memory_gb(1024**3) == 10.5
    assert (demand.seconds(10**6), demand.seconds(10**6, threads=4)) == (6, 3)
