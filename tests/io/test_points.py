"""Tables of points."""

from __future__ import annotations

import os

import numpy as np
import pytest

from bids_fcnreg.errors import InputError
from bids_fcnreg.io.points import read_points, write_points


def test_other_columns_are_kept(tmp_path):
    given = tmp_path / "in.csv"
    given.write_bytes(b"\xef\xbb\xbfz,label,x,y\n3,A,1,2\n-3,B,-1,-2.5\n")  # as Excel writes it
    table = read_points(given)
    np.testing.assert_array_equal(table.points, [[1, 2, 3], [-1, -2.5, -3]])
    out = write_points(tmp_path / "out.csv", table, table.points + 1)
    assert out.read_text() == (
        "z,label,x,y\n4.00000,A,2.00000,3.00000\n-2.00000,B,0.00000,-1.50000\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        "x, y, z\n1, 2, 3\n",
        "x ,y ,z\n1 ,2 ,3\n",
        "x; y; z\n1; 2; 3\n",
        "x\ty\tz\r\n1\t2\t3\r\n",
        " x  y  z\n  1  2  3\n",
        '"x", "y", "z"\n"1", "2", "3"\n',
        "x,y,z\n\n1,2,3\n\n",
    ],
)
def test_spaces_around_cells_are_ignored(tmp_path, text):
    (tmp_path / "in.csv").write_text(text, newline="")
    table = read_points(tmp_path / "in.csv")
    np.testing.assert_array_equal(table.points, [[1, 2, 3]])
    out = write_points(tmp_path / "out.csv", table, table.points + 1)
    assert out.read_text() == "x,y,z\n2.00000,3.00000,4.00000\n"


def test_an_empty_table_stays_empty(tmp_path):
    (tmp_path / "in.csv").write_text("x,y,z\n")
    table = read_points(tmp_path / "in.csv")
    assert table.points.shape == (0, 3)
    assert write_points(tmp_path / "out.csv", table, table.points).read_text() == "x,y,z\n"


def test_reading_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "in.csv")
    with pytest.raises(InputError, match="it is not a file"):
        read_points(tmp_path / "in.csv")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x,y\n1,2\n", "has no column z"),
        ("", "has no column x"),
        ("x,y,z\n1,2,3\n1,two,3\n", "Line 3 of .*: y is not a number"),
        ("x,x,y,z\n1,2,3,4\n", "duplicate column names"),
        ("x,y,z\n1,2,3,4\n", "Line 2 of .* has more cells"),
        ("x,y,z\n1,2\n", "Line 2 of .*: z is not a number"),
        ("x,y,z\n1,2,nan\n", "Line 2 of .*: z is not a number"),
        ("x,y,z\n1,2,3_0\n", "Line 2 of .*: z is not a number"),
        ("x;y;z\n1,5;2;3\n", "Line 2 of .*: x is not a number"),
    ],
)
def test_invalid_point_tables_are_rejected(tmp_path, text, sentence):
    (tmp_path / "in.csv").write_text(text)
    with pytest.raises(InputError, match=sentence):
        read_points(tmp_path / "in.csv")
