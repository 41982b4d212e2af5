"""`fcnreg apply` to tables of points."""

from __future__ import annotations

import pytest
import SimpleITK as sitk

from bids_fcnreg.cli.fcnreg import main

# The command prints these warnings.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default::UserWarning")]


def apply(*words: object) -> int:
    return main(["apply", *map(str, words)])


TABLES = {
    "p.csv": "name,x,y,z\na b,1,2,3\n",
    "p.CSV": "name,x,y,z\na b,1,2,3\n",
    "p.tsv": "name\tx\ty\tz\na b\t1\t2\t3\n",
    "p.TSV": "name\tx\ty\tz\na b\t1\t2\t3\n",
    "p.txt": "name\tx\ty\tz\na b\t1\t2\t3\n",
    "commas.txt": "name,x,y,z\na b,1,2,3\n",
    "spaces.txt": "name   x y  z\nab   1 2   3\n",
    "semicolons.csv": "name;x;y;z\na b;1;2;3\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_points(tmp_path, name):
    move = sitk.TranslationTransform(3, (10.0, 20.0, 30.0))
    sitk.WriteTransform(move, str(tmp_path / "t.tfm"))
    (tmp_path / name).write_text(TABLES[name])
    for ending, separator in (("csv", ","), ("tsv", "\t"), ("TSV", "\t")):
        out = tmp_path / f"o.{ending}"
        assert apply("-i", tmp_path / name, "-o", out, "-t", tmp_path / "t.tfm") == 0
        first = "ab" if "spaces" in name else "a b"
        header, row = out.read_text().splitlines()
        assert header.split(separator) == ["name", "x", "y", "z"]
        assert row.split(separator) == [first, "-9.00000", "-18.00000", "33.00000"]


@pytest.mark.parametrize(
    ("name", "text", "out", "message"),
    [
        ("p.tsv", "a\tb\n1\t2\n", "o.tsv", "has no column x"),
        ("p.txt", "1 2 3\n4 5 6\n", "o.txt", "Name the columns in its first line"),
        ("p.CSV", "x,y,z\n1,2,n/a\n", "o.csv", "z is not a number"),
        ("p.csv", "x;y;z\n1,5;2,5;3,5\n", "o.csv", "x is not a number"),
        ("p.tsv", "x\ty\tz\n1\t2\t3\n", "o.nii.gz", "must end in .csv, .tsv or .txt"),
        ("p.fcsv", "x,y,z\n1,2,3\n", "o.fcsv", "o.fcsv must end in .nii"),
    ],
)
def test_invalid_tables_are_refused(tmp_path, name, text, out, message, capsys):
    (tmp_path / name).write_text(text)
    assert apply("-i", tmp_path / name, "-o", tmp_path / out, "-t", "identity") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / out).exists()


def test_points_in_lps_get_a_warning(tmp_path, capsys):
    (tmp_path / "p.csv").write_text("x,y,z,t\n1,2,3,0\n")
    assert apply("-i", tmp_path / "p.csv", "-o", tmp_path / "o.csv", "-t", "identity") == 0
    assert "which uses LPS+ mm" in capsys.readouterr().err
