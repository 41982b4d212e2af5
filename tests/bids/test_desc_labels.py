"""descriptions.tsv explains every desc- label of the derivatives."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bids_fcnreg.bids.atlases import Atlas
from bids_fcnreg.bids.derivatives import read_tsv, write_tsv
from bids_fcnreg.bids.desc_labels import describe_labels, write_descriptions
from bids_fcnreg.bids.output_names import CONVERTED, output_names
from bids_fcnreg.bids.scan import OtherImage, Scan
from bids_fcnreg.bids.templates import Template

FIGURES = (".svg", ".png", ".html")


@pytest.fixture
def out(tmp_path):
    (tmp_path / "logs").mkdir()
    return tmp_path


def test_every_label_of_an_output_is_described():
    other = OtherImage(Path("sub-01_T2w.nii.gz"), "T2w")
    scan = Scan("01", None, (Path("sub-01_T1w.nii.gz"),), others=(other,))
    template = Template("Kids", "3", "1", Path("t.nii.gz"), None)
    names = output_names(scan, [template], {"Kids+3": [Atlas("A", None, (), segmentation="B")]})
    assert "sub-01_atlas-A_seg-B_desc-Kids+3Volumes_dseg.tsv" in names
    used = {
        found[1]
        for name in names
        if not name.endswith(FIGURES) and (found := re.search(r"_desc-([^_]+)_", name))
    }
    assert used == set(describe_labels(["Kids+3"], CONVERTED))
    assert "Kids+3Changes" in describe_labels(["Kids+3"], longitudinal=True)


def test_labels_of_several_runs_are_added(out):
    write_descriptions(out, describe_labels(["A"]))
    first = read_tsv(out / "descriptions.tsv")
    assert {"desc-preproc", "desc-A", "desc-AVolumes"} <= {row["desc_id"] for row in first}
    before = (out / "descriptions.tsv").stat().st_mtime_ns
    write_descriptions(out, describe_labels(["A"]))
    assert (out / "descriptions.tsv").stat().st_mtime_ns == before
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda space: write_descriptions(out, describe_labels([space])), "BCDEFGH"))
    rows = read_tsv(out / "descriptions.tsv")
    assert rows[: len(first)] == first
    assert {row["desc_id"] for row in rows} == {
        f"desc-{one}" for one in describe_labels("ABCDEFGH")
    }


def test_rows_of_users_are_kept(out):
    header = ("desc_id", "description", "author")
    write_tsv(out / "descriptions.tsv", header, [("desc-mine", "x", "me"), ("desc-A", "y", "me")])
    write_descriptions(out, describe_labels(["A"]))
    rows = {row["desc_id"]: row for row in read_tsv(out / "descriptions.tsv")}
    assert (rows["desc-mine"]["author"], rows["desc-A"]["description"]) == ("me", "y")
    assert rows["desc-brain"] == {
        "desc_id": "desc-brain", "description": "Brain mask", "author": "n/a"
    }  # fmt: skip
