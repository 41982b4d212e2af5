import nibabel as nib
import numpy as np
import pytest

from bids_fcnreg.errors import InputError
from bids_fcnreg.io.spatial_image import open_image


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.MGHImage, nib.AnalyzeImage])
def test_formats_of_nibabel_are_opened(tmp_path, kind):
    path = tmp_path / f"image{kind.files_types[-1][1]}"
    kind(np.ones((3, 4, 5), np.float32), np.eye(4)).to_filename(path)
    assert open_image(path).shape == (3, 4, 5)


def test_a_surface_is_refused(tmp_path):
    path = tmp_path / "mesh.surf.gii"
    nib.GiftiImage().to_filename(path)
    with pytest.raises(InputError, match="GiftiImage"):
        open_image(path)
