"""In datasets without errors, the images that are found are those that pybids finds."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from bids.layout import BIDSLayout, BIDSLayoutIndexer

from bids_fcnreg.bids.layout import read_layout
from bids_fcnreg.bids.names import Kind

T1W = Kind(("T1w",))


def found(root: Path) -> dict[str, dict[str, str]]:
    layout = read_layout(root, {"t1w": T1W})
    assert not layout.unused["t1w"]
    return {str(image.path): dict(image.entities) for image in layout.images["t1w"]}


def found_by_pybids(root: Path) -> dict[str, dict[str, str]]:
    indexer = BIDSLayoutIndexer(validate=True, index_metadata=False)
    layout = BIDSLayout(root, indexer=indexer)
    images = layout.get(suffix="T1w", extension=[".nii", ".nii.gz"])
    return {
        image.path: {name: str(label) for name, label in image.get_entities().items()}
        for image in images
    }


@pytest.fixture
def dataset(tmp_path):
    """Every entity of a T1w image alone, and pairs of them, with and without sessions."""
    labels = {"acq": "Aa0", "ce": "gad", "rec": "norm", "run": "2", "part": "mag"}
    sets = [(), *itertools.combinations(labels, 1), *itertools.combinations(labels, 2)]
    for subject, session, suffix in itertools.product(
        ("01", "Xy"), (None, "pre"), ("T1w", "T2w", "T1map", "inplaneT1")
    ):
        folder = tmp_path / f"sub-{subject}"
        prefix = f"sub-{subject}"
        if session:
            folder, prefix = folder / f"ses-{session}", f"{prefix}_ses-{session}"
        (folder / "anat").mkdir(parents=True, exist_ok=True)
        for number, chosen in enumerate(sets):
            middle = "".join(f"_{key}-{labels[key]}" for key in chosen)
            extension = ".nii" if number % 3 == 0 else ".nii.gz"
            (folder / "anat" / f"{prefix}{middle}_{suffix}{extension}").touch()
    (tmp_path / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    return tmp_path


def test_images_and_entities_are_those_of_pybids(dataset):
    ours = found(dataset)
    assert len(ours) > 50 and ours == found_by_pybids(dataset)


@pytest.mark.parametrize("name", ["ds002748", "heads", "wholehead", "oasis-malf"])
def test_images_of_real_datasets_are_those_of_pybids(real_data, name):
    assert found(real_data / name) == found_by_pybids(real_data / name)
