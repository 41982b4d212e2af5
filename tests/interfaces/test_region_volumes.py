"""Volumes of regions, against boxes of known size."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pandas as pd
from nipype.pipeline import engine as pe

from bids_fcnreg.bids.region_tables import region_volumes
from bids_fcnreg.interfaces.region_volumes import RegionVolumes


def test_volumes_of_boxes(tmp_path):
    labels = np.zeros((20, 20, 20), dtype=np.int16)
    labels[2:5, 2:6, 2:7] = 3  # 60 voxels
    labels[10:12, 10:12, 10:12] = 11  # 8 voxels
    # Oblique, one axis flipped: voxels of 1 × 2 × 1.5 mm.
    turn = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, -1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([1, 2, 1.5])
    nib.save(nib.Nifti1Image(labels, affine), tmp_path / "labels.nii.gz")
    node = pe.Node(
        RegionVolumes(
            labels=str(tmp_path / "labels.nii.gz"), table=[(11, "right"), (3, "left"), (5, "lost")]
        ),
        name="node",
        base_dir=str(tmp_path),
    )
    outputs = node.run().outputs
    volumes = pd.read_csv(outputs.volumes, sep="\t")
    assert list(volumes.columns) == ["index", "name", "volume_mm3"]
    assert volumes["index"].tolist() == [3, 5, 11]
    assert volumes["name"].tolist() == ["left", "lost", "right"]
    np.testing.assert_allclose(volumes["volume_mm3"], [180, 0, 24], rtol=1e-4)
    lookup = pd.read_csv(outputs.lookup, sep="\t")
    pd.testing.assert_frame_equal(lookup, volumes[["index", "name"]])


def test_label_without_a_name_is_kept():
    labels = np.array([[[0, 4], [4, 9]]])
    assert region_volumes(labels, np.eye(4), [(9, "named")]) == [(4, "4", 2.0), (9, "named", 1.0)]
